// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Enrolment, VerifierStatement} from "./Types.sol";
import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "./interfaces/IEvidenceVerifier.sol";
import {
    ConsentKind,
    EIP712_NAME,
    EIP712_VERSION,
    EVIDENCE_TAG,
    EVIDENCE_VERSION,
    TcbStatus,
    TeeKind
} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title EnclaveRegistry
/// @notice See IEnclaveRegistry.
contract EnclaveRegistry is IEnclaveRegistry, EIP712 {
    uint256 private constant MAX_VERIFIERS = 4;
    uint256 private constant APPRAISAL_TOLERANCE = 10 minutes;
    uint256 private constant MAX_VALIDITY = 7 days;

    address[] private _verifiers;
    mapping(address verifier => bool) public isVerifier;
    mapping(bytes32 anchor => mapping(address signer => Identity)) private _identities;

    constructor(IEvidenceVerifier[] memory verifiers_) EIP712(EIP712_NAME, EIP712_VERSION) {
        if (verifiers_.length == 0 || verifiers_.length > MAX_VERIFIERS) {
            revert EnclaveRegistry_BadVerifierCount(verifiers_.length, 1, MAX_VERIFIERS);
        }
        for (uint256 i; i < verifiers_.length; ++i) {
            address verifier = address(verifiers_[i]);
            if (verifier.code.length == 0) revert EnclaveRegistry_NotAContract(verifier);
            if (isVerifier[verifier]) revert EnclaveRegistry_DuplicateVerifier(verifier);
            isVerifier[verifier] = true;
            _verifiers.push(verifier);
        }
    }

    function register(Registration calldata r) external returns (bytes32 anchor) {
        if (!isVerifier[r.verifier]) revert EnclaveRegistry_UnknownVerifier(r.verifier);
        if (r.sealingKey == 0) revert EnclaveRegistry_Zero("sealingKey");
        _checkBlock(r.blockNumber, r.blockHash);
        _checkPossession(r);
        _checkOperator(r);
        VerifierStatement memory s;
        (s, anchor) = IEvidenceVerifier(r.verifier).verify(r.evidence);
        _checkStatement(s, reportDataOf(r.signer, r.sealingKey, r.blockHash));

        Identity storage record = _identities[anchor][r.signer];
        if (record.evidenceAt != 0) _checkRenewal(record, anchor, r, s);
        Identity memory fresh = Identity({
            measurement: s.measurement,
            platform: s.platform,
            operator: r.operator,
            tee: s.tee,
            tcbStatus: s.tcbStatus,
            retired: false,
            evaluation: s.evaluation,
            evidenceAt: uint40(block.timestamp),
            validUntil: _min(s.validUntil, block.timestamp + MAX_VALIDITY),
            blockNumber: uint64(r.blockNumber),
            sealingKey: r.sealingKey,
            svnDigest: s.svnDigest
        });
        _identities[anchor][r.signer] = fresh;
        emit EnclaveRegistered(anchor, r.signer, s.measurement, fresh, r.verifier, s);
    }

    function retire(bytes32 anchor, address signer, bytes calldata signature) external {
        Identity storage record = _identities[anchor][signer];
        if (record.evidenceAt == 0) revert EnclaveRegistry_Unknown(anchor, signer);
        if (record.retired) revert EnclaveRegistry_Retired(anchor, signer);
        if (msg.sender != signer) {
            address got = Signatures.recover(retireDigest(signer), signature);
            if (got != signer) revert EnclaveRegistry_WrongRetirement(got, signer);
        }
        record.retired = true;
        emit EnclaveRetired(anchor, signer);
    }

    function identity(bytes32 anchor, address signer) external view returns (Identity memory) {
        return _identities[anchor][signer];
    }

    function isValid(bytes32 anchor, address signer) external view returns (bool) {
        Identity storage record = _identities[anchor][signer];
        // Where there is no record, `validUntil` is zero.
        return !record.retired && block.timestamp <= record.validUntil;
    }

    function reportDataOf(address signer, bytes32 sealingKey, bytes32 blockHash) public view returns (bytes32) {
        return
            sha256(
                abi.encode(EVIDENCE_TAG, EVIDENCE_VERSION, block.chainid, address(this), signer, sealingKey, blockHash)
            );
    }

    function enrolmentDigest(Enrolment calldata enrolment) external view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(enrolment));
    }

    function hostDigest(address signer) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hashHost(signer));
    }

    function retireDigest(address signer) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hashRetire(signer));
    }

    function verifiers() external view returns (address[] memory) {
        return _verifiers;
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @dev R2
    function _checkBlock(uint256 blockNumber, bytes32 blockHash) private view {
        bytes32 expected = blockhash(blockNumber);
        // Zero is what `blockhash` answers for blocks it no longer knows.
        if (blockHash != expected || expected == 0) {
            revert EnclaveRegistry_WrongBlockHash(blockNumber, blockHash, expected);
        }
    }

    /// @dev R2
    function _checkPossession(Registration calldata r) private view {
        Enrolment memory enrolment =
            Enrolment({signer: r.signer, sealingKey: r.sealingKey, blockHash: r.blockHash, operator: r.operator});
        address got = Signatures.recover(_hashTypedDataV4(Hashing.hash(enrolment)), r.proofOfPossession);
        if (got != r.signer || got == address(0)) revert EnclaveRegistry_WrongProofOfPossession(got, r.signer);
    }

    /// @dev R5
    function _checkOperator(Registration calldata r) private view {
        bool good = r.operator == address(0)
            ? r.operatorSignature.length == 0
            : Signatures.kindOf(r.operator, hostDigest(r.signer), r.operatorSignature) != ConsentKind.NONE;
        if (!good) revert EnclaveRegistry_BadOperatorSignature(r.operator, r.signer);
    }

    /// @dev R2, R4
    function _checkStatement(VerifierStatement memory s, bytes32 reportData) private view {
        if (s.reportData != reportData) revert EnclaveRegistry_WrongReportData(s.reportData, reportData);
        if (
            s.appraisedAt + APPRAISAL_TOLERANCE < block.timestamp
                || s.appraisedAt > block.timestamp + APPRAISAL_TOLERANCE
        ) {
            revert EnclaveRegistry_StaleAppraisal(s.appraisedAt, block.timestamp, APPRAISAL_TOLERANCE);
        }
        if (s.validUntil <= block.timestamp) revert EnclaveRegistry_EvidenceExpired(s.validUntil, block.timestamp);
        if (s.measurement == 0) revert EnclaveRegistry_Zero("measurement");
        if (s.tee < TeeKind.SGX || s.tee > TeeKind.NITRO) revert EnclaveRegistry_BadTeeKind(s.tee);
        // A shift by 32 or more leaves nothing.
        if (TcbStatus.ACCEPTABLE_MASK & (uint32(1) << s.tcbStatus) == 0) {
            revert EnclaveRegistry_BadTcbStatus(s.tcbStatus);
        }
    }

    /// @dev R2
    function _checkRenewal(Identity storage record, bytes32 anchor, Registration calldata r, VerifierStatement memory s)
        private
        view
    {
        if (record.retired) revert EnclaveRegistry_Retired(anchor, r.signer);
        if (r.sealingKey != record.sealingKey) {
            revert EnclaveRegistry_SealingKeyChanged(r.sealingKey, record.sealingKey);
        }
        if (s.measurement != record.measurement) {
            revert EnclaveRegistry_MeasurementChanged(s.measurement, record.measurement);
        }
        if (r.blockNumber <= record.blockNumber) {
            revert EnclaveRegistry_NotNewer(r.blockNumber, record.blockNumber);
        }
    }

    function _min(uint64 a, uint256 b) private pure returns (uint64) {
        return a < b ? a : uint64(b);
    }
}
