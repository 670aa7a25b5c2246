// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskState} from "./Constants.sol";

/// @dev All that a task keeps on chain, in one word. The low byte is its state (TaskState), its highest bit telling of a
/// callback: one to be made while requested, one that failed once settled. Above it, while requested: requestBlock 40 bits,
/// deadline 40, cancelUntil 40, escrow 128; once settled: the first 248 bits of the result's digest; once cancelled or
/// expired: nothing.
type TaskSlot is uint256;

using TaskSlots for TaskSlot global;

library TaskSlots {
    uint256 private constant CALLBACK = 0x80;

    /// @dev Block numbers and times must fit 40 bits, which the caller checks.
    function requested(uint256 atBlock, uint256 until, uint256 cancellableUntil, uint128 amount, bool calledBack)
        internal
        pure
        returns (TaskSlot)
    {
        return TaskSlot.wrap(
            (calledBack ? CALLBACK : 0) | uint256(TaskState.REQUESTED) | atBlock << 8 | until << 48 | cancellableUntil
                << 88 | uint256(amount) << 128
        );
    }

    function settled(uint8 newState, bytes32 digest) internal pure returns (TaskSlot) {
        return TaskSlot.wrap(uint256(bytes32(bytes31(digest))) | newState);
    }

    function closed(uint8 newState) internal pure returns (TaskSlot) {
        return TaskSlot.wrap(newState);
    }

    /// @dev While requested: whether the requester is to be called back. Once settled: whether that failed.
    function callback(TaskSlot slot) internal pure returns (bool) {
        return TaskSlot.unwrap(slot) & CALLBACK != 0;
    }

    function withFailedCallback(TaskSlot slot) internal pure returns (TaskSlot) {
        return TaskSlot.wrap(TaskSlot.unwrap(slot) | CALLBACK);
    }

    function withoutCallback(TaskSlot slot) internal pure returns (TaskSlot) {
        return TaskSlot.wrap(TaskSlot.unwrap(slot) & ~CALLBACK);
    }

    function state(TaskSlot slot) internal pure returns (uint8) {
        return uint8(TaskSlot.unwrap(slot) & ~CALLBACK);
    }

    function requestBlock(TaskSlot slot) internal pure returns (uint40) {
        return uint40(TaskSlot.unwrap(slot) >> 8);
    }

    function deadline(TaskSlot slot) internal pure returns (uint40) {
        return uint40(TaskSlot.unwrap(slot) >> 48);
    }

    /// @dev Last block in which the requester may cancel; zero when the agreement allows no cancel (R9).
    function cancelUntil(TaskSlot slot) internal pure returns (uint40) {
        return uint40(TaskSlot.unwrap(slot) >> 88);
    }

    function escrow(TaskSlot slot) internal pure returns (uint128) {
        return uint128(TaskSlot.unwrap(slot) >> 128);
    }

    function resultDigest(TaskSlot slot) internal pure returns (bytes31) {
        return bytes31(bytes32(TaskSlot.unwrap(slot)));
    }
}
