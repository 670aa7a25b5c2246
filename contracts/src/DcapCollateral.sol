// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "./interfaces/IDcapCollateral.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {RevocationList} from "./libraries/RevocationList.sol";
import {Digests} from "./libraries/Digests.sol";
import {IntelJson} from "./libraries/IntelJson.sol";
import {P256} from "./libraries/P256.sol";
import {PckExtension} from "./libraries/PckExtension.sol";
import {X509} from "./libraries/X509.sol";

/// @title DcapCollateral
/// @notice See IDcapCollateral.
contract DcapCollateral is IDcapCollateral {
    using X509 for X509.Certificate;

    /// @dev SHA-256 of Intel's SGX root CA certificate, which
    /// https://certificates.trustedservices.intel.com/IntelSGXRootCA.der gives.
    bytes32 private constant INTEL_ROOT = 0x44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3;

    /// @dev The newest document of a key.
    struct Document {
        bytes32 digest;
        uint40 issuedAt;
    }

    bytes32 public immutable anchor;
    uint160 private immutable _rootSerial;
    uint40 private immutable _rootNotBefore;
    uint40 private immutable _rootNotAfter;

    /// @dev With the root under `anchor`.
    mapping(bytes32 issuer => Issuer) private _issuers;
    mapping(bytes32 issuer => Crl) private _crls;
    mapping(bytes32 digest => bool) public isPck;
    mapping(bytes32 key => Document) private _documents;

    /// @param root DER of the root certificate
    constructor(bytes memory root) {
        if (!P256.isAvailable()) revert DcapCollateral_NoP256();
        anchor = sha256(root);
        if (anchor != INTEL_ROOT && block.chainid != 31_337 && block.chainid != 1337 && block.chainid != 31_338) {
            revert DcapCollateral_NotADevelopmentChain(block.chainid);
        }
        X509.Certificate memory c = _certificate(root);
        if (c.issuer != c.name || !c.isSignedBy(c.x, c.y)) revert DcapCollateral_BadSignature(anchor);
        if (!c.ca || c.pathLength == 0 || c.usage & CA_USAGE != CA_USAGE) revert DcapCollateral_WrongIssuer(anchor);
        _rootSerial = c.serial;
        _rootNotBefore = c.notBefore;
        _rootNotAfter = c.notAfter;
        _keepIssuer(anchor, c);
    }

    uint256 private constant CA_USAGE = X509.KEY_CERT_SIGN | X509.CRL_SIGN;

    /// @inheritdoc IDcapCollateral
    function postIssuer(bytes calldata certificate) external returns (bytes32 issuer_) {
        X509.Certificate memory c = _certificate(certificate);
        // Anyone can write its signature another way. Were it the same certificate twice, its revocation list could be rolled
        // back under the second, and a document posted under it would be nobody's.
        issuer_ = c.digest;
        Issuer storage root = _issuers[anchor];
        if (c.issuer != root.name) revert DcapCollateral_UnknownIssuer(c.issuer);
        if (!c.isSignedBy(root.x, root.y)) revert DcapCollateral_BadSignature(anchor);
        if (!_isIssuer(c)) revert DcapCollateral_WrongIssuer(issuer_);
        _keepIssuer(issuer_, c);
    }

    /// @inheritdoc IDcapCollateral
    function postPck(bytes calldata certificate, bytes32 issuer_) external returns (bytes32 digest) {
        Issuer storage by = _issuer(issuer_, true);
        if (issuer_ == anchor) revert DcapCollateral_WrongIssuer(issuer_);
        X509.Certificate memory c = _certificate(certificate);
        if (c.issuer != by.name) revert DcapCollateral_UnknownIssuer(c.issuer);
        if (!c.isSignedBy(by.x, by.y)) revert DcapCollateral_BadSignature(issuer_);
        if (c.ca || c.usage & X509.DIGITAL_SIGNATURE == 0) revert DcapCollateral_WrongIssuer(sha256(certificate));
        Pck memory pck;
        PckExtension.read(pck, c.sgxStart, c.sgxEnd);
        pck.x = c.x;
        pck.y = c.y;
        pck.issuer = issuer_;
        pck.serial = c.serial;
        pck.notBefore = c.notBefore;
        pck.notAfter = c.notAfter;
        digest = Digests.ofMemory(pck);
        isPck[digest] = true;
        emit PckPosted(digest, pck.platform, pck);
    }

    /// @inheritdoc IDcapCollateral
    function postCrl(bytes calldata crl_, bytes32 issuer_) external {
        Issuer storage by = _issuer(issuer_, true);
        (uint256 p, uint256 end) = _load(crl_);
        RevocationList.List memory list = RevocationList.parse(p, end);
        if (list.issuer != by.name) revert DcapCollateral_UnknownIssuer(list.issuer);
        if (!P256.verify(list.digest, list.r, list.s, by.x, by.y)) revert DcapCollateral_BadSignature(issuer_);
        Crl memory known = _crls[issuer_];
        if (list.issuedAt <= known.issuedAt) revert DcapCollateral_NotNewer(list.issuedAt, known.issuedAt);
        address serials = list.serials == list.serialsEnd
            ? address(0)
            : CodeStore.write(list.serials, list.serialsEnd, known.serials);
        _crls[issuer_] = Crl(list.issuedAt, list.nextUpdate, serials);
        emit CrlPosted(issuer_, list.issuedAt, list.nextUpdate, (list.serialsEnd - list.serials) / 20);
    }

    /// @inheritdoc IDcapCollateral
    function postTcbInfo(bytes calldata json, bytes calldata signature, bytes32 signer)
        external
        returns (bytes32 digest)
    {
        (uint256 p, uint256 end) = _load(json);
        _checkSignature(X509.hash(p, end), signature, signer);
        TcbInfo memory info = IntelJson.tcbInfo(p, end);
        info.signer = signer;
        digest = Digests.ofMemory(info);
        _keep(_tcbKey(info.tee, info.fmspc, info.evaluation), digest, info.issuedAt);
        emit TcbInfoPosted(info.tee, info.fmspc, info.evaluation, info.issuedAt, info.nextUpdate);
    }

    /// @inheritdoc IDcapCollateral
    function postQeIdentity(bytes calldata json, bytes calldata signature, bytes32 signer)
        external
        returns (bytes32 digest)
    {
        (uint256 p, uint256 end) = _load(json);
        _checkSignature(X509.hash(p, end), signature, signer);
        QeIdentity memory qe = IntelJson.qeIdentity(p, end);
        qe.signer = signer;
        digest = Digests.ofMemory(qe);
        _keep(_qeKey(qe.tee, qe.evaluation), digest, qe.issuedAt);
        emit QeIdentityPosted(qe.tee, qe.evaluation, qe.issuedAt, qe.nextUpdate);
    }

    /// @inheritdoc IDcapCollateral
    function issuer(bytes32 digest) external view returns (Issuer memory) {
        return _issuers[digest];
    }

    /// @inheritdoc IDcapCollateral
    function crl(bytes32 issuer_) external view returns (Crl memory) {
        return _crls[issuer_];
    }

    /// @inheritdoc IDcapCollateral
    function tcbInfo(uint8 tee, bytes6 fmspc, uint32 evaluation)
        external
        view
        returns (bytes32 digest, uint40 issuedAt)
    {
        Document storage document = _documents[_tcbKey(tee, fmspc, evaluation)];
        return (document.digest, document.issuedAt);
    }

    /// @inheritdoc IDcapCollateral
    function qeIdentity(uint8 tee, uint32 evaluation) external view returns (bytes32 digest, uint40 issuedAt) {
        Document storage document = _documents[_qeKey(tee, evaluation)];
        return (document.digest, document.issuedAt);
    }

    /// @inheritdoc IDcapCollateral
    function check(Pck calldata pck, TcbInfo calldata tcb, QeIdentity calldata qe) external view returns (uint40 end) {
        bytes32 digest = Digests.ofCalldata(pck);
        if (!isPck[digest]) revert DcapCollateral_UnknownPck(digest);
        end = _within(digest, pck.notBefore, pck.notAfter, _checkCollateral(tcb, qe));
        Issuer storage by = _issuers[pck.issuer];
        end = _within(pck.issuer, by.notBefore, by.notAfter, end);
        end = _checkNotRevoked(anchor, by.serial, end);
        end = _checkNotRevoked(pck.issuer, pck.serial, end) - 1;
    }

    /// @inheritdoc IDcapCollateral
    function checkCollateral(TcbInfo calldata tcb, QeIdentity calldata qe) external view returns (uint40 end) {
        end = _checkCollateral(tcb, qe) - 1;
    }

    /// @inheritdoc IDcapCollateral
    function checkEarlier(TcbInfo calldata tcb, QeIdentity calldata qe) external view {
        _checkCurrent(tcb, qe);
        _checkNotRevoked(anchor, _issuers[tcb.signer].serial, type(uint40).max);
        if (qe.signer != tcb.signer) _checkNotRevoked(anchor, _issuers[qe.signer].serial, type(uint40).max);
    }

    /// @inheritdoc IDcapCollateral
    function isRevoked(bytes32 issuer_, uint160 serial) external view returns (bool revoked) {
        (revoked,) = _isListed(issuer_, serial, type(uint40).max);
        if (issuer_ == anchor || revoked) return revoked;
        (revoked,) = _isListed(anchor, _issuers[issuer_].serial, type(uint40).max);
    }

    /// @return end the earliest end, which does not count any more
    function _checkCollateral(TcbInfo calldata tcb, QeIdentity calldata qe) private view returns (uint40 end) {
        (bytes32 tcbDigest, bytes32 qeDigest) = _checkCurrent(tcb, qe);
        end = _within(anchor, _rootNotBefore, _rootNotAfter, type(uint40).max);
        end = _checkNotRevoked(anchor, _rootSerial, end);
        end = _within(tcbDigest, tcb.issuedAt, tcb.nextUpdate, end);
        end = _within(qeDigest, qe.issuedAt, qe.nextUpdate, end);
        end = _checkSigner(tcb.signer, end);
        if (qe.signer != tcb.signer) end = _checkSigner(qe.signer, end);
    }

    function _checkCurrent(TcbInfo calldata tcb, QeIdentity calldata qe)
        private
        view
        returns (bytes32 tcbDigest, bytes32 qeDigest)
    {
        tcbDigest = Digests.ofCalldata(tcb);
        qeDigest = Digests.ofCalldata(qe);
        _checkNewest(_tcbKey(tcb.tee, tcb.fmspc, tcb.evaluation), tcbDigest);
        _checkNewest(_qeKey(qe.tee, qe.evaluation), qeDigest);
    }

    function _checkNewest(bytes32 key, bytes32 digest) private view {
        bytes32 expected = _documents[key].digest;
        if (digest != expected) revert DcapCollateral_NotCurrent(key, digest, expected);
    }

    function _checkSigner(bytes32 signer, uint40 end) private view returns (uint40) {
        Issuer storage by = _issuers[signer];
        end = _within(signer, by.notBefore, by.notAfter, end);
        return _checkNotRevoked(anchor, by.serial, end);
    }

    function _checkNotRevoked(bytes32 issuer_, uint160 serial, uint40 end) private view returns (uint40) {
        bool revoked;
        (revoked, end) = _isListed(issuer_, serial, end);
        if (revoked) revert DcapCollateral_Revoked(issuer_, serial);
        return end;
    }

    function _isListed(bytes32 issuer_, uint160 serial, uint40 end) private view returns (bool, uint40) {
        Crl memory list = _crls[issuer_];
        if (list.issuedAt == 0) revert DcapCollateral_NoCrl(issuer_);
        end = _within(issuer_, list.issuedAt, list.nextUpdate, end);
        return (list.serials != address(0) && CodeStore.contains(list.serials, serial), end);
    }

    /// @dev Nothing counts at its end any more: so does dcap-qvl take a revocation list.
    function _within(bytes32 what, uint40 start, uint40 stop, uint40 end) private view returns (uint40) {
        if (block.timestamp < start) revert DcapCollateral_NotYetValid(what, start, block.timestamp);
        if (block.timestamp >= stop) revert DcapCollateral_Expired(what, stop, block.timestamp);
        return stop < end ? stop : end;
    }

    /// @dev What the root revoked cannot post, or it could block a key with a date far ahead.
    function _checkSignature(bytes32 digest, bytes calldata signature, bytes32 signer) private view {
        Issuer storage by = _issuer(signer, false);
        address serials = _crls[anchor].serials;
        if (serials != address(0) && CodeStore.contains(serials, by.serial)) {
            revert DcapCollateral_Revoked(anchor, by.serial);
        }
        if (signature.length != 64 || !P256.verify(digest, bytes32(signature), bytes32(signature[32:]), by.x, by.y)) {
            revert DcapCollateral_BadSignature(signer);
        }
    }

    function _issuer(bytes32 digest, bool ca) private view returns (Issuer storage by) {
        by = _issuers[digest];
        if (by.serial == 0) revert DcapCollateral_UnknownIssuer(digest);
        if (by.ca != ca) revert DcapCollateral_WrongIssuer(digest);
    }

    function _keep(bytes32 key, bytes32 digest, uint40 issuedAt) private {
        Document storage document = _documents[key];
        uint40 known = document.issuedAt;
        if (issuedAt <= known) revert DcapCollateral_NotNewer(issuedAt, known);
        document.digest = digest;
        document.issuedAt = issuedAt;
    }

    function _keepIssuer(bytes32 digest, X509.Certificate memory c) private {
        Issuer memory parts = Issuer(c.x, c.y, c.name, c.serial, c.notBefore, c.notAfter, c.ca);
        _issuers[digest] = parts;
        emit IssuerPosted(digest, parts);
    }

    /// @dev A PCK CA is one that issues end entities only; whatever else the root signed must be its TCB signer.
    function _isIssuer(X509.Certificate memory c) private pure returns (bool) {
        (bool pckCa, bool tcbSigner) = c.role();
        if (!c.ca) return tcbSigner && c.usage & X509.DIGITAL_SIGNATURE != 0;
        return pckCa && c.pathLength == 0 && c.usage & CA_USAGE == CA_USAGE;
    }

    function _certificate(bytes memory der) private view returns (X509.Certificate memory) {
        (uint256 p, uint256 end) = _load(der);
        return X509.parse(p, end);
    }

    function _load(bytes memory data) private pure returns (uint256 p, uint256 end) {
        assembly ("memory-safe") {
            p := add(data, 0x20)
            end := add(p, mload(data))
        }
    }

    function _tcbKey(uint8 tee, bytes6 fmspc, uint32 evaluation) private pure returns (bytes32) {
        return bytes32(uint256(tee) << 88 | uint256(uint48(fmspc)) << 40 | uint256(evaluation) << 8 | 1);
    }

    function _qeKey(uint8 tee, uint32 evaluation) private pure returns (bytes32) {
        return bytes32(uint256(tee) << 88 | uint256(evaluation) << 8 | 2);
    }
}

