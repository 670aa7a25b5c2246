// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../Types.sol";
import {IDatasetStreams} from "./IDatasetStreams.sol";
import {IFunctionAudits} from "./IFunctionAudits.sol";

/// @title AgreementRegistry
/// @notice Keeps which data-use agreements are active, who consented and how, who narrowed them since, and what is left of
/// their quotas. No owner, admin key, pause or proxy (R21).
///
/// An agreement's id is its full EIP-712 digest in this contract's domain, so it commits to the chain, to this registry
/// and, by its fields, to the oracle and the enclave registry (R7). Its parties are the function owner and the data owners,
/// in the order `fn.owner, data[0].owner, ...` without repeats.
///
/// | status            | move      | by                                                                             | to         |
/// |-------------------|-----------|--------------------------------------------------------------------------------|------------|
/// | None              | activate  | anyone with all the consents                                                   | Active     |
/// | None              | revoke    | anyone, for itself: with the caller as a party it can never be activated       | None       |
/// | Active, Suspended | suspend   | a party that did not                                                           | Suspended  |
/// | Suspended         | resume    | a party that suspended; the last of them makes it Active                       | Active, Suspended |
/// | Active, Suspended | revoke    | a party                                                                        | Revoked    |
/// | Active, Suspended | supersede | whoever activates another that names it, a party of this one among the other's | Superseded |
///
/// Nothing leaves Revoked or Superseded. Nobody can widen an agreement alone (R8): dropped measurements and hosts never come
/// back.
interface IAgreementRegistry {
    /// @dev `Suspended` is never stored: it is Active with a suspension that stands.
    enum Status {
        None,
        Active,
        Suspended,
        Revoked,
        Superseded
    }

    /// @notice What activation keeps of an agreement. The rest is in the event, by the agreement's id.
    /// @param notBefore, notAfter unix seconds: requests are taken from `notBefore` until before `notAfter`
    /// @param suspensions how many parties have suspended it
    /// @param status None, Active, Revoked or Superseded
    /// @param token what the fee is paid in; zero is the native coin
    /// @param releaseDelay blocks in which a request can be cancelled (R9)
    /// @param fee in the token's smallest unit, per task
    /// @param admissionHash keccak256(abi.encode(requesters, dataHash)), see Admission
    /// @param settlementHash keccak256(abi.encode(enclaveRegistry, hashStruct(tee), hashStruct(price)))
    struct Record {
        address oracle;
        uint40 notBefore;
        uint40 notAfter;
        uint8 suspensions;
        Status status;
        address token;
        uint32 releaseDelay;
        uint64 quotaPerRequester;
        uint64 quota;
        uint64 used;
        uint128 fee;
        bytes32 admissionHash;
        bytes32 settlementHash;
    }

    /// @notice What a request costs and how long it can be cancelled.
    /// @param fee in the token's smallest unit
    /// @param releaseDelay in blocks; zero means no cancel
    struct Terms {
        uint128 fee;
        uint32 releaseDelay;
        address token;
    }

    /// @notice What of a Dataset counts at a request.
    struct DataTerm {
        address owner;
        bytes32 idOrStream;
        bytes32 lineage;
        uint8 policy;
        uint64 minVersion;
        uint256 budget;
    }

    /// @notice The parts of an agreement that a request is checked by; activation keeps only their digest.
    /// @dev `dataHash` is keccak256 of the concatenated dataset ids where every dataset is fixed and none has a budget, else
    /// keccak256(abi.encode(data) || 0x01): the odd length keeps the two apart.
    /// @param requesters as in the agreement
    /// @param quota, proof the requester's leaf under `requesters` (OpenZeppelin's StandardMerkleTree of (address, uint64)); not
    /// read where that is ANYONE
    /// @param data the terms in the agreement's order; empty where every dataset is fixed and none has a budget
    struct Admission {
        bytes32 requesters;
        uint64 quota;
        bytes32[] proof;
        DataTerm[] data;
    }

    /// @notice Who has to have approved the function: `Agreement.auditors` is keccak256(abi.encode(accounts, threshold)), or zero
    /// where nobody has to.
    struct Auditors {
        address[] accounts;
        uint8 threshold;
    }

    /// @notice `agreementId` is active; workers and indexers learn all its terms from here.
    event AgreementActivated(bytes32 indexed agreementId, Agreement agreement, bytes[] signatures);
    /// @notice `kind`: 1 ECDSA, 2 ERC-1271, 3 its own transaction.
    event ConsentRecorded(bytes32 indexed agreementId, address indexed party, uint8 kind);
    /// @notice `account` consents to `agreementId` ahead of the activation; `kind` as in ConsentRecorded.
    /// `signature` is empty for its own transaction; else what brokers check again (R13), whoever activates without it.
    event AgreementApproved(bytes32 indexed agreementId, address indexed account, uint8 kind, bytes signature);
    event AgreementSuperseded(bytes32 indexed agreementId, bytes32 indexed by);
    /// @notice `account`'s data of `lineage` has `spent` of its budget behind it, over all agreements (R9).
    event BudgetMoved(bytes32 indexed agreementId, address indexed owner, bytes32 indexed lineage, uint256 spent);
    event AgreementSuspended(bytes32 indexed agreementId, address indexed party);
    event AgreementResumed(bytes32 indexed agreementId, address indexed party);
    event AgreementRevoked(bytes32 indexed agreementId, address indexed party);
    event MeasurementDropped(bytes32 indexed agreementId, bytes32 indexed measurement, address indexed party);
    event HostDropped(bytes32 indexed agreementId, bytes32 indexed host, address indexed party);

    // What an agreement must hold (R7, R21)
    /// @dev A field holds a value that does not go with another one.
    error AgreementRegistry_Conflict(string field);
    error AgreementRegistry_Zero(string field);
    error AgreementRegistry_NotAContract(string field, address value);
    error AgreementRegistry_BadCount(string field, uint256 got, uint256 min, uint256 max);
    error AgreementRegistry_OutOfRange(string field, uint256 got, uint256 min, uint256 max);
    error AgreementRegistry_Duplicate(string field, uint256 index);
    error AgreementRegistry_BadWindow(uint64 notBefore, uint64 notAfter, uint256 time);
    error AgreementRegistry_ActivationClosed(uint64 activateBefore, uint256 time);
    error AgreementRegistry_BadStatusMask(uint32 got, uint32 acceptable);
    /// @dev R5
    error AgreementRegistry_BadHosts(bool anyHost, uint256 operators, uint256 platforms);
    error AgreementRegistry_SharesExceedFee(uint256 bps);

    // Consent (R7)
    error AgreementRegistry_AlreadyActivated(bytes32 agreementId);
    error AgreementRegistry_WrongSignatureCount(uint256 got, uint256 parties);
    error AgreementRegistry_BadSignature(address party, bytes32 agreementId);
    error AgreementRegistry_NoConsent(address party, bytes32 agreementId);
    error AgreementRegistry_RevokedBy(address party, bytes32 agreementId);
    error AgreementRegistry_WrongAuditors(bytes32 got, bytes32 expected);
    error AgreementRegistry_NotAudited(bytes32 functionId, uint256 approvals, uint8 threshold);
    error AgreementRegistry_UnknownPredecessor(bytes32 agreementId);
    /// @dev R8: only who could revoke it may end it.
    error AgreementRegistry_NoPartyOfPredecessor(bytes32 agreementId);

    // Narrowing (R8)
    error AgreementRegistry_NotActive(bytes32 agreementId, Status status);
    error AgreementRegistry_NotAParty(address caller, bytes32 agreementId);
    error AgreementRegistry_AlreadySuspended(address party, bytes32 agreementId);
    error AgreementRegistry_NotSuspended(address party, bytes32 agreementId);
    error AgreementRegistry_AlreadyRevoked(address party, bytes32 agreementId);
    error AgreementRegistry_AlreadyDropped(bytes32 agreementId, bytes32 dropped);

    // Spending (R9)
    error AgreementRegistry_NotOracle(address caller, address oracle);
    /// @dev R7
    error AgreementRegistry_OutsideWindow(uint256 time, uint40 notBefore, uint40 notAfter);
    /// @dev R7, R7b: other requesters or data than agreed, or where all datasets are fixed, other versions.
    error AgreementRegistry_WrongAdmission(bytes32 got, bytes32 expected);
    error AgreementRegistry_WrongVersionCount(uint256 got, uint256 expected);
    /// @dev R7b. `number` is zero where the stream does not have it, or its owner withdrew it.
    error AgreementRegistry_VersionNotTaken(uint256 index, bytes32 version, uint64 number, uint64 latest);
    error AgreementRegistry_NothingToSpend(uint256 amount);
    error AgreementRegistry_BudgetSpent(address owner, bytes32 lineage, uint256 spent, uint256 amount, uint256 budget);
    /// @dev R7
    error AgreementRegistry_RequesterNotAllowed(address requester, bytes32 requesters);
    error AgreementRegistry_QuotaSpent(bytes32 agreementId, uint64 quota);
    error AgreementRegistry_RequesterQuotaSpent(bytes32 agreementId, address requester, uint64 quota);

    /// @notice Makes an agreement active: every party consented to the same digest (R7).
    /// @dev An empty signature stands for a party that approved before or is the caller. Others are tried as 65-byte low-s
    /// ECDSA, then as ERC-1271 where the party has code; which it was is recorded, and is what brokers later read.
    /// WARNING: the addresses in `agreement.oracle` and `agreement.enclaveRegistry` are only checked to have code. What
    /// code that is, the parties judge before they sign.
    /// @param signatures one per party, in the parties' order
    /// @param auditors as `agreement.auditors` commits to; empty where that is zero
    function activate(Agreement calldata agreement, bytes[] calldata signatures, Auditors calldata auditors)
        external
        returns (bytes32 agreementId);

    /// @notice Consents to an agreement by the caller's own transaction, for activation to count.
    /// @dev Undone by `revoke` only.
    function approve(bytes32 agreementId) external;

    /// @notice Keeps that `party` signed an agreement, for activation to count. Anyone may bring it.
    /// @dev As `activate` takes signatures. Undone by the party's `revoke` only.
    function sign(bytes32 agreementId, address party, bytes calldata signature) external;

    /// @notice Stops new requests and key releases until the same party resumes (R8).
    function suspend(bytes32 agreementId) external;

    /// @notice Takes the caller's own suspension back.
    function resume(bytes32 agreementId) external;

    /// @notice Ends an agreement for ever, or keeps a draft from ever becoming active with the caller as a party (R7, R8).
    /// @dev WARNING: tasks whose keys were released before still settle: no one can censor by outcome.
    function revoke(bytes32 agreementId) external;

    /// @notice Brokers no longer release to enclaves of this measurement under this agreement (R8).
    function dropMeasurement(bytes32 agreementId, bytes32 measurement) external;

    /// @notice Brokers no longer release to this host under this agreement (R8).
    /// @param host an operator as bytes32(uint256(uint160(operator))), or a platform id
    function dropHost(bytes32 agreementId, bytes32 host) external;

    /// @notice Checks a request against the agreement and spends one task of its quota, and of each budgeted dataset's budget
    /// `amount` (R9). Only for the agreement's oracle.
    /// @param versions the dataset versions that the request names, in the agreement's order
    function spend(
        bytes32 agreementId,
        address requester,
        bytes32[] calldata versions,
        uint256 amount,
        Admission calldata admission
    ) external returns (Terms memory);

    /// @notice Gives back what `spend` took. Only for the agreement's oracle, on a cancel (R9).
    /// @dev Works whatever the agreement's status: who cancels must get the money back.
    /// @return token what the fee was paid in
    function unspend(
        bytes32 agreementId,
        address requester,
        bytes32[] calldata versions,
        uint256 amount,
        Admission calldata admission
    ) external returns (address token);

    /// @notice The digest that parties sign, and the agreement's id.
    function agreementIdOf(Agreement calldata agreement) external view returns (bytes32);

    /// @notice The parties in the order of `activate`'s signatures.
    function partiesOf(Agreement calldata agreement) external pure returns (address[] memory);

    function agreement(bytes32 agreementId) external view returns (Record memory);

    function status(bytes32 agreementId) external view returns (Status);

    /// @notice What settlement is checked by; zero for an agreement that was never active.
    function settlementHashOf(bytes32 agreementId) external view returns (bytes32);

    /// @notice Spent of the budget of `owner`'s data of one lineage, over all agreements and versions (R9).
    function budgetSpent(address owner, bytes32 lineage) external view returns (uint256);

    /// @notice How `party` consented: 0 not a party of an activated agreement, 1 ECDSA, 2 ERC-1271, 3 own transaction.
    function consentOf(bytes32 agreementId, address party) external view returns (uint8);

    /// @notice How `account` consented ahead of the activation, as in `consentOf`.
    function approvalOf(bytes32 agreementId, address account) external view returns (uint8);

    function isSuspendedBy(bytes32 agreementId, address party) external view returns (bool);

    function isRevokedBy(bytes32 agreementId, address account) external view returns (bool);

    /// @notice Whether a measurement, operator (as bytes32) or platform id was dropped.
    function isDropped(bytes32 agreementId, bytes32 dropped) external view returns (bool);

    /// @notice How many tasks `requester` has spent. Not counted where its own limit is not below `quota`: zero then.
    function usedBy(bytes32 agreementId, address requester) external view returns (uint64);

    function streams() external view returns (IDatasetStreams);

    function audits() external view returns (IFunctionAudits);

    function domainSeparator() external view returns (bytes32);
}
