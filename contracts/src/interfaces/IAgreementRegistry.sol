// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../Types.sol";

/// @title AgreementRegistry
/// @notice Keeps which data-use agreements are active, who consented and how, who narrowed them since, and what is left of
/// their quotas. No owner, admin key, pause or proxy (R21).
///
/// An agreement's id is its full EIP-712 digest in this contract's domain, so it commits to the chain, to this registry
/// and, by its fields, to the oracle and the enclave registry (R7). Its parties are the function owner and the data owners,
/// in the order `fn.owner, data[0].owner, ...` without repeats.
///
/// | status    | move     | by                            | to        |
/// |-----------|----------|-------------------------------|-----------|
/// | None      | activate | anyone with all the consents  | Active    |
/// | None      | revoke   | anyone, for itself            | None; an agreement with the caller as a party can never be activated |
/// | Active    | suspend  | a party                       | Suspended |
/// | Suspended | resume   | each party that suspended     | Active, once the last of them resumed |
/// | Active, Suspended | revoke | a party                 | Revoked   |
///
/// Nothing leaves Revoked. Nobody can widen an agreement alone (R8): dropped measurements and hosts never come back.
interface IAgreementRegistry {
    /// @dev `Suspended` is never stored: it is Active with a suspension that stands.
    enum Status {
        None,
        Active,
        Suspended,
        Revoked
    }

    /// @notice What activation keeps of an agreement. The rest is in the event, by the agreement's id.
    /// @param notBefore, notAfter unix seconds: requests are taken from `notBefore` until before `notAfter`
    /// @param suspensions how many parties have suspended it
    /// @param status None, Active or Revoked
    /// @param releaseDelay blocks in which a request can be cancelled (R9)
    /// @param fee in wei, per task
    /// @param requesters Merkle root of the allowed addresses, or ANYONE
    /// @param versionsHash keccak256 of the concatenated fixed dataset ids
    /// @param settlementHash keccak256(abi.encode(hashStruct(tee), hashStruct(price)))
    struct Record {
        address oracle;
        uint40 notBefore;
        uint40 notAfter;
        uint8 suspensions;
        Status status;
        address enclaveRegistry;
        uint32 releaseDelay;
        uint64 quotaPerRequester;
        uint64 quota;
        uint64 used;
        uint128 fee;
        bytes32 requesters;
        bytes32 versionsHash;
        bytes32 settlementHash;
    }

    /// @notice What a request costs and how long it can be cancelled.
    /// @param fee in wei
    /// @param releaseDelay in blocks; zero means no cancel
    struct Terms {
        uint128 fee;
        uint32 releaseDelay;
    }

    /// @notice `agreementId` is active; workers and indexers learn all its terms from here.
    event AgreementActivated(bytes32 indexed agreementId, Agreement agreement, bytes[] signatures);
    /// @notice `kind`: 1 ECDSA, 2 ERC-1271, 3 its own transaction.
    event ConsentRecorded(bytes32 indexed agreementId, address indexed party, uint8 kind);
    /// @notice `account` consents to `agreementId` by its own transaction, ahead of the activation.
    event AgreementApproved(bytes32 indexed agreementId, address indexed account);
    event AgreementSuspended(bytes32 indexed agreementId, address indexed party);
    event AgreementResumed(bytes32 indexed agreementId, address indexed party);
    event AgreementRevoked(bytes32 indexed agreementId, address indexed party);
    event MeasurementDropped(bytes32 indexed agreementId, bytes32 indexed measurement, address indexed party);
    event HostDropped(bytes32 indexed agreementId, bytes32 indexed host, address indexed party);

    // What an agreement must hold (R7, R21)
    /// @dev A field holds a value other than the only one that this version takes.
    error AgreementRegistry_NotYetSupported(string field);
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
    /// @dev R7b
    error AgreementRegistry_WrongVersions(bytes32 got, bytes32 expected);
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
    function activate(Agreement calldata agreement, bytes[] calldata signatures) external returns (bytes32 agreementId);

    /// @notice Consents to an agreement by the caller's own transaction, for activation to count.
    /// @dev Undone by `revoke` only.
    function approve(bytes32 agreementId) external;

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

    /// @notice Checks a request against the agreement and spends one task of its quota (R9). Only for the agreement's oracle.
    /// @param versionsHash keccak256 of the request's concatenated dataset versions
    /// @param proof of `requester` under the agreement's `requesters`; not read where that is ANYONE
    function spend(bytes32 agreementId, address requester, bytes32 versionsHash, bytes32[] calldata proof)
        external
        returns (Terms memory);

    /// @notice Gives one task of the quota back. Only for the agreement's oracle, on a cancel (R9).
    /// @dev Works whatever the agreement's status: who cancels must get the money back.
    function unspend(bytes32 agreementId, address requester) external;

    /// @notice The digest that parties sign, and the agreement's id.
    function agreementIdOf(Agreement calldata agreement) external view returns (bytes32);

    /// @notice The parties in the order of `activate`'s signatures.
    function partiesOf(Agreement calldata agreement) external pure returns (address[] memory);

    function agreement(bytes32 agreementId) external view returns (Record memory);

    function status(bytes32 agreementId) external view returns (Status);

    /// @notice What `fulfil` reads of an agreement; zero for one that was never active.
    function settlementOf(bytes32 agreementId) external view returns (address enclaveRegistry, bytes32 settlementHash);

    /// @notice How `party` consented: 0 not a party of an activated agreement, 1 ECDSA, 2 ERC-1271, 3 own transaction.
    function consentOf(bytes32 agreementId, address party) external view returns (uint8);

    function isApproved(bytes32 agreementId, address account) external view returns (bool);

    function isSuspendedBy(bytes32 agreementId, address party) external view returns (bool);

    function isRevokedBy(bytes32 agreementId, address account) external view returns (bool);

    /// @notice Whether a measurement, operator (as bytes32) or platform id was dropped.
    function isDropped(bytes32 agreementId, bytes32 dropped) external view returns (bool);

    /// @notice How many tasks `requester` has spent. Not counted where `quotaPerRequester == quota`: zero then.
    function usedBy(bytes32 agreementId, address requester) external view returns (uint64);

    function domainSeparator() external view returns (bytes32);
}
