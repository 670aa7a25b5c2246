// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {VerifierStatement} from "./Types.sol";
import {IAttestedVerifier} from "./interfaces/IAttestedVerifier.sol";
import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "./interfaces/IEvidenceVerifier.sol";
import {ATTESTED_ANCHOR_TAG, TcbStatus, TeeKind} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {TcbRank} from "./libraries/TcbRank.sol";

/// @title AttestedVerifier
/// @notice See IAttestedVerifier.
contract AttestedVerifier is IAttestedVerifier {
    uint256 private constant APPRAISAL_TOLERANCE = 10 minutes;

    /// @inheritdoc IEvidenceVerifier
    function verify(bytes calldata evidence) external view returns (Claims memory claims) {
        Attested memory attested = abi.decode(evidence, (Attested));
        VerifierStatement memory s = attested.statement;
        (claims.judgement,) = _judge(attested);
        claims.anchor = anchorOf(attested.anchor, attested.identity.measurement, s.root);
        claims.tee = s.tee;
        claims.measurement = s.measurement;
        claims.reportData = s.reportData;
        claims.platform = s.platform;
        claims.svnDigest = s.svnDigest;
        claims.verifier = attested.identity.measurement;
    }

    /// @inheritdoc IEvidenceVerifier
    function judge(bytes calldata proof)
        external
        view
        returns (bytes32 anchor, bytes32 svnDigest, Judgement memory judgement)
    {
        Attested memory attested = abi.decode(proof, (Attested));
        uint8 own;
        (judgement, own) = _judge(attested);
        // A verifier whose platform is out of date may not lower others: it would be a lever for whoever owns a broken one.
        if (TcbRank.rank(own) > TcbRank.rank(TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED)) {
            revert AttestedVerifier_VerifierOutOfDate(own);
        }
        judgement.tcbStatus = attested.statement.tcbStatus;
        anchor = anchorOf(attested.anchor, attested.identity.measurement, attested.statement.root);
        svnDigest = attested.statement.svnDigest;
    }

    function anchorOf(bytes32 verifierAnchor, bytes32 verifierMeasurement, bytes32 root) public pure returns (bytes32) {
        return sha256(abi.encode(ATTESTED_ANCHOR_TAG, verifierAnchor, verifierMeasurement, root));
    }

    /// @dev R4: the lowest assurance along the path; `own` is the verifier's own status.
    function _judge(Attested memory attested) private view returns (Judgement memory judgement, uint8 own) {
        VerifierStatement memory s = attested.statement;
        IEnclaveRegistry.Standing memory standing = _verifier(attested);
        if (s.tee != TeeKind.SNP && s.tee != TeeKind.NITRO) revert AttestedVerifier_BadTeeKind(s.tee);
        if (
            s.appraisedAt + APPRAISAL_TOLERANCE < block.timestamp
                || s.appraisedAt > block.timestamp + APPRAISAL_TOLERANCE
        ) {
            revert AttestedVerifier_StaleAppraisal(s.appraisedAt, block.timestamp, APPRAISAL_TOLERANCE);
        }
        own = standing.tcbStatus;
        judgement.tcbStatus = TcbRank.worse(own, s.tcbStatus);
        judgement.evaluation = standing.evaluation;
        judgement.validUntil = s.validUntil < standing.validUntil ? uint40(s.validUntil) : standing.validUntil;
    }

    function _verifier(Attested memory attested) private view returns (IEnclaveRegistry.Standing memory standing) {
        IEnclaveRegistry registry = IEnclaveRegistry(msg.sender);
        bytes32 digest = MessageHashUtils.toTypedDataHash(registry.domainSeparator(), Hashing.hash(attested.statement));
        // The other two values say why recovery failed; a zero signer is nobody's.
        // slither-disable-next-line unused-return
        (address got,,) = ECDSA.tryRecover(digest, attested.signature);
        if (got != attested.signer || got == address(0)) revert AttestedVerifier_WrongSigner(got, attested.signer);
        if (attested.identity.verifier != 0) revert AttestedVerifier_Nested(attested.identity.verifier);
        standing = registry.standingOf(attested.anchor, attested.signer, attested.identity);
        // What was never registered ended at zero.
        if (standing.retired || standing.tcbStatus == TcbStatus.REVOKED || block.timestamp > standing.validUntil) {
            revert AttestedVerifier_InvalidVerifier(attested.anchor, attested.signer);
        }
    }
}
