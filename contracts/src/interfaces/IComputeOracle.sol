// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Batch, Enclaves, Price, Result, TaskRequest} from "../Types.sol";
import {IAgreementRegistry} from "./IAgreementRegistry.sol";
import {IEnclaveRegistry} from "./IEnclaveRegistry.sol";

/// @title ComputeOracle
/// @notice Takes requests under an agreement with their fee, and the signed results of attested enclaves. No owner, admin
/// key, pause or proxy (R21).
///
/// A task's id is the full EIP-712 digest of its TaskRequest in this contract's domain. One storage slot is all that is
/// kept of it, by agreement and id: whoever moves a task supplies what the move reads. The states are in docs/protocol.md,
/// too, and in Python; a test compares them.
///
/// | state     | move    | by                                                         | to        | money                        |
/// |-----------|---------|------------------------------------------------------------|-----------|------------------------------|
/// | None      | request | the requester, or anyone with its signature                | Requested | fee into escrow              |
/// | Requested | cancel  | the requester, not after block requestBlock + releaseDelay | Cancelled | fee to the requester         |
/// | Requested | fulfil  | anyone, not after the deadline, with outcome 1             | Fulfilled | shares to the agreement's pool, rest to the payee |
/// | Requested | fulfil  | anyone, not after the deadline, with outcome 2             | Failed    | `failedFee` to the payee, rest to the requester |
/// | Requested | expire  | anyone, after the deadline                                 | Expired   | `minFee` to the pool, rest to the requester |
///
/// Nothing leaves Fulfilled, Failed, Cancelled or Expired. Only a cancel gives quota and budget back (R9). Money moves to
/// balances here, which their holders withdraw (R20); what an agreement's pool holds anyone may `distribute` to `price.to`.
interface IComputeOracle {
    /// @notice What is kept of a task. Fields that its state does not have are zero.
    /// @param state 0 none, 1 requested, 2 fulfilled, 3 failed, 4 cancelled, 5 expired
    /// @param requestBlock, deadline (unix seconds), escrow (wei) while requested
    /// @param cancelUntil last block in which it can be cancelled while requested; zero if it never could be
    /// @param resultDigest once settled: the first 31 bytes of the Result's EIP-712 digest
    /// @param callback while requested: whether the requester will be called back; once settled: whether that failed, so that
    /// `retryCallback` can make it
    struct Task {
        uint8 state;
        uint40 requestBlock;
        uint40 deadline;
        uint40 cancelUntil;
        uint128 escrow;
        bytes31 resultDigest;
        bool callback;
    }

    /// @notice What settlement is checked by, as in the agreement.
    struct Settlement {
        address enclaveRegistry;
        Enclaves tee;
        Price price;
    }

    /// @notice What money is split by, as in the agreement; `teeHash` is hashStruct(tee).
    struct Pricing {
        address enclaveRegistry;
        bytes32 teeHash;
        Price price;
    }

    /// @notice A result as its enclave signed it.
    /// @param signature 65-byte low-s ECDSA by the enclave over the Result's digest in this contract's domain
    /// @param publicOutputs content of the outputs without recipients, in their order
    /// @param request the task's request where the task failed or calls back, else none
    struct Fulfilment {
        Result result;
        bytes signature;
        bytes[] publicOutputs;
        TaskRequest[] request;
    }

    /// @notice How an ERC-20 fee is approved by signature. Not read for the native coin.
    /// @param kind 0 an allowance that stands, 1 EIP-2612 permit, 2 EIP-3009 authorization, whose nonce is the task's id
    /// @param value of the permit; at least the fee
    /// @param validAfter, deadline unix seconds; `validAfter` of an authorization only
    struct Payment {
        uint8 kind;
        uint256 value;
        uint256 validAfter;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
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
    /// @notice As TaskFulfilled, settled by a batch (BatchFulfilled, in the same transaction, tells the rest).
    event TaskFulfilledInBatch(bytes32 indexed taskId, bytes32 resultDigest);
    /// @notice `count` tasks of one agreement succeeded. `signature` is the enclave's over the Batch's digest.
    event BatchFulfilled(
        bytes32 indexed agreementId,
        address indexed signer,
        address payee,
        bytes32 anchor,
        uint256 count,
        bytes signature
    );
    /// @notice What the outputs without recipients are, in their order.
    event PublicOutputs(bytes32 indexed taskId, bytes[] outputs);
    event TaskExpired(bytes32 indexed taskId, bytes32 indexed agreementId, address indexed requester);
    event CallbackFailed(bytes32 indexed taskId, address indexed callback);
    event CallbackDelivered(bytes32 indexed taskId, address indexed callback);
    /// @notice The agreement's pool went to its shares, but for what does not divide.
    event Distributed(bytes32 indexed agreementId, address indexed token, uint256 amount);
    event Withdrawn(address indexed account, address indexed token, address indexed to, uint256 amount);

    // Requests (R9, R14)
    /// @dev A field holds a value other than the only one that this version takes.
    error ComputeOracle_NotYetSupported(string field);
    error ComputeOracle_NotAContract(address value);
    error ComputeOracle_NotRequester(address caller, address requester);
    error ComputeOracle_BadRequestSignature(bytes32 taskId, address requester);
    /// @dev R21
    error ComputeOracle_BadPaymentKind(uint8 kind);
    /// @dev The token took a fee of its own, or did not pay: such a token cannot be held in escrow.
    error ComputeOracle_WrongReceived(address token, uint256 got, uint256 fee);
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
    /// @dev R17
    error ComputeOracle_WrongPublicOutput(uint256 index, bytes32 got, bytes32 expected);
    error ComputeOracle_WrongPublicOutputCount(uint256 got, uint256 expected);
    /// @dev A failed task needs its request, whose requester is paid back, and so does one that calls back.
    error ComputeOracle_RequestMissing(bytes32 taskId);
    error ComputeOracle_NothingToSettle();
    /// @dev A batch has no such tasks.
    error ComputeOracle_CallsBack(bytes32 taskId);
    error ComputeOracle_WrongBatch(uint256 tasks, uint256 results);
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
    error ComputeOracle_NoFailedCallback(bytes32 taskId);
    error ComputeOracle_CallbackFailedAgain(bytes32 taskId);
    error ComputeOracle_WrongResult(bytes31 got, bytes31 expected);
    error ComputeOracle_NothingToDistribute(bytes32 agreementId);
    error ComputeOracle_NothingToWithdraw(address account, address token);
    error ComputeOracle_WithdrawalFailed(address to, uint256 amount);

    /// @notice Asks for a computation and pays for it.
    /// @dev `msg.value` is exactly the agreement's fee, or zero where that is in a token, which has to allow this contract the
    /// fee. Quota and budget are spent here (R9). `asOf`, the only time that the enclave goes by (R14), lies within the hour
    /// before the block.
    /// WARNING: `params` and `uri` are public.
    /// @param admission what of the agreement the request is checked by
    function request(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission, string calldata uri)
        external
        payable
        returns (bytes32 taskId);

    /// @notice As `request`, brought by anyone with the requester's signature over the request's digest, which is the task's id.
    /// @dev A token's fee comes from the requester, the native coin from whoever brings it.
    /// WARNING: what comes back of the fee is the requester's, also where somebody else paid it.
    /// @param signature ECDSA, or ERC-1271 of deployed code; not read where the requester calls
    function requestFor(
        TaskRequest calldata r,
        IAgreementRegistry.Admission calldata admission,
        string calldata uri,
        bytes calldata signature,
        Payment calldata payment
    ) external payable returns (bytes32 taskId);

    /// @notice Takes a request back before any broker released a key for it (R9).
    function cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external;

    /// @notice Settles a task with the result that an agreed enclave signed.
    /// @dev The enclave's identity is checked as registered now (expiry, retirement) against the agreement's own terms.
    /// Suspension, revocation and dropped measurements or hosts are left to the brokers: if they counted here, a party could
    /// censor by outcome (R8).
    /// WARNING: simulate before sending: whoever settles second pays for a revert. Send enough gas: a transaction that could
    /// not give the callback its whole `callbackGas` reverts.
    /// @param enclave the signer's registered identity
    function fulfil(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Fulfilment calldata fulfilment
    ) external;

    /// @notice Settles many tasks of one agreement, which one enclave ran.
    /// @dev Tasks that somebody settled before, or that are late, are left out: nobody can spoil the rest by being first.
    /// @return settled how many were settled; never zero
    function fulfilMany(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Fulfilment[] calldata fulfilments
    ) external returns (uint256 settled);

    /// @notice Settles many tasks that succeeded, have only sealed outputs and call nobody back, by one signature.
    /// @dev As `fulfilMany`. The results themselves are with the workers; each must have the digest that is kept of it.
    /// @param signature by the enclave over the Batch's digest in this contract's domain
    function fulfilBatch(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Batch calldata batch,
        bytes calldata signature
    ) external returns (uint256 settled);

    /// @notice Ends a task that nobody settled in time.
    function expire(TaskRequest calldata r, Pricing calldata pricing) external;

    /// @notice Makes a callback that failed, with all the gas that the caller gives: at least the request's `callbackGas`. Reverts
    /// where it fails again.
    function retryCallback(TaskRequest calldata r, Result calldata result, bytes[] calldata publicOutputs) external;

    /// @notice Moves an agreement's pool to the balances of `price.to`.
    function distribute(bytes32 agreementId, Pricing calldata pricing) external returns (uint256 amount);

    /// @notice Pays the caller's whole balance in `token` out (R20).
    /// @param token zero for the native coin
    function withdraw(address token, address to) external returns (uint256 amount);

    function balanceOf(address token, address account) external view returns (uint256);

    /// @notice What waits for `distribute`.
    function poolOf(bytes32 agreementId) external view returns (uint256);

    function task(bytes32 agreementId, bytes32 taskId) external view returns (Task memory);

    /// @notice The EIP-712 digest of a batch, which the enclave signs.
    function batchDigestOf(Batch calldata batch) external view returns (bytes32);

    /// @notice The EIP-712 digest of a request, and the task's id.
    function taskIdOf(TaskRequest calldata r) external view returns (bytes32);

    /// @notice The EIP-712 digest of a result, which the enclave signs.
    function resultDigestOf(Result calldata result) external view returns (bytes32);

    function agreements() external view returns (IAgreementRegistry);

    function domainSeparator() external view returns (bytes32);
}
