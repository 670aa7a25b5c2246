// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Result, TaskRequest} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "./interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "./interfaces/IComputeOracle.sol";
import {TaskState} from "./libraries/Constants.sol";

/// @title ComputeConsumer
/// @notice The base of a contract that asks for computations and gets their answers. Inherit it, call `_request`, and
/// implement `_fulfilled` and `_expired`. Each task ends in exactly one of the two.
/// @dev WARNING: within a callback no state-changing function of the oracle can be entered; ask again in a later
/// transaction. What `_fulfilled` needs must fit the request's `callbackGas`; if it did not, anyone can make the callback again
/// at the oracle (`retryCallback`), with as much gas as it takes.
abstract contract ComputeConsumer is IComputeConsumer {
    IComputeOracle public immutable computeOracle;

    /// @notice Tasks that this contract asked for and that have not ended here.
    mapping(bytes32 taskId => bool) public isPending;

    // An answer is the oracle's own, and comes once (R20)
    error ComputeConsumer_NotAContract(address value);
    error ComputeConsumer_NotOracle(address caller);
    error ComputeConsumer_NotPending(bytes32 taskId);
    error ComputeConsumer_NotEnded(bytes32 taskId, uint8 state);

    constructor(IComputeOracle oracle) {
        if (address(oracle).code.length == 0) revert ComputeConsumer_NotAContract(address(oracle));
        computeOracle = oracle;
    }

    /// @inheritdoc IComputeConsumer
    function onComputeResult(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata publicOutputs)
        external
    {
        if (msg.sender != address(computeOracle)) revert ComputeConsumer_NotOracle(msg.sender);
        _end(taskId);
        _fulfilled(taskId, outcome, result, publicOutputs);
    }

    /// @notice Ends a task that was not settled before its deadline, or that was cancelled. Anyone may. The money is in this
    /// contract's balance at the oracle.
    function reclaim(TaskRequest calldata r, IComputeOracle.Pricing calldata pricing) external {
        bytes32 taskId = computeOracle.taskIdOf(r);
        _end(taskId);
        uint8 state = computeOracle.task(r.agreementId, taskId).state;
        if (state == TaskState.REQUESTED) {
            computeOracle.expire(r, pricing);
        } else if (state != TaskState.EXPIRED && state != TaskState.CANCELLED) {
            revert ComputeConsumer_NotEnded(taskId, state);
        }
        _expired(taskId);
    }

    /// @dev Fills in `requester`, `callback` and `asOf`; the rest of `r` is the caller's. A fee in a token comes out of this
    /// contract's balance of it: allow the oracle so much before.
    /// @param admission what of the agreement the request is checked by
    /// @param value the agreement's fee in wei where it is in the native coin, out of this contract's balance; else zero
    function _request(
        TaskRequest memory r,
        IAgreementRegistry.Admission memory admission,
        string memory uri,
        uint256 value
    ) internal returns (bytes32 taskId) {
        r.requester = address(this);
        r.callback = address(this);
        r.asOf = uint64(block.timestamp);
        taskId = computeOracle.request{value: value}(r, admission, uri);
        isPending[taskId] = true;
    }

    /// @dev The task is settled: `outcome` 1 succeeded, 2 failed. `publicOutputs` are the outputs without recipients.
    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata publicOutputs)
        internal
        virtual;

    /// @dev The answer never comes.
    function _expired(bytes32 taskId) internal virtual;

    function _end(bytes32 taskId) private {
        if (!isPending[taskId]) revert ComputeConsumer_NotPending(taskId);
        delete isPending[taskId];
    }
}
