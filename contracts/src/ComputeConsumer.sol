// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Result, TaskRequest} from "./Types.sol";
import {IComputeConsumer} from "./interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "./interfaces/IComputeOracle.sol";
import {TaskState} from "./libraries/Constants.sol";

/// @title ComputeConsumer
/// @notice The base of a contract that asks for computations and gets their answers. Inherit it, call `_request`, and
/// implement `_fulfilled` and `_expired`. Each task ends in exactly one of the two.
/// @dev WARNING: within a callback no state-changing function of the oracle can be entered; ask again in a later
/// transaction. What `_fulfilled` needs must fit the request's `callbackGas`; if it did not, anyone can `redeliver`.
abstract contract ComputeConsumer is IComputeConsumer {
    IComputeOracle public immutable computeOracle;

    /// @notice Tasks that this contract asked for and that have not ended here.
    mapping(bytes32 taskId => bool) public isPending;

    // An answer is the oracle's own, and comes once (R20)
    error ComputeConsumer_NotAContract(address value);
    error ComputeConsumer_NotOracle(address caller);
    error ComputeConsumer_NotPending(bytes32 taskId);
    error ComputeConsumer_WrongResult(bytes32 taskId, bytes31 got, bytes31 expected);
    error ComputeConsumer_NotEnded(bytes32 taskId, uint8 state);

    constructor(IComputeOracle oracle) {
        if (address(oracle).code.length == 0) revert ComputeConsumer_NotAContract(address(oracle));
        computeOracle = oracle;
    }

    /// @inheritdoc IComputeConsumer
    function onComputeResult(bytes32 taskId, uint8 outcome, Result calldata result) external {
        if (msg.sender != address(computeOracle)) revert ComputeConsumer_NotOracle(msg.sender);
        _end(taskId);
        _fulfilled(taskId, outcome, result);
    }

    /// @notice Hands over a settled result whose callback failed. Anyone may: the result is the one whose digest the oracle
    /// keeps.
    function redeliver(bytes32 taskId, Result calldata result) external {
        IComputeOracle.Task memory t = computeOracle.task(taskId);
        if (t.state != TaskState.FULFILLED && t.state != TaskState.FAILED) {
            revert ComputeConsumer_NotEnded(taskId, t.state);
        }
        bytes31 got = bytes31(computeOracle.resultDigestOf(result));
        if (got != t.resultDigest) revert ComputeConsumer_WrongResult(taskId, got, t.resultDigest);
        _end(taskId);
        _fulfilled(taskId, result.outcome, result);
    }

    /// @notice Ends a task that was not settled before its deadline, or that was cancelled. Anyone may. The money is in this
    /// contract's balance at the oracle.
    function reclaim(TaskRequest calldata r) external {
        bytes32 taskId = computeOracle.taskIdOf(r);
        _end(taskId);
        uint8 state = computeOracle.task(taskId).state;
        if (state == TaskState.REQUESTED) {
            computeOracle.expire(r);
        } else if (state != TaskState.EXPIRED && state != TaskState.CANCELLED) {
            revert ComputeConsumer_NotEnded(taskId, state);
        }
        _expired(taskId);
    }

    /// @dev Fills in `requester`, `callback` and `asOf`; the rest of `r` is the caller's.
    /// @param fee the agreement's, in wei, out of this contract's balance
    function _request(TaskRequest memory r, bytes32[] memory proof, string memory uri, uint256 fee)
        internal
        returns (bytes32 taskId)
    {
        r.requester = address(this);
        r.callback = address(this);
        r.asOf = uint64(block.timestamp);
        taskId = computeOracle.request{value: fee}(r, proof, uri);
        isPending[taskId] = true;
    }

    /// @dev The task is settled: `outcome` 1 succeeded, 2 failed.
    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata result) internal virtual;

    /// @dev The answer never comes.
    function _expired(bytes32 taskId) internal virtual;

    function _end(bytes32 taskId) private {
        if (!isPending[taskId]) revert ComputeConsumer_NotPending(taskId);
        delete isPending[taskId];
    }
}
