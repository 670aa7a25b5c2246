// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Enclaves, Price, Result, TaskRequest} from "../Types.sol";
import {IAgreementRegistry} from "./IAgreementRegistry.sol";
import {IEnclaveRegistry} from "./IEnclaveRegistry.sol";

/// @title ComputeOracle
/// @notice Takes requests under an agreement with their fee, and the signed results of attested enclaves. No owner, admin
/// key, pause or proxy (R21).
///
/// A task's id is the full EIP-712 digest of its TaskRequest in this contract's domain. One storage slot is all that is
/// kept of it; who moves a task supplies the request again.
///
/// | state     | move    | by                                                        | to        | money                        |
/// |-----------|---------|-----------------------------------------------------------|-----------|------------------------------|
/// | None      | request | the requester                                             | Requested | fee into escrow              |
/// | Requested | cancel  | the requester, not after block requestBlock + releaseDelay | Cancelled | fee to the requester         |
/// | Requested | fulfil  | anyone, not after the deadline, with outcome 1            | Fulfilled | shares to `price.to`, rest to the payee |
/// | Requested | fulfil  | anyone, not after the deadline, with outcome 2            | Failed    | `failedFee` to the payee, rest to the requester |
/// | Requested | expire  | anyone, after the deadline                                | Expired   | fee to the requester         |
///
/// Nothing leaves Fulfilled, Failed, Cancelled or Expired. Only a cancel gives quota back (R9). Money moves to balances
/// here, which their holders withdraw (R20).
interface IComputeOracle {
    /// @notice What is kept of a task. Fields that its state does not have are zero.
    /// @param state 0 none, 1 requested, 2 fulfilled, 3 failed, 4 cancelled, 5 expired
    /// @param requestBlock, deadline (unix seconds), escrow (wei) while requested
    /// @param cancelUntil last block in which it can be cancelled while requested; zero if it never could be
    /// @param resultDigest once settled: the first 31 bytes of the Result's EIP-712 digest
    struct Task {
        uint8 state;
        uint40 requestBlock;
        uint40 deadline;
        uint40 cancelUntil;
        uint128 escrow;
        bytes31 resultDigest;
    }

    /// @param uri where sealed inputs lie, if any: a hint, which no digest covers
    event TaskRequested(
        bytes32 indexed taskId, bytes32 indexed agreementId, address indexed requester, TaskRequest request, string uri
    );
    event TaskCancelled(bytes32 indexed taskId, bytes32 indexed agreementId, address indexed requester);
    /// @notice The task succeeded or failed, as `result.outcome` says. `signature` is the enclave's over `resultDigest`.
    event TaskFulfilled(
        bytes32 indexed taskId,
        bytes32 indexed agreementId,
        address indexed signer,
        bytes32 resultDigest,
        Result result,
        bytes signature
    );
    event TaskExpired(bytes32 indexed taskId, bytes32 indexed agreementId, address indexed requester);
    event CallbackFailed(bytes32 indexed taskId, address indexed callback);
    event Credited(address indexed account, bytes32 indexed taskId, uint256 amount);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    // Requests (R9, R14)
    /// @dev A field holds a value other than the only one that this version takes.
    error ComputeOracle_NotYetSupported(string field);
    /// @dev R21
    error ComputeOracle_NotAContract(address value);
    error ComputeOracle_NotRequester(address caller, address requester);
    error ComputeOracle_TaskExists(bytes32 taskId, uint8 state);
    /// @dev R14
    error ComputeOracle_BadAsOf(uint64 asOf, uint256 time, uint256 maxAge);
    error ComputeOracle_BadDeadline(uint64 deadline, uint256 time, uint256 maxDuration);
    error ComputeOracle_FeeAboveMax(uint256 fee, uint256 maxFee);
    error ComputeOracle_WrongPayment(uint256 got, uint256 fee);
    error ComputeOracle_ParamsTooLong(uint256 got, uint256 max);
    error ComputeOracle_UriTooLong(uint256 got, uint256 max);
    /// @dev R20
    error ComputeOracle_BadCallback(address callback, address requester);
    /// @dev R20
    error ComputeOracle_BadCallbackGas(uint32 got, uint256 min, uint256 max);

    // Moves of a task (R9)
    error ComputeOracle_NotRequested(bytes32 taskId, uint8 state);
    error ComputeOracle_CancelClosed(uint256 blockNumber, uint40 cancelUntil);
    error ComputeOracle_DeadlinePassed(uint256 time, uint40 deadline);
    error ComputeOracle_DeadlineNotPassed(uint256 time, uint40 deadline);

    // Settlement: what was agreed (R7), of whom (R2 to R5)
    /// @dev R7
    error ComputeOracle_WrongSettlement(bytes32 got, bytes32 expected);
    /// @dev R7
    error ComputeOracle_WrongAgreement(bytes32 got, bytes32 expected);
    /// @dev R7
    error ComputeOracle_WrongTask(bytes32 got, bytes32 expected);
    /// @dev R19
    error ComputeOracle_BadOutcome(uint8 got);
    /// @dev R19
    error ComputeOracle_WrongOutputs(uint8 outcome, uint256 outputs);
    /// @dev R20
    error ComputeOracle_ZeroPayee();
    /// @dev R2
    error ComputeOracle_BadSignature(bytes32 resultDigest);
    /// @dev R2
    error ComputeOracle_UnknownEnclave(bytes32 anchor, address signer);
    /// @dev R2
    error ComputeOracle_EnclaveRetired(bytes32 anchor, address signer);
    /// @dev R8
    error ComputeOracle_EnclaveExpired(uint64 validUntil, uint256 time);
    /// @dev R4
    error ComputeOracle_AnchorNotAgreed(bytes32 anchor);
    /// @dev R3
    error ComputeOracle_MeasurementNotAgreed(bytes32 measurement);
    /// @dev R4
    error ComputeOracle_TcbStatusNotAgreed(uint8 status, uint32 statusMask);
    /// @dev R4
    error ComputeOracle_EvaluationTooLow(uint32 got, uint32 floor);
    /// @dev R2
    error ComputeOracle_EvidenceTooOld(uint256 age, uint64 maxAge);
    /// @dev R5
    error ComputeOracle_HostNotAgreed(address operator, bytes32 platform);
    /// @dev R20
    error ComputeOracle_NotEnoughGas(uint256 got, uint256 needed);

    // R20
    error ComputeOracle_NothingToWithdraw(address account);
    error ComputeOracle_WithdrawalFailed(address to, uint256 amount);

    /// @notice Asks for a computation and pays for it.
    /// @dev `msg.value` is exactly the agreement's fee. The quota is spent here (R9). `asOf`, the only time that the enclave
    /// goes by (R14), lies within the hour before the block.
    /// WARNING: `params` and `uri` are public.
    /// @param proof that the requester is one of the agreement's, see IAgreementRegistry
    function request(TaskRequest calldata r, bytes32[] calldata proof, string calldata uri)
        external
        payable
        returns (bytes32 taskId);

    /// @notice Takes a request back before any broker released a key for it (R9).
    function cancel(TaskRequest calldata r) external;

    /// @notice Settles a task with the result that an agreed enclave signed.
    /// @dev The enclave's identity is checked as registered now (expiry, retirement) against the agreement's own terms.
    /// Suspension, revocation and dropped measurements or hosts are left to the brokers: if they counted here, a party could
    /// censor by outcome (R8).
    /// WARNING: simulate before sending: whoever settles second pays for a revert. Send enough gas: a transaction that could
    /// not give the callback its whole `callbackGas` reverts.
    /// @param tee, price as in the agreement
    /// @param enclave the signer's registered identity
    /// @param signature 65-byte low-s ECDSA by the enclave over the Result's digest in this contract's domain
    function fulfil(
        TaskRequest calldata r,
        Enclaves calldata tee,
        Price calldata price,
        Result calldata result,
        IEnclaveRegistry.Identity calldata enclave,
        bytes calldata signature
    ) external;

    /// @notice Ends a task that nobody settled in time.
    function expire(TaskRequest calldata r) external;

    /// @notice Pays the caller's whole balance out (R20).
    function withdraw(address payable to) external returns (uint256 amount);

    function balanceOf(address account) external view returns (uint256);

    function task(bytes32 taskId) external view returns (Task memory);

    /// @notice The EIP-712 digest of a request, and the task's id.
    function taskIdOf(TaskRequest calldata r) external view returns (bytes32);

    /// @notice The EIP-712 digest of a result, which the enclave signs.
    function resultDigestOf(Result calldata result) external view returns (bytes32);

    function agreements() external view returns (IAgreementRegistry);

    function domainSeparator() external view returns (bytes32);
}
