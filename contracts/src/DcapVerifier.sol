// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "./interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "./interfaces/IDcapVerifier.sol";
import {IEvidenceVerifier} from "./interfaces/IEvidenceVerifier.sol";
import {SVN_TAG, TcbStatus, TeeKind} from "./libraries/Constants.sol";
import {DcapQuote} from "./libraries/DcapQuote.sol";
import {TcbLevels} from "./libraries/TcbLevels.sol";

/// @title DcapVerifier
/// @notice See IDcapVerifier.
contract DcapVerifier is IDcapVerifier {
    IDcapCollateral public immutable collateral;
    bytes32 private immutable _anchor;

    constructor(IDcapCollateral collateral_) {
        collateral = collateral_;
        _anchor = collateral_.anchor();
    }

    /// @inheritdoc IEvidenceVerifier
    function verify(bytes calldata evidence) external view returns (Claims memory claims) {
        bytes32 unused;
        (claims, unused) = _verify(evidence);
        // R2
        if (unused != 0) revert DcapVerifier_ReportDataNotZero();
    }

    /// @inheritdoc IEvidenceVerifier
    function judge(bytes calldata proof)
        external
        view
        returns (bytes32 anchor, bytes32 svnDigest, Judgement memory judgement)
    {
        Versions memory v = abi.decode(proof, (Versions));
        // The proof's offset follows the versions.
        Proof calldata p = _proof(proof, 320);
        judgement = _judgement(p, collateral.checkCollateral(p.tcb, p.qe));
        TcbLevels.checkPlatform(v, p);
        judgement.tcbStatus =
            collateral.isRevoked(v.pckIssuer, v.pckSerial) ? TcbStatus.REVOKED : TcbLevels.statusOf(v, p);
        return (_anchor, _digest(v), judgement);
    }

    /// @dev Everything but that the second half of the report data, which it returns, is zero.
    function _verify(bytes calldata evidence) internal view returns (Claims memory claims, bytes32 unused) {
        Evidence calldata e = _evidence(evidence);
        bytes calldata quote = e.quote;
        DcapQuote.Layout memory q = DcapQuote.parse(quote);
        DcapQuote.checkAttributes(quote, q);
        DcapQuote.checkSignatures(quote, q, e.pck.x, e.pck.y);
        Versions memory v = _versions(quote, q, e.pck);

        Proof calldata current = e.current;
        claims.judgement = _judgement(current, _check(e.pck, current.tcb, current.qe));
        claims.judgement.tcbStatus = _status(quote, q, v, current);
        if (e.earlier.length != 0) _addEarlier(claims.judgement, quote, q, v, e.earlier);

        claims.anchor = _anchor;
        claims.tee = q.tee;
        claims.measurement = DcapQuote.measurement(quote, q);
        claims.platform = e.pck.platform;
        claims.svnDigest = _digest(v);
        (claims.reportData, unused) = DcapQuote.reportData(quote, q);
    }

    /// @dev `collateral.check(pck, tcb, qe)` with the words as they stand: encoding them anew checks each one's type, which the
    /// store's digests do. Static structs lie where they are; only `levels` of the QE identity moves.
    function _check(
        IDcapCollateral.Pck calldata pck,
        IDcapCollateral.TcbInfo calldata tcb,
        IDcapCollateral.QeIdentity calldata qe
    ) private view returns (uint40 end) {
        address store = address(collateral);
        bytes4 selector = IDcapCollateral.check.selector;
        uint256[] calldata levels = qe.levels;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, selector)
            let words := add(input, 4)
            calldatacopy(words, pck, 0x160)
            calldatacopy(add(words, 0x160), tcb, 0x140)
            mstore(add(words, 0x2a0), 0x2c0) // where the QE identity is
            calldatacopy(add(words, 0x2c0), qe, 0x180)
            mstore(add(words, 0x400), 0x180) // where its levels are
            mstore(add(words, 0x440), levels.length)
            calldatacopy(add(words, 0x460), levels.offset, shl(5, levels.length))
            // The constructor has seen that there is a store.
            if iszero(staticcall(gas(), store, input, add(0x464, shl(5, levels.length)), 0, 0x20)) {
                returndatacopy(input, 0, returndatasize())
                revert(input, returndatasize())
            }
            end := mload(0)
        }
    }

    function _addEarlier(
        Judgement memory judgement,
        bytes calldata quote,
        DcapQuote.Layout memory q,
        Versions memory v,
        Proof[] calldata earlier
    ) private view {
        if (earlier.length != 1) revert DcapVerifier_BadLength("earlier", earlier.length, 1);
        Proof calldata proof = earlier[0];
        uint32 evaluation = _evaluation(proof);
        if (evaluation >= judgement.evaluation) revert DcapVerifier_NotEarlier(evaluation, judgement.evaluation);
        collateral.checkEarlier(proof.tcb, proof.qe);
        judgement.earlierStatus = _status(quote, q, v, proof);
        judgement.earlierEvaluation = evaluation;
    }

    function _status(bytes calldata quote, DcapQuote.Layout memory q, Versions memory v, Proof calldata proof)
        private
        pure
        returns (uint8 status)
    {
        TcbLevels.checkPlatform(v, proof);
        DcapQuote.checkQe(quote, q, proof.qe);
        status = TcbLevels.statusOf(v, proof);
        if (q.tee == TeeKind.TDX) DcapQuote.checkModule(quote, q, proof.module[0]);
        if (status == TcbStatus.REVOKED) revert DcapVerifier_Revoked();
    }

    function _versions(bytes calldata quote, DcapQuote.Layout memory q, IDcapCollateral.Pck calldata pck)
        private
        pure
        returns (Versions memory v)
    {
        v.tee = q.tee;
        v.fmspc = pck.fmspc;
        v.pceId = pck.pceId;
        v.cpuSvn = pck.cpuSvn;
        v.pceSvn = pck.pceSvn;
        (v.teeTcbSvn, v.teeTcbSvn2) = DcapQuote.teeTcbSvns(quote, q);
        v.qeSvn = DcapQuote.qeSvn(quote, q);
        v.pckSerial = pck.serial;
        v.pckIssuer = pck.issuer;
    }

    function _judgement(Proof calldata proof, uint40 end) private pure returns (Judgement memory judgement) {
        judgement.evaluation = _evaluation(proof);
        judgement.changedAt = proof.tcb.changedAt;
        judgement.validUntil = end;
    }

    function _evaluation(Proof calldata proof) private pure returns (uint32) {
        return proof.tcb.evaluation < proof.qe.evaluation ? proof.tcb.evaluation : proof.qe.evaluation;
    }

    function _digest(Versions memory v) private pure returns (bytes32) {
        return sha256(abi.encode(SVN_TAG, v));
    }

    /// @dev abi.decode would copy all of it. Wherever an offset points, it is the caller's own calldata that is read, or the zeros
    /// around it: nothing is signed or posted that begins with those.
    function _evidence(bytes calldata evidence) private pure returns (Evidence calldata e) {
        assembly ("memory-safe") {
            e := add(evidence.offset, calldataload(evidence.offset))
        }
    }

    /// @dev As `_evidence`.
    function _proof(bytes calldata proof, uint256 start) private pure returns (Proof calldata p) {
        assembly ("memory-safe") {
            p := add(proof.offset, calldataload(add(proof.offset, start)))
        }
    }
}
