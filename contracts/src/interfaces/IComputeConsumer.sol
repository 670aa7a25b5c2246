// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Result} from "../Types.sol";

/// @title What a contract must answer to, to be called back
interface IComputeConsumer {
    /// @notice The task is settled. Called once, by the oracle, with the request's `callbackGas`.
    /// @dev No state-changing function of the oracle can be entered from here (R20). What it reverts with is not read.
    /// @param outcome 1 succeeded, 2 failed
    /// @param publicOutputs content of the outputs without recipients, in their order
    function onComputeResult(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata publicOutputs)
        external;
}
