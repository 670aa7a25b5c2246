// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {AgreementTerms} from "./AgreementTerms.sol";
import {Agreement, Dataset} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {ANYONE, ConsentKind, EIP712_NAME, EIP712_VERSION} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title AgreementRegistry
/// @notice See IAgreementRegistry.
contract AgreementRegistry is IAgreementRegistry, EIP712 {
    /// @dev Of one account towards one agreement, active or not.
    struct Standing {
        uint8 consent;
        bool approved;
        bool suspended;
        bool revoked;
    }

    mapping(bytes32 agreementId => Record) private _records;
    mapping(bytes32 agreementId => mapping(address account => Standing)) private _standings;
    mapping(bytes32 agreementId => mapping(bytes32 measurementOrHost => bool)) public isDropped;
    mapping(bytes32 agreementId => mapping(address requester => uint64)) public usedBy;

    AgreementTerms private immutable _terms = new AgreementTerms();

    constructor() EIP712(EIP712_NAME, EIP712_VERSION) {}

    // Consent

    function activate(Agreement calldata a, bytes[] calldata signatures) external returns (bytes32 agreementId) {
        agreementId = agreementIdOf(a);
        if (_records[agreementId].status != Status.None) revert AgreementRegistry_AlreadyActivated(agreementId);
        _terms.check(a);

        address[] memory parties = _partiesOf(a);
        if (signatures.length != parties.length) {
            revert AgreementRegistry_WrongSignatureCount(signatures.length, parties.length);
        }
        for (uint256 i; i < parties.length; ++i) {
            _recordConsent(agreementId, parties[i], signatures[i]);
        }

        _records[agreementId] = Record({
            oracle: a.oracle,
            notBefore: uint40(a.notBefore),
            notAfter: uint40(a.notAfter),
            suspensions: 0,
            status: Status.Active,
            enclaveRegistry: a.enclaveRegistry,
            releaseDelay: a.keys.releaseDelay,
            quotaPerRequester: a.access.quotaPerRequester,
            quota: a.access.quota,
            used: 0,
            fee: uint128(a.price.fee),
            requesters: a.access.requesters,
            versionsHash: _versionsHash(a.data),
            settlementHash: Hashing.settlementHash(a.tee, a.price)
        });
        emit AgreementActivated(agreementId, a, signatures);
    }

    function approve(bytes32 agreementId) external {
        Standing storage standing = _standings[agreementId][msg.sender];
        if (standing.revoked) revert AgreementRegistry_AlreadyRevoked(msg.sender, agreementId);
        standing.approved = true;
        emit AgreementApproved(agreementId, msg.sender);
    }

    // Narrowing (R8)

    function suspend(bytes32 agreementId) external {
        (Record storage record, Standing storage standing) = _asParty(agreementId);
        if (standing.suspended) revert AgreementRegistry_AlreadySuspended(msg.sender, agreementId);
        standing.suspended = true;
        ++record.suspensions;
        emit AgreementSuspended(agreementId, msg.sender);
    }

    function resume(bytes32 agreementId) external {
        (Record storage record, Standing storage standing) = _asParty(agreementId);
        if (!standing.suspended) revert AgreementRegistry_NotSuspended(msg.sender, agreementId);
        standing.suspended = false;
        --record.suspensions;
        emit AgreementResumed(agreementId, msg.sender);
    }

    function revoke(bytes32 agreementId) external {
        Standing storage standing = _standings[agreementId][msg.sender];
        if (standing.revoked) revert AgreementRegistry_AlreadyRevoked(msg.sender, agreementId);
        if (_records[agreementId].status != Status.None) {
            (Record storage record,) = _asParty(agreementId);
            record.status = Status.Revoked;
        }
        standing.revoked = true;
        emit AgreementRevoked(agreementId, msg.sender);
    }

    function dropMeasurement(bytes32 agreementId, bytes32 measurement) external {
        _drop(agreementId, measurement);
        emit MeasurementDropped(agreementId, measurement, msg.sender);
    }

    function dropHost(bytes32 agreementId, bytes32 host) external {
        _drop(agreementId, host);
        emit HostDropped(agreementId, host, msg.sender);
    }

    // Quota (R9)

    function spend(bytes32 agreementId, address requester, bytes32 versionsHash, bytes32[] calldata proof)
        external
        returns (Terms memory)
    {
        Record storage record = _asOracle(agreementId);
        if (record.status != Status.Active || record.suspensions != 0) {
            revert AgreementRegistry_NotActive(agreementId, status(agreementId));
        }
        if (block.timestamp < record.notBefore || block.timestamp >= record.notAfter) {
            revert AgreementRegistry_OutsideWindow(block.timestamp, record.notBefore, record.notAfter);
        }
        if (versionsHash != record.versionsHash) {
            revert AgreementRegistry_WrongVersions(versionsHash, record.versionsHash);
        }
        _checkRequester(requester, record.requesters, proof);

        (uint64 quota, uint64 perRequester, uint64 used) = (record.quota, record.quotaPerRequester, record.used);
        if (used >= quota) revert AgreementRegistry_QuotaSpent(agreementId, quota);
        record.used = used + 1;
        // The whole quota for one requester is no limit of its own: save its slot.
        if (perRequester != quota) {
            uint64 usedByRequester = usedBy[agreementId][requester];
            if (usedByRequester >= perRequester) {
                revert AgreementRegistry_RequesterQuotaSpent(agreementId, requester, perRequester);
            }
            usedBy[agreementId][requester] = usedByRequester + 1;
        }
        return Terms({fee: record.fee, releaseDelay: record.releaseDelay});
    }

    function unspend(bytes32 agreementId, address requester) external {
        Record storage record = _asOracle(agreementId);
        --record.used;
        if (record.quotaPerRequester != record.quota) --usedBy[agreementId][requester];
    }

    // Views

    function agreementIdOf(Agreement calldata a) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(a));
    }

    function partiesOf(Agreement calldata a) external pure returns (address[] memory) {
        return _partiesOf(a);
    }

    function agreement(bytes32 agreementId) external view returns (Record memory) {
        return _records[agreementId];
    }

    function status(bytes32 agreementId) public view returns (Status) {
        Record storage record = _records[agreementId];
        return record.status == Status.Active && record.suspensions != 0 ? Status.Suspended : record.status;
    }

    function settlementOf(bytes32 agreementId) external view returns (address, bytes32) {
        Record storage record = _records[agreementId];
        return (record.enclaveRegistry, record.settlementHash);
    }

    function consentOf(bytes32 agreementId, address party) external view returns (uint8) {
        return _standings[agreementId][party].consent;
    }

    function isApproved(bytes32 agreementId, address account) external view returns (bool) {
        return _standings[agreementId][account].approved;
    }

    function isSuspendedBy(bytes32 agreementId, address party) external view returns (bool) {
        return _standings[agreementId][party].suspended;
    }

    function isRevokedBy(bytes32 agreementId, address account) external view returns (bool) {
        return _standings[agreementId][account].revoked;
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // Inside

    function _partiesOf(Agreement calldata a) private pure returns (address[] memory list) {
        list = new address[](a.data.length + 1);
        list[0] = a.fn.owner;
        uint256 count = 1;
        for (uint256 i; i < a.data.length; ++i) {
            address owner = a.data[i].owner;
            uint256 j;
            while (j < count && list[j] != owner) ++j;
            if (j == count) list[count++] = owner;
        }
        assembly ("memory-safe") {
            mstore(list, count)
        }
    }

    function _versionsHash(Dataset[] calldata data) private pure returns (bytes32) {
        bytes32[] memory ids = new bytes32[](data.length);
        for (uint256 i; i < data.length; ++i) {
            ids[i] = data[i].idOrStream;
        }
        return keccak256(abi.encodePacked(ids));
    }

    function _recordConsent(bytes32 agreementId, address party, bytes calldata signature) private {
        Standing storage standing = _standings[agreementId][party];
        if (standing.revoked) revert AgreementRegistry_RevokedBy(party, agreementId);
        uint8 kind;
        if (signature.length != 0) {
            kind = Signatures.kindOf(party, agreementId, signature);
            if (kind == ConsentKind.NONE) revert AgreementRegistry_BadSignature(party, agreementId);
        } else {
            if (party != msg.sender && !standing.approved) revert AgreementRegistry_NoConsent(party, agreementId);
            kind = ConsentKind.OWN_TRANSACTION;
        }
        standing.consent = kind;
        emit ConsentRecorded(agreementId, party, kind);
    }

    function _drop(bytes32 agreementId, bytes32 measurementOrHost) private {
        _asParty(agreementId);
        if (isDropped[agreementId][measurementOrHost]) {
            revert AgreementRegistry_AlreadyDropped(agreementId, measurementOrHost);
        }
        isDropped[agreementId][measurementOrHost] = true;
    }

    function _asParty(bytes32 agreementId) private view returns (Record storage record, Standing storage standing) {
        record = _records[agreementId];
        standing = _standings[agreementId][msg.sender];
        if (record.status != Status.Active) revert AgreementRegistry_NotActive(agreementId, record.status);
        if (standing.consent == ConsentKind.NONE) revert AgreementRegistry_NotAParty(msg.sender, agreementId);
    }

    function _asOracle(bytes32 agreementId) private view returns (Record storage record) {
        record = _records[agreementId];
        if (record.status == Status.None) revert AgreementRegistry_NotActive(agreementId, Status.None);
        if (msg.sender != record.oracle) revert AgreementRegistry_NotOracle(msg.sender, record.oracle);
    }

    function _checkRequester(address requester, bytes32 requesters, bytes32[] calldata proof) private pure {
        if (requesters == ANYONE) return;
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(requester))));
        if (!MerkleProof.verifyCalldata(proof, requesters, leaf)) {
            revert AgreementRegistry_RequesterNotAllowed(requester, requesters);
        }
    }
}
