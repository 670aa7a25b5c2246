// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Enrolment} from "./Types.sol";
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
import {TcbRank} from "./libraries/TcbRank.sol";

/// @title EnclaveRegistry
/// @notice See IEnclaveRegistry.
contract EnclaveRegistry is IEnclaveRegistry, EIP712 {
    struct Record {
        bytes32 identity;
        Standing standing;
    }

    uint256 private constant MAX_VERIFIERS = 4;
    uint256 private constant MAX_VALIDITY = 7 days;

    address[] private _verifiers;
    mapping(address verifier => bool) public isVerifier;
    mapping(bytes32 anchor => mapping(address signer => Record)) private _records;

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
        IEvidenceVerifier.Claims memory claims = IEvidenceVerifier(r.verifier).verify(r.evidence);
        _checkClaims(claims, reportDataOf(r.signer, r.sealingKey, r.blockHash));

        anchor = claims.anchor;
        Identity memory identity = Identity({
            measurement: claims.measurement,
            platform: claims.platform,
            sealingKey: r.sealingKey,
            svnDigest: claims.svnDigest,
            verifier: claims.verifier,
            operator: r.operator,
            tee: claims.tee
        });
        Standing memory standing = _standing(claims.judgement, r.blockNumber);
        Record storage registered = _records[anchor][r.signer];
        bytes32 digest = _digest(identity);
        if (registered.identity == 0) registered.identity = digest;
        else _checkRenewal(registered, anchor, r.signer, digest, standing);
        _carryGrace(registered.standing, standing);
        registered.standing = standing;
        emit EnclaveRegistered(anchor, r.signer, identity.measurement, identity, standing, r.verifier);
    }

    function challenge(
        bytes32 anchor,
        address signer,
        Identity calldata identity,
        address verifier,
        bytes calldata proof
    ) external {
        if (!isVerifier[verifier]) revert EnclaveRegistry_UnknownVerifier(verifier);
        Record storage registered = _records[anchor][signer];
        _checkIdentity(registered, anchor, signer, _digest(identity));
        Standing memory standing = registered.standing;
        if (standing.retired) revert EnclaveRegistry_Retired(anchor, signer);
        (bytes32 gotAnchor, bytes32 gotSvns, IEvidenceVerifier.Judgement memory judgement) =
            IEvidenceVerifier(verifier).judge(proof);
        if (gotAnchor != anchor || gotSvns != identity.svnDigest) {
            revert EnclaveRegistry_WrongChallenge(gotAnchor, gotSvns, anchor, identity.svnDigest);
        }
        // R4: older collateral knows less, and a challenge can only lower.
        if (judgement.evaluation < standing.evaluation) {
            revert EnclaveRegistry_OlderEvaluation(judgement.evaluation, standing.evaluation);
        }
        if (judgement.tcbStatus == 0 || judgement.tcbStatus > TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED) {
            revert EnclaveRegistry_BadTcbStatus(judgement.tcbStatus);
        }
        if (TcbRank.rank(judgement.tcbStatus) <= TcbRank.rank(standing.tcbStatus)) {
            revert EnclaveRegistry_NotLower(judgement.tcbStatus, standing.tcbStatus);
        }
        standing.tcbStatus = judgement.tcbStatus;
        standing.evaluation = judgement.evaluation;
        (standing.earlierStatus, standing.earlierEvaluation, standing.changedAt) = (0, 0, judgement.changedAt);
        // What is revoked was never fine: no grace.
        if (judgement.tcbStatus != TcbStatus.REVOKED) _carryGrace(registered.standing, standing);
        registered.standing = standing;
        emit EnclaveChallenged(anchor, signer, standing, msg.sender);
    }

    function retire(bytes32 anchor, address signer, bytes calldata signature) external {
        Record storage registered = _records[anchor][signer];
        if (registered.identity == 0) revert EnclaveRegistry_Unknown(anchor, signer);
        if (registered.standing.retired) revert EnclaveRegistry_Retired(anchor, signer);
        if (msg.sender != signer) {
            address got = Signatures.recover(retireDigest(signer), signature);
            if (got != signer) revert EnclaveRegistry_WrongRetirement(got, signer);
        }
        registered.standing.retired = true;
        emit EnclaveRetired(anchor, signer);
    }

    function record(bytes32 anchor, address signer) external view returns (bytes32, Standing memory) {
        Record storage registered = _records[anchor][signer];
        return (registered.identity, registered.standing);
    }

    function standingOf(bytes32 anchor, address signer, Identity calldata identity)
        external
        view
        returns (Standing memory standing)
    {
        Record storage registered = _records[anchor][signer];
        if (registered.identity == 0) return standing;
        _checkIdentity(registered, anchor, signer, _digest(identity));
        return registered.standing;
    }

    function isValid(bytes32 anchor, address signer) external view returns (bool) {
        Standing memory standing = _records[anchor][signer].standing;
        // Where there is no record, `validUntil` is zero.
        return !standing.retired && standing.tcbStatus != TcbStatus.REVOKED && block.timestamp <= standing.validUntil;
    }

    function digestOf(Identity calldata identity) external pure returns (bytes32) {
        return _digest(identity);
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
    function _checkClaims(IEvidenceVerifier.Claims memory claims, bytes32 reportData) private view {
        if (claims.reportData != reportData) revert EnclaveRegistry_WrongReportData(claims.reportData, reportData);
        uint40 validUntil = claims.judgement.validUntil;
        if (validUntil <= block.timestamp) revert EnclaveRegistry_EvidenceExpired(validUntil, block.timestamp);
        if (claims.measurement == 0) revert EnclaveRegistry_Zero("measurement");
        if (claims.anchor == 0) revert EnclaveRegistry_Zero("anchor");
        if (claims.tee < TeeKind.SGX || claims.tee > TeeKind.NITRO) revert EnclaveRegistry_BadTeeKind(claims.tee);
        // A shift by 32 or more leaves nothing.
        if (TcbStatus.ACCEPTABLE_MASK & (uint32(1) << claims.judgement.tcbStatus) == 0) {
            revert EnclaveRegistry_BadTcbStatus(claims.judgement.tcbStatus);
        }
    }

    /// @dev R2, R4
    function _checkRenewal(
        Record storage registered,
        bytes32 anchor,
        address signer,
        bytes32 digest,
        Standing memory fresh
    ) private view {
        Standing memory standing = registered.standing;
        if (standing.retired) revert EnclaveRegistry_Retired(anchor, signer);
        if (digest != registered.identity) revert EnclaveRegistry_IdentityChanged(digest, registered.identity);
        if (fresh.blockNumber <= standing.blockNumber) {
            revert EnclaveRegistry_NotNewer(fresh.blockNumber, standing.blockNumber);
        }
        if (fresh.evaluation < standing.evaluation) {
            revert EnclaveRegistry_OlderEvaluation(fresh.evaluation, standing.evaluation);
        }
    }

    /// @dev R4: a new evaluation does not strand a platform that stood well under the one before, whoever sends the news and
    /// leaves out what it was: the record itself knows. Kept is the last evaluation under which it stood best.
    function _carryGrace(Standing memory old, Standing memory fresh) private pure {
        (uint8 status, uint32 evaluation, uint40 changedAt) = (old.earlierStatus, old.earlierEvaluation, old.changedAt);
        if (
            fresh.evaluation > old.evaluation && old.tcbStatus != TcbStatus.REVOKED
                && (status == 0 || TcbRank.rank(old.tcbStatus) <= TcbRank.rank(status))
        ) {
            (status, evaluation, changedAt) = (old.tcbStatus, old.evaluation, fresh.changedAt);
        }
        if (status == 0) return;
        // What the evidence itself shows, unless that is worse.
        if (fresh.earlierStatus != 0 && TcbRank.rank(fresh.earlierStatus) <= TcbRank.rank(status)) return;
        (fresh.earlierStatus, fresh.earlierEvaluation, fresh.changedAt) = (status, evaluation, changedAt);
    }

    /// @dev R2
    function _checkIdentity(Record storage registered, bytes32 anchor, address signer, bytes32 digest) private view {
        bytes32 expected = registered.identity;
        if (expected == 0) revert EnclaveRegistry_Unknown(anchor, signer);
        if (digest != expected) revert EnclaveRegistry_WrongIdentity(digest, expected);
    }

    function _standing(IEvidenceVerifier.Judgement memory j, uint256 blockNumber)
        private
        view
        returns (Standing memory)
    {
        uint256 latest = block.timestamp + MAX_VALIDITY;
        return Standing({
            tcbStatus: j.tcbStatus,
            retired: false,
            earlierStatus: j.earlierStatus,
            evaluation: j.evaluation,
            earlierEvaluation: j.earlierEvaluation,
            changedAt: j.changedAt,
            evidenceAt: uint40(block.timestamp),
            validUntil: j.validUntil < latest ? j.validUntil : uint40(latest),
            blockNumber: uint40(blockNumber)
        });
    }

    function _digest(Identity memory identity) private pure returns (bytes32) {
        return keccak256(abi.encode(identity));
    }
}
