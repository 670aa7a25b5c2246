// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Price, Result, TaskRequest} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../../src/libraries/Constants.sol";
import {Vm} from "../utils/Vm.sol";

/// @title What somebody knows who reads events only (I12)
contract Indexer {
    struct Known {
        address token;
        uint256 fee;
        uint256 minFee;
        uint256 failedFee;
        uint256 shares;
        address[] to;
        uint16[] bps;
    }

    address private immutable registry;
    address private immutable oracle;

    mapping(bytes32 agreementId => Known) private _known;
    mapping(bytes32 agreementId => IAgreementRegistry.Status) public statusOf;
    mapping(bytes32 agreementId => uint64) public usedOf;
    mapping(bytes32 agreementId => uint256) public poolOf;
    mapping(address token => mapping(address account => uint256)) public balanceOf;
    mapping(address owner => mapping(bytes32 lineage => uint256)) public spentOf;
    mapping(bytes32 taskId => uint8) public stateOf;
    mapping(bytes32 taskId => address) public requesterOf;
    /// @dev Of a batch whose BatchFulfilled is still to come.
    bytes32[] private _pending;

    constructor(address registry_, address oracle_) {
        (registry, oracle) = (registry_, oracle_);
    }

    function read(Vm.Log[] calldata logs) external {
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter == registry) _agreement(logs[i]);
            else if (logs[i].emitter == oracle) _task(logs[i]);
        }
        require(_pending.length == 0, "I12: a batch without its end");
    }

    function _agreement(Vm.Log calldata log) private {
        bytes32 topic = log.topics[0];
        bytes32 id = log.topics[1];
        if (topic == IAgreementRegistry.AgreementActivated.selector) {
            require(statusOf[id] == IAgreementRegistry.Status.None, "I2: activated twice");
            statusOf[id] = IAgreementRegistry.Status.Active;
            (Agreement memory a,) = abi.decode(log.data, (Agreement, bytes[]));
            _learn(_known[id], a.price);
        } else if (topic == IAgreementRegistry.AgreementRevoked.selector) {
            // Else it is a draft's.
            if (statusOf[id] != IAgreementRegistry.Status.None) statusOf[id] = IAgreementRegistry.Status.Revoked;
        } else if (topic == IAgreementRegistry.AgreementSuperseded.selector) {
            statusOf[id] = IAgreementRegistry.Status.Superseded;
        } else if (topic == IAgreementRegistry.BudgetMoved.selector) {
            spentOf[address(uint160(uint256(log.topics[2])))][log.topics[3]] = abi.decode(log.data, (uint256));
        }
    }

    function _learn(Known storage known, Price memory price) private {
        (known.token, known.fee, known.minFee) = (price.token, price.fee, price.minFee);
        (known.failedFee, known.to, known.bps) = (price.failedFee, price.to, price.bps);
        for (uint256 i; i < price.bps.length; ++i) {
            known.shares += price.bps[i];
        }
    }

    function _task(Vm.Log calldata log) private {
        bytes32 topic = log.topics[0];
        if (topic == IComputeOracle.Withdrawn.selector) {
            address account = address(uint160(uint256(log.topics[1])));
            balanceOf[address(uint160(uint256(log.topics[2])))][account] -= abi.decode(log.data, (uint256));
        } else if (topic == IComputeOracle.Distributed.selector) {
            _distributed(log.topics[1], abi.decode(log.data, (uint256)));
        } else if (topic == IComputeOracle.TaskFulfilledInBatch.selector) {
            _pending.push(log.topics[1]);
        } else if (topic == IComputeOracle.BatchFulfilled.selector) {
            (address payee,, uint256 count,) = abi.decode(log.data, (address, bytes32, uint256, bytes));
            require(count == _pending.length, "I12: a batch's count");
            for (uint256 i; i < count; ++i) {
                _succeeded(log.topics[1], _pending[i], payee);
            }
            delete _pending;
        } else if (log.topics.length == 4) {
            _moved(topic, log.topics[1], log.topics[2], address(uint160(uint256(log.topics[3]))), log.data);
        }
    }

    function _moved(bytes32 topic, bytes32 taskId, bytes32 id, address account, bytes calldata data) private {
        Known storage known = _known[id];
        if (topic == IComputeOracle.TaskRequested.selector) {
            _move(taskId, TaskState.NONE, TaskState.REQUESTED);
            requesterOf[taskId] = account;
            ++usedOf[id];
        } else if (topic == IComputeOracle.TaskCancelled.selector) {
            _move(taskId, TaskState.REQUESTED, TaskState.CANCELLED);
            --usedOf[id];
            balanceOf[known.token][account] += known.fee;
        } else if (topic == IComputeOracle.TaskExpired.selector) {
            _move(taskId, TaskState.REQUESTED, TaskState.EXPIRED);
            poolOf[id] += known.minFee;
            balanceOf[known.token][account] += known.fee - known.minFee;
        } else if (topic == IComputeOracle.TaskFulfilled.selector) {
            (, Result memory result,) = abi.decode(data, (bytes32, Result, bytes));
            if (result.outcome == 1) {
                _succeeded(id, taskId, result.payee);
            } else {
                _move(taskId, TaskState.REQUESTED, TaskState.FAILED);
                balanceOf[known.token][result.payee] += known.failedFee;
                balanceOf[known.token][requesterOf[taskId]] += known.fee - known.failedFee;
            }
        }
    }

    function _succeeded(bytes32 id, bytes32 taskId, address payee) private {
        _move(taskId, TaskState.REQUESTED, TaskState.FULFILLED);
        Known storage known = _known[id];
        uint256 shared = known.fee * known.shares / 10_000;
        poolOf[id] += shared;
        balanceOf[known.token][payee] += known.fee - shared;
    }

    function _distributed(bytes32 id, uint256 amount) private {
        Known storage known = _known[id];
        uint256 pool = poolOf[id];
        uint256 sum;
        for (uint256 i; i < known.to.length; ++i) {
            uint256 share = pool * known.bps[i] / known.shares;
            balanceOf[known.token][known.to[i]] += share;
            sum += share;
        }
        require(sum == amount, "I12: what was distributed");
        poolOf[id] = pool - amount;
    }

    function _move(bytes32 taskId, uint8 from, uint8 to) private {
        require(stateOf[taskId] == from, "I2: an event of a move that is none");
        stateOf[taskId] = to;
    }
}
