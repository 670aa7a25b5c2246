// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {AgreementTerms} from "./AgreementTerms.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {Agreement, Dataset} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IDatasetStreams} from "./interfaces/IDatasetStreams.sol";
import {IFunctionAudits} from "./interfaces/IFunctionAudits.sol";
import {ANYONE, ConsentKind, DatasetPolicy, EIP712_NAME, EIP712_VERSION} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title AgreementRegistry
/// @notice See IAgreementRegistry.
contract AgreementRegistry is IAgreementRegistry, IERC165, EIP712 {
    /// @dev Of one account towards one agreement, active or not. `approval` is a ConsentKind given ahead, by whomever; only an
    /// activation, which knows the parties, makes a consent of it.
    struct Standing {
        uint8 consent;
        uint8 approval;
        bool suspended;
        bool revoked;
    }

    mapping(bytes32 agreementId => Record) private _records;
    mapping(bytes32 agreementId => mapping(address account => Standing)) private _standings;
    mapping(bytes32 agreementId => mapping(bytes32 measurementOrHost => bool)) public isDropped;
    mapping(bytes32 agreementId => mapping(address requester => uint64)) public usedBy;
    mapping(address owner => mapping(bytes32 lineage => uint256)) public budgetSpent;

    IDatasetStreams public immutable streams;
    IFunctionAudits public immutable audits;
    AgreementTerms private immutable _terms = new AgreementTerms();

    constructor(IDatasetStreams streams_, IFunctionAudits audits_) EIP712(EIP712_NAME, EIP712_VERSION) {
        if (address(streams_).code.length == 0) revert AgreementRegistry_NotAContract("streams", address(streams_));
        if (address(audits_).code.length == 0) revert AgreementRegistry_NotAContract("audits", address(audits_));
        (streams, audits) = (streams_, audits_);
    }

    // Consent

    function activate(Agreement calldata a, bytes[] calldata signatures, Auditors calldata auditors)
        external
        returns (bytes32 agreementId)
    {
        agreementId = agreementIdOf(a);
        if (_records[agreementId].status != Status.None) revert AgreementRegistry_AlreadyActivated(agreementId);
        _terms.check(a);
        _terms.checkAuditors(a.fn.id, a.auditors, auditors, audits);

        address[] memory parties = _partiesOf(a);
        if (signatures.length != parties.length) {
            revert AgreementRegistry_WrongSignatureCount(signatures.length, parties.length);
        }
        for (uint256 i; i < parties.length; ++i) {
            _recordConsent(agreementId, parties[i], signatures[i]);
        }
        if (a.supersedes != 0) _supersede(a.supersedes, agreementId, parties);

        _records[agreementId] = Record({
            oracle: a.oracle,
            notBefore: uint40(a.notBefore),
            notAfter: uint40(a.notAfter),
            suspensions: 0,
            status: Status.Active,
            token: a.price.token,
            releaseDelay: a.keys.releaseDelay,
            quotaPerRequester: a.access.quotaPerRequester,
            quota: a.access.quota,
            used: 0,
            fee: uint128(a.price.fee),
            admissionHash: keccak256(abi.encode(a.access.requesters, _dataHash(a.data))),
            settlementHash: Hashing.settlementHash(a.enclaveRegistry, Hashing.hash(a.tee), a.price)
        });
        emit AgreementActivated(agreementId, a, signatures);
    }

    function approve(bytes32 agreementId) external {
        _approve(agreementId, msg.sender, ConsentKind.OWN_TRANSACTION, "");
    }

    function sign(bytes32 agreementId, address party, bytes calldata signature) external {
        _approve(agreementId, party, _kindOf(agreementId, party, signature), signature);
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

    function spend(
        bytes32 agreementId,
        address requester,
        bytes32[] calldata versions,
        uint256 amount,
        Admission calldata admission
    ) external returns (Terms memory) {
        Record storage record = _asOracle(agreementId);
        if (record.status != Status.Active || record.suspensions != 0) {
            revert AgreementRegistry_NotActive(agreementId, status(agreementId));
        }
        if (block.timestamp < record.notBefore || block.timestamp >= record.notAfter) {
            revert AgreementRegistry_OutsideWindow(block.timestamp, record.notBefore, record.notAfter);
        }
        _checkAdmission(record, versions, amount, admission);
        for (uint256 i; i < admission.data.length; ++i) {
            _checkVersion(i, admission.data[i], versions[i]);
            _spendBudget(agreementId, admission.data[i], amount);
        }

        (uint64 quota, uint64 used) = (record.quota, record.used);
        if (used >= quota) revert AgreementRegistry_QuotaSpent(agreementId, quota);
        record.used = used + 1;
        uint64 own = _limitOf(requester, record.quotaPerRequester, admission);
        // The whole quota for one requester is no limit of its own: save its slot.
        if (own < quota) {
            uint64 usedByRequester = usedBy[agreementId][requester];
            if (usedByRequester >= own) revert AgreementRegistry_RequesterQuotaSpent(agreementId, requester, own);
            usedBy[agreementId][requester] = usedByRequester + 1;
        }
        return Terms({fee: record.fee, releaseDelay: record.releaseDelay, token: record.token});
    }

    function unspend(
        bytes32 agreementId,
        address requester,
        bytes32[] calldata versions,
        uint256 amount,
        Admission calldata admission
    ) external returns (address) {
        Record storage record = _asOracle(agreementId);
        _checkAdmission(record, versions, amount, admission);
        --record.used;
        if (_limitOf(requester, record.quotaPerRequester, admission) < record.quota) --usedBy[agreementId][requester];
        for (uint256 i; i < admission.data.length; ++i) {
            DataTerm calldata term = admission.data[i];
            if (term.budget != 0) _moveBudget(agreementId, term, budgetSpent[term.owner][term.lineage] - amount);
        }
        return record.token;
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

    function settlementHashOf(bytes32 agreementId) external view returns (bytes32) {
        return _records[agreementId].settlementHash;
    }

    function consentOf(bytes32 agreementId, address party) external view returns (uint8) {
        return _standings[agreementId][party].consent;
    }

    function approvalOf(bytes32 agreementId, address account) external view returns (uint8) {
        return _standings[agreementId][account].approval;
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

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IAgreementRegistry).interfaceId || interfaceId == type(IERC165).interfaceId;
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

    /// @dev See Admission.
    function _dataHash(Dataset[] calldata data) private pure returns (bytes32) {
        bytes32[] memory ids = new bytes32[](data.length);
        DataTerm[] memory terms = new DataTerm[](data.length);
        bool plain = true;
        for (uint256 i; i < data.length; ++i) {
            Dataset calldata d = data[i];
            ids[i] = d.idOrStream;
            terms[i] = DataTerm(d.owner, d.idOrStream, d.lineage, d.policy, d.minVersion, d.budget);
            if (d.policy != DatasetPolicy.FIXED || d.budget != 0) plain = false;
        }
        return plain ? keccak256(abi.encodePacked(ids)) : keccak256(abi.encodePacked(abi.encode(terms), bytes1(0x01)));
    }

    /// @dev The requesters and data that were signed, and as many versions as data.
    function _checkAdmission(
        Record storage record,
        bytes32[] calldata versions,
        uint256 amount,
        Admission calldata admission
    ) private view {
        bool plain = admission.data.length == 0;
        bytes32 dataHash = plain
            ? keccak256(abi.encodePacked(versions))
            : keccak256(abi.encodePacked(abi.encode(admission.data), bytes1(0x01)));
        bytes32 got = keccak256(abi.encode(admission.requesters, dataHash));
        if (got != record.admissionHash) revert AgreementRegistry_WrongAdmission(got, record.admissionHash);
        if (!plain && versions.length != admission.data.length) {
            revert AgreementRegistry_WrongVersionCount(versions.length, admission.data.length);
        }
        bool budgeted;
        for (uint256 i; i < admission.data.length; ++i) {
            if (admission.data[i].budget != 0) budgeted = true;
        }
        // A request under a budget costs some of it, and without one there is nothing to spend.
        if (budgeted == (amount == 0)) revert AgreementRegistry_NothingToSpend(amount);
    }

    /// @dev R7b
    function _checkVersion(uint256 index, DataTerm calldata term, bytes32 named) private view {
        uint64 number;
        uint64 latest;
        bool taken;
        if (term.policy == DatasetPolicy.FIXED) {
            taken = named == term.idOrStream;
        } else {
            (number, latest) = streams.find(term.owner, term.idOrStream, named);
            if (term.policy == DatasetPolicy.PINNED) taken = number == term.minVersion;
            else if (term.policy == DatasetPolicy.AT_LEAST) taken = number >= term.minVersion;
            else taken = number == latest && number >= term.minVersion;
            taken = taken && number != 0;
        }
        if (!taken) revert AgreementRegistry_VersionNotTaken(index, named, number, latest);
    }

    /// @dev R9: the owner signed how far the ledger of its lineage may go under this agreement.
    function _spendBudget(bytes32 agreementId, DataTerm calldata term, uint256 amount) private {
        if (term.budget == 0) return;
        uint256 spent = budgetSpent[term.owner][term.lineage];
        if (amount > term.budget || spent > term.budget - amount) {
            revert AgreementRegistry_BudgetSpent(term.owner, term.lineage, spent, amount, term.budget);
        }
        _moveBudget(agreementId, term, spent + amount);
    }

    function _moveBudget(bytes32 agreementId, DataTerm calldata term, uint256 spent) private {
        budgetSpent[term.owner][term.lineage] = spent;
        emit BudgetMoved(agreementId, term.owner, term.lineage, spent);
    }

    /// @dev How many tasks one requester may ask for.
    function _limitOf(address requester, uint64 perRequester, Admission calldata admission)
        private
        pure
        returns (uint64)
    {
        if (admission.requesters == ANYONE) return perRequester;
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(requester, admission.quota))));
        if (!MerkleProof.verifyCalldata(admission.proof, admission.requesters, leaf)) {
            revert AgreementRegistry_RequesterNotAllowed(requester, admission.requesters);
        }
        return admission.quota < perRequester ? admission.quota : perRequester;
    }

    function _approve(bytes32 agreementId, address account, uint8 kind, bytes memory signature) private {
        Standing storage standing = _standings[agreementId][account];
        if (standing.revoked) revert AgreementRegistry_AlreadyRevoked(account, agreementId);
        standing.approval = kind;
        emit AgreementApproved(agreementId, account, kind, signature);
    }

    function _kindOf(bytes32 agreementId, address party, bytes calldata signature) private view returns (uint8 kind) {
        kind = Signatures.kindOf(party, agreementId, signature);
        if (kind == ConsentKind.NONE) revert AgreementRegistry_BadSignature(party, agreementId);
    }

    /// @dev Whoever could revoke the predecessor may end it so. One that ended already is no obstacle: else whoever revokes it
    /// first could keep its successor from ever becoming active.
    function _supersede(bytes32 predecessor, bytes32 agreementId, address[] memory parties) private {
        Record storage record = _records[predecessor];
        if (record.status == Status.None) revert AgreementRegistry_UnknownPredecessor(predecessor);
        uint256 i;
        while (i < parties.length && _standings[predecessor][parties[i]].consent == ConsentKind.NONE) ++i;
        if (i == parties.length) revert AgreementRegistry_NoPartyOfPredecessor(predecessor);
        if (record.status == Status.Active) {
            record.status = Status.Superseded;
            emit AgreementSuperseded(predecessor, agreementId);
        }
    }

    function _recordConsent(bytes32 agreementId, address party, bytes calldata signature) private {
        Standing storage standing = _standings[agreementId][party];
        if (standing.revoked) revert AgreementRegistry_RevokedBy(party, agreementId);
        uint8 kind;
        if (signature.length != 0) {
            kind = _kindOf(agreementId, party, signature);
        } else {
            kind = party == msg.sender ? ConsentKind.OWN_TRANSACTION : standing.approval;
            if (kind == ConsentKind.NONE) revert AgreementRegistry_NoConsent(party, agreementId);
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
}
