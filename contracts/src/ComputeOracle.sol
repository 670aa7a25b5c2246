// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Enclaves, Price, Result, TaskRequest} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "./interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "./interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {BPS, EIP712_NAME, EIP712_VERSION, Outcome, TaskState} from "./libraries/Constants.sol";
import {EnclavePolicy} from "./libraries/EnclavePolicy.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TaskSlot, TaskSlots} from "./libraries/TaskSlot.sol";

/// @title ComputeOracle
/// @notice See IComputeOracle.
contract ComputeOracle is IComputeOracle, EIP712, ReentrancyGuardTransient {
    uint256 private constant MAX_AS_OF_AGE = 1 hours;
    uint256 private constant MAX_DURATION = 30 days;
    uint256 private constant MAX_PARAMS = 4096;
    uint256 private constant MAX_URI = 2048;
    uint256 private constant MAX_CALLBACK_GAS = 1_000_000;
    /// @dev What is left for the call itself (2,600, cold) and, when it fails, its event.
    uint256 private constant CALLBACK_RESERVE = 10_000;

    IAgreementRegistry public immutable agreements;

    mapping(bytes32 taskId => TaskSlot) private _tasks;
    mapping(address account => uint256) public balanceOf;

    constructor(IAgreementRegistry agreements_) EIP712(EIP712_NAME, EIP712_VERSION) {
        if (address(agreements_).code.length == 0) revert ComputeOracle_NotAContract(address(agreements_));
        agreements = agreements_;
    }

    // The registry is this contract's own, fixed at construction, calls nobody, and every writer here is nonReentrant; a
    // reader inside `spend` would see a task that is not there yet, as it is.
    // slither-disable-next-line reentrancy-no-eth
    function request(TaskRequest calldata r, bytes32[] calldata proof, string calldata uri)
        external
        payable
        nonReentrant
        returns (bytes32 taskId)
    {
        _checkRequest(r, uri);
        taskId = taskIdOf(r);
        uint8 state = _tasks[taskId].state();
        if (state != TaskState.NONE) revert ComputeOracle_TaskExists(taskId, state);

        bytes32 versionsHash = keccak256(abi.encodePacked(r.versions));
        IAgreementRegistry.Terms memory terms = agreements.spend(r.agreementId, r.requester, versionsHash, proof);
        if (terms.fee > r.maxFee) revert ComputeOracle_FeeAboveMax(terms.fee, r.maxFee);
        if (msg.value != terms.fee) revert ComputeOracle_WrongPayment(msg.value, terms.fee);

        uint256 cancelUntil = terms.releaseDelay == 0 ? 0 : block.number + terms.releaseDelay;
        _tasks[taskId] = TaskSlots.requested(block.number, r.deadline, cancelUntil, terms.fee);
        emit TaskRequested(taskId, r.agreementId, r.requester, r, uri);
    }

    function cancel(TaskRequest calldata r) external nonReentrant {
        (bytes32 taskId, TaskSlot slot) = _requested(r);
        if (msg.sender != r.requester) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        // R9: past this block brokers may have released. Zero is an agreement without cancel.
        if (block.number > slot.cancelUntil()) revert ComputeOracle_CancelClosed(block.number, slot.cancelUntil());

        _tasks[taskId] = TaskSlots.closed(TaskState.CANCELLED);
        _credit(r.requester, taskId, slot.escrow());
        emit TaskCancelled(taskId, r.agreementId, r.requester);
        agreements.unspend(r.agreementId, r.requester);
    }

    function fulfil(
        TaskRequest calldata r,
        Enclaves calldata tee,
        Price calldata price,
        Result calldata result,
        IEnclaveRegistry.Identity calldata enclave,
        bytes calldata signature
    ) external nonReentrant {
        (bytes32 taskId, TaskSlot slot) = _requested(r);
        if (block.timestamp > slot.deadline()) revert ComputeOracle_DeadlinePassed(block.timestamp, slot.deadline());
        _checkResult(r, taskId, result);
        bytes32 digest = resultDigestOf(result);
        address signer = Signatures.recover(digest, signature);
        if (signer == address(0)) revert ComputeOracle_BadSignature(digest);
        _checkEnclave(r.agreementId, tee, price, enclave, result.anchor, signer);

        bool succeeded = result.outcome == Outcome.SUCCEEDED;
        _tasks[taskId] = TaskSlots.settled(succeeded ? TaskState.FULFILLED : TaskState.FAILED, digest);
        if (succeeded) _paySuccess(taskId, slot.escrow(), price, result.payee);
        else _payFailure(taskId, slot.escrow(), price.failedFee, result.payee, r.requester);
        emit TaskFulfilled(taskId, r.agreementId, signer, digest, result, signature);

        if (r.callback != address(0)) _callBack(taskId, r.callback, r.callbackGas, result);
    }

    function expire(TaskRequest calldata r) external nonReentrant {
        (bytes32 taskId, TaskSlot slot) = _requested(r);
        if (block.timestamp <= slot.deadline()) {
            revert ComputeOracle_DeadlineNotPassed(block.timestamp, slot.deadline());
        }

        _tasks[taskId] = TaskSlots.closed(TaskState.EXPIRED);
        _credit(r.requester, taskId, slot.escrow());
        emit TaskExpired(taskId, r.agreementId, r.requester);
    }

    function withdraw(address payable to) external nonReentrant returns (uint256 amount) {
        amount = balanceOf[msg.sender];
        if (amount == 0) revert ComputeOracle_NothingToWithdraw(msg.sender);
        balanceOf[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert ComputeOracle_WithdrawalFailed(to, amount);
    }

    function task(bytes32 taskId) external view returns (Task memory t) {
        TaskSlot slot = _tasks[taskId];
        t.state = slot.state();
        if (t.state == TaskState.REQUESTED) {
            t.requestBlock = slot.requestBlock();
            t.deadline = slot.deadline();
            t.cancelUntil = slot.cancelUntil();
            t.escrow = slot.escrow();
        } else {
            t.resultDigest = slot.resultDigest();
        }
    }

    function taskIdOf(TaskRequest calldata r) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(r));
    }

    function resultDigestOf(Result calldata result) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(result));
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function _requested(TaskRequest calldata r) private view returns (bytes32 taskId, TaskSlot slot) {
        taskId = taskIdOf(r);
        slot = _tasks[taskId];
        if (slot.state() != TaskState.REQUESTED) revert ComputeOracle_NotRequested(taskId, slot.state());
    }

    function _checkRequest(TaskRequest calldata r, string calldata uri) private view {
        if (r.requester != msg.sender) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        if (r.inputsId != 0) revert ComputeOracle_NotYetSupported("inputsId");
        if (r.inputShares != 0) revert ComputeOracle_NotYetSupported("inputShares");
        if (r.spend != 0) revert ComputeOracle_NotYetSupported("spend");
        // R14: this is the only time that the enclave goes by.
        if (r.asOf > block.timestamp || r.asOf + MAX_AS_OF_AGE < block.timestamp) {
            revert ComputeOracle_BadAsOf(r.asOf, block.timestamp, MAX_AS_OF_AGE);
        }
        if (r.deadline <= block.timestamp || r.deadline > block.timestamp + MAX_DURATION) {
            revert ComputeOracle_BadDeadline(r.deadline, block.timestamp, MAX_DURATION);
        }
        if (r.params.length > MAX_PARAMS) revert ComputeOracle_ParamsTooLong(r.params.length, MAX_PARAMS);
        if (bytes(uri).length > MAX_URI) revert ComputeOracle_UriTooLong(bytes(uri).length, MAX_URI);
        if (r.callback == address(0)) {
            if (r.callbackGas != 0) revert ComputeOracle_BadCallbackGas(r.callbackGas, 0, 0);
        } else {
            if (r.callback != r.requester || r.callback.code.length == 0) {
                revert ComputeOracle_BadCallback(r.callback, r.requester);
            }
            if (r.callbackGas == 0 || r.callbackGas > MAX_CALLBACK_GAS) {
                revert ComputeOracle_BadCallbackGas(r.callbackGas, 1, MAX_CALLBACK_GAS);
            }
        }
    }

    function _checkResult(TaskRequest calldata r, bytes32 taskId, Result calldata result) private pure {
        if (result.agreementId != r.agreementId) {
            revert ComputeOracle_WrongAgreement(result.agreementId, r.agreementId);
        }
        if (result.taskId != taskId) revert ComputeOracle_WrongTask(result.taskId, taskId);
        if (result.outcome != Outcome.SUCCEEDED && result.outcome != Outcome.FAILED) {
            revert ComputeOracle_BadOutcome(result.outcome);
        }
        if ((result.outcome == Outcome.SUCCEEDED) != (result.outputs.length != 0)) {
            revert ComputeOracle_WrongOutputs(result.outcome, result.outputs.length);
        }
        if (result.payee == address(0)) revert ComputeOracle_ZeroPayee();
    }

    /// @dev R8: reads what was signed and what is registered, never what was narrowed since.
    function _checkEnclave(
        bytes32 agreementId,
        Enclaves calldata tee,
        Price calldata price,
        IEnclaveRegistry.Identity calldata enclave,
        bytes32 anchor,
        address signer
    ) private view {
        (address registry, bytes32 expected) = agreements.settlementOf(agreementId);
        bytes32 got = Hashing.settlementHash(tee, price);
        if (got != expected) revert ComputeOracle_WrongSettlement(got, expected);
        IEnclaveRegistry.Standing memory standing = IEnclaveRegistry(registry).standingOf(anchor, signer, enclave);
        EnclavePolicy.check(tee, enclave, standing, anchor, signer);
    }

    function _paySuccess(bytes32 taskId, uint256 fee, Price calldata price, address payee) private {
        uint256 rest = fee;
        for (uint256 i; i < price.to.length; ++i) {
            uint256 share = fee * price.bps[i] / BPS;
            rest -= share;
            _credit(price.to[i], taskId, share);
        }
        _credit(payee, taskId, rest);
    }

    function _payFailure(bytes32 taskId, uint256 fee, uint256 failedFee, address payee, address requester) private {
        _credit(payee, taskId, failedFee);
        _credit(requester, taskId, fee - failedFee);
    }

    function _credit(address account, bytes32 taskId, uint256 amount) private {
        if (amount == 0) return;
        balanceOf[account] += amount;
        emit Credited(account, taskId, amount);
    }

    /// @dev Last, so that everything is settled whatever happens in there (R20).
    function _callBack(bytes32 taskId, address callback, uint256 gasCap, Result calldata result) private {
        bytes memory data = abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, result.outcome, result));
        // EIP-150 passes on at most 63/64 of what is left: without this, a relayer could starve the callback.
        uint256 needed = gasCap * 64 / 63 + CALLBACK_RESERVE;
        uint256 available = gasleft();
        if (available < needed) revert ComputeOracle_NotEnoughGas(available, needed);
        bool called;
        assembly ("memory-safe") {
            // No return data is copied: its length is the callee's choice, its price would be the relayer's.
            called := call(gasCap, callback, 0, add(data, 0x20), mload(data), 0, 0)
        }
        if (!called) emit CallbackFailed(taskId, callback);
    }
}
