// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {ANYONE, Outcome} from "../src/libraries/Constants.sol";

/// @title RiskDesk
/// @notice A small contract that asks for one agreed computation again and again, and remembers where each answer is.
/// @dev The answer itself is sealed to `resultKey`'s holder; the chain learns its digest only.
contract RiskDesk is ComputeConsumer {
    uint32 private constant CALLBACK_GAS = 100_000;

    address public immutable owner;
    bytes32 public immutable agreementId;
    bytes32 public immutable resultKey;

    /// @notice Digest of the first output of each task that succeeded.
    mapping(bytes32 taskId => bytes32) public answers;
    uint256 public asked;

    event Asked(bytes32 indexed taskId);
    event Answered(bytes32 indexed taskId, bytes32 outputDigest);
    event Unanswered(bytes32 indexed taskId);

    error RiskDesk_NotOwner(address caller);

    constructor(IComputeOracle oracle, bytes32 agreementId_, bytes32 resultKey_) payable ComputeConsumer(oracle) {
        owner = msg.sender;
        agreementId = agreementId_;
        resultKey = resultKey_;
    }

    /// @notice Fees to come, and what comes back of them.
    receive() external payable override {}

    /// @param versions the agreement's dataset ids
    /// @param fee the agreement's, in wei, from this contract's balance
    function ask(bytes32[] calldata versions, bytes calldata params, uint256 fee) external returns (bytes32 taskId) {
        if (msg.sender != owner) revert RiskDesk_NotOwner(msg.sender);
        // Fields that are not set hold their off value, zero.
        // slither-disable-next-line uninitialized-local
        TaskRequest memory r;
        r.agreementId = agreementId;
        r.nonce = bytes32(++asked);
        r.versions = versions;
        r.params = params;
        r.resultKey = resultKey;
        r.maxFee = fee;
        r.deadline = uint64(block.timestamp + 1 days);
        r.callbackGas = CALLBACK_GAS;
        // slither-disable-next-line uninitialized-local
        IAgreementRegistry.Admission memory admission;
        admission.requesters = ANYONE;
        taskId = _request(r, admission, "", address(0));
        emit Asked(taskId);
    }

    /// @notice What is here and needed for no more questions.
    function withdraw(address payable to) external {
        if (msg.sender != owner) revert RiskDesk_NotOwner(msg.sender);
        Address.sendValue(to, address(this).balance);
    }

    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata) internal override {
        if (outcome != Outcome.SUCCEEDED) {
            emit Unanswered(taskId);
            return;
        }
        answers[taskId] = result.outputs[0].digest;
        emit Answered(taskId, result.outputs[0].digest);
    }

    function _unanswered(bytes32 taskId, uint8) internal override {
        emit Unanswered(taskId);
    }
}
