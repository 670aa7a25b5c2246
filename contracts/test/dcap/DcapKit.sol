// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "../../src/interfaces/IDcapVerifier.sol";
import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";
import {TcbStatus, TeeKind} from "../../src/libraries/Constants.sol";
import {Deploy} from "../utils/Deploy.sol";
import {DcapHarness} from "../utils/DcapHarness.sol";
import {GrantedCollateral} from "../utils/GrantedCollateral.sol";

/// @notice Quotes and collateral that are valid as they are made. A test changes one thing; `encode` signs again.
/// @dev Offsets are those of Intel's documents, written out once more: a test that took them from the library could not see
/// that one is wrong.
abstract contract DcapKit is Deploy {
    /// @param header and `bodyKind` (version 5 only) and `body` are what the attestation key signs
    /// @param outer certification type and size before the quoting enclave's report, versions 4 and 5
    /// @param tail certification type 5 and size, where the quote is cut
    struct Case {
        bytes header;
        bytes bodyKind;
        bytes body;
        bytes sectionLength;
        bytes outer;
        bytes qeReport;
        bytes authLength;
        bytes auth;
        bytes tail;
        IDcapCollateral.Pck pck;
        Collateral current;
        Collateral[] earlier;
    }

    /// @param shown how many of the levels are named
    struct Collateral {
        IDcapCollateral.TcbInfo tcb;
        IDcapCollateral.TcbLevel[] levels;
        uint256 shown;
        IDcapCollateral.TdxModule[] modules;
        uint256[] named;
        IDcapCollateral.QeIdentity qe;
    }

    uint256 internal constant PCK_KEY = uint256(keccak256("a platform's key"));
    uint256 internal constant ATTESTATION_KEY = uint256(keccak256("an attestation key"));
    bytes16 internal constant INTEL_QE_VENDOR = 0x939a7233f79c4ca9940a0db3957f0607;
    bytes16 internal constant CPU_SVN = 0x0e0e0303ffff01000000000000000000;
    /// @dev TDX module 1 at ISVSVN 5, and 4 in the third byte.
    bytes16 internal constant TEE_TCB_SVN = 0x05010400000000000000000000000000;
    bytes8 internal constant SEPT_VE_DISABLE = 0x0000001000000000;
    bytes32 internal constant REPORT_DATA = keccak256("report data");
    uint16 internal constant PCE_SVN = 13;
    uint16 internal constant QE_SVN = 8;
    uint256 internal constant CHAIN_LENGTH = 3682;
    uint32 internal constant EVALUATION = 17;
    uint40 internal constant CHANGED_AT = 1_700_000_000;

    uint256 internal constant ATTRIBUTES = 48;
    uint256 internal constant REPORT_DATA_AT = 320;
    uint256 internal constant TD_ATTRIBUTES = 120;
    uint256 internal constant TD_REPORT_DATA_AT = 520;
    uint256 internal constant TEE_TCB_SVN2_AT = 584;
    uint256 internal constant MRSERVICETD = 600;

    GrantedCollateral internal store = new GrantedCollateral();
    DcapHarness internal verifier =
        DcapHarness(deploy("DcapHarness.sol:DcapHarness", abi.encode(IDcapCollateral(address(store)))));

    function sgxCase() internal pure returns (Case memory c) {
        c = _case(TeeKind.SGX, 3, sgxReport(CPU_SVN, 1, 2));
        put(c.body, REPORT_DATA_AT, bytes.concat(REPORT_DATA));
    }

    /// @param version 4 with a TD report 1.0; 5 with 1.5
    function tdxCase(uint8 version) internal pure returns (Case memory c) {
        c = _case(TeeKind.TDX, version, new bytes(version == 5 ? 648 : 584));
        put(c.body, 0, bytes.concat(TEE_TCB_SVN));
        put(c.body, 64, mrSignerSeam());
        put(c.body, TD_ATTRIBUTES, bytes.concat(SEPT_VE_DISABLE));
        put(c.body, TD_REPORT_DATA_AT, bytes.concat(REPORT_DATA));
        if (version == 5) {
            c.bodyKind = bytes.concat(little2(3), little4(648));
            put(c.body, TEE_TCB_SVN2_AT, bytes.concat(TEE_TCB_SVN));
        }
    }

    function sgxReport(bytes16 cpuSvn, uint16 isvProdId, uint16 isvSvn) internal pure returns (bytes memory report) {
        report = new bytes(384);
        put(report, 0, bytes.concat(cpuSvn));
        put(report, ATTRIBUTES, hex"0500000000000000e700000000000000");
        put(report, 64, bytes.concat(keccak256("mrenclave"), bytes32(0), keccak256("mrsigner")));
        put(report, 256, bytes.concat(little2(isvProdId), little2(isvSvn)));
    }

    function mrSignerSeam() internal pure returns (bytes memory) {
        return bytes.concat(keccak256("mrsignerseam"), bytes16(keccak256("the rest of it")));
    }

    function collateralFor(uint8 tee) internal pure returns (Collateral memory c) {
        c.levels = new IDcapCollateral.TcbLevel[](3);
        bytes16 tdx = tee == TeeKind.TDX ? TEE_TCB_SVN : bytes16(0);
        c.levels[0] = level(CPU_SVN, tdx, PCE_SVN, TcbStatus.UP_TO_DATE);
        c.levels[1] = level(CPU_SVN, tdx, PCE_SVN - 1, TcbStatus.SW_HARDENING_NEEDED);
        c.levels[2] = level(0, 0, 0, TcbStatus.OUT_OF_DATE);
        c.shown = 1;
        c.tcb.tee = tee;
        c.tcb.fmspc = 0xdec0de000000;
        c.tcb.pceId = 0x0102;
        c.tcb.evaluation = EVALUATION;
        c.tcb.changedAt = CHANGED_AT;
        c.tcb.signer = keccak256("signer");
        if (tee == TeeKind.TDX) {
            c.modules = new IDcapCollateral.TdxModule[](3);
            c.modules[0] = module(0);
            c.modules[1] = module(3);
            c.modules[2] = module(1);
            c.named = new uint256[](1);
            c.named[0] = 2;
        }
        c.qe.tee = tee;
        c.qe.evaluation = EVALUATION;
        c.qe.miscSelectMask = 0xFFFFFFFF;
        c.qe.attributes = 0x11000000000000000000000000000000;
        c.qe.attributesMask = 0xFBFFFFFFFFFFFFFF0000000000000000;
        c.qe.mrSigner = keccak256("mrsigner");
        c.qe.isvProdId = tee;
        c.qe.levels = new uint256[](2);
        c.qe.levels[0] = isvLevel(QE_SVN, TcbStatus.UP_TO_DATE);
        c.qe.levels[1] = isvLevel(QE_SVN - 2, TcbStatus.OUT_OF_DATE);
        c.qe.signer = keccak256("signer");
    }

    function level(bytes16 sgx, bytes16 tdx, uint16 pceSvn, uint8 status)
        internal
        pure
        returns (IDcapCollateral.TcbLevel memory)
    {
        return IDcapCollateral.TcbLevel(bytes32(bytes.concat(sgx, tdx)), pceSvn, status, CHANGED_AT);
    }

    function module(uint8 version) internal pure returns (IDcapCollateral.TdxModule memory m) {
        m.version = version;
        m.mrSigner = mrSignerSeam();
        m.attributesMask = 0xFFFFFFFFFFFFFFFF;
        if (version == 0) return m;
        m.levels = new uint256[](2);
        m.levels[0] = isvLevel(5, TcbStatus.UP_TO_DATE);
        m.levels[1] = isvLevel(2, TcbStatus.OUT_OF_DATE);
    }

    function isvLevel(uint256 svn, uint8 status) internal pure returns (uint256) {
        return svn << 48 | uint256(status) << 40 | CHANGED_AT;
    }

    function proofOf(Collateral memory c) internal pure returns (IDcapVerifier.Proof memory p) {
        p.tcb = c.tcb;
        p.tcb.levels = hashFrom(c.levels, 0);
        p.levels = new IDcapCollateral.TcbLevel[](c.shown);
        for (uint256 i; i < c.shown; ++i) {
            p.levels[i] = c.levels[i];
        }
        p.rest = hashFrom(c.levels, c.shown);
        p.modules = new bytes32[](c.modules.length);
        for (uint256 i; i < c.modules.length; ++i) {
            p.modules[i] = keccak256(abi.encode(c.modules[i]));
        }
        if (c.modules.length != 0) p.tcb.modules = keccak256(abi.encodePacked(p.modules));
        p.module = new IDcapCollateral.TdxModule[](c.named.length);
        for (uint256 i; i < c.named.length; ++i) {
            p.module[i] = c.modules[c.named[i]];
        }
        p.qe = c.qe;
    }

    function hashFrom(IDcapCollateral.TcbLevel[] memory levels, uint256 start) internal pure returns (bytes32 hash) {
        for (uint256 i = levels.length; i > start; --i) {
            hash = keccak256(abi.encode(levels[i - 1], hash));
        }
    }

    function evidenceOf(Case memory c) internal pure returns (IDcapVerifier.Evidence memory e) {
        e.quote = quoteOf(c);
        e.pck = c.pck;
        e.current = proofOf(c.current);
        e.earlier = new IDcapVerifier.Proof[](c.earlier.length);
        for (uint256 i; i < c.earlier.length; ++i) {
            e.earlier[i] = proofOf(c.earlier[i]);
        }
    }

    function encode(Case memory c) internal pure returns (bytes memory) {
        return abi.encode(evidenceOf(c));
    }

    /// @notice What `judge` takes for the case's platform.
    function challengeOf(Case memory c) internal pure returns (bytes memory) {
        return abi.encode(versionsOf(c), proofOf(c.current));
    }

    function versionsOf(Case memory c) internal pure returns (IDcapVerifier.Versions memory v) {
        v.tee = c.body.length == 384 ? TeeKind.SGX : TeeKind.TDX;
        v.fmspc = c.pck.fmspc;
        v.pceId = c.pck.pceId;
        v.cpuSvn = c.pck.cpuSvn;
        v.pceSvn = c.pck.pceSvn;
        if (v.tee == TeeKind.TDX) v.teeTcbSvn = bytes16(cut(c.body, 0));
        if (c.body.length == 648) v.teeTcbSvn2 = bytes16(cut(c.body, TEE_TCB_SVN2_AT));
        v.qeSvn = uint16(uint8(c.qeReport[258])) | uint16(uint8(c.qeReport[259])) << 8;
        v.pckSerial = c.pck.serial;
        v.pckIssuer = c.pck.issuer;
    }

    /// @notice The cut quote, signed.
    function quoteOf(Case memory c) internal pure returns (bytes memory) {
        bytes memory signed = bytes.concat(c.header, c.bodyKind, c.body);
        (uint256 x, uint256 y) = vm.publicKeyP256(ATTESTATION_KEY);
        bytes memory key = abi.encode(x, y);
        put(c.qeReport, REPORT_DATA_AT, bytes.concat(sha256(bytes.concat(key, c.auth))));
        return bytes.concat(
            signed,
            c.sectionLength,
            signP256(ATTESTATION_KEY, signed),
            key,
            c.outer,
            c.qeReport,
            signP256(PCK_KEY, c.qeReport),
            c.authLength,
            c.auth,
            c.tail
        );
    }

    function signP256(uint256 key, bytes memory message) internal pure returns (bytes memory) {
        (bytes32 r, bytes32 s) = vm.signP256(key, sha256(message));
        return bytes.concat(r, s);
    }

    function check(Case memory c) internal view returns (IEvidenceVerifier.Claims memory) {
        return verifier.verify(encode(c));
    }

    function refuses(Case memory c, bytes memory reason) internal {
        refusesBytes(encode(c), reason);
    }

    function refuses(Case memory c, bytes4 reason) internal {
        refusesBytes(encode(c), abi.encodeWithSelector(reason));
    }

    function refusesBytes(bytes memory evidence, bytes memory reason) internal {
        vm.expectRevert(reason);
        verifier.verify(evidence);
    }

    function put(bytes memory target, uint256 start, bytes memory value) internal pure {
        for (uint256 i; i < value.length; ++i) {
            target[start + i] = value[i];
        }
    }

    function flip(bytes memory target, uint256 bit) internal pure {
        target[bit / 8] ^= bytes1(uint8(1 << bit % 8));
    }

    function cut(bytes memory source, uint256 start) internal pure returns (bytes32 value) {
        assembly ("memory-safe") {
            value := mload(add(add(source, 0x20), start))
        }
    }

    function little2(uint256 value) internal pure returns (bytes memory) {
        return abi.encodePacked(uint8(value), uint8(value >> 8));
    }

    function little4(uint256 value) internal pure returns (bytes memory) {
        return bytes.concat(little2(value), little2(value >> 16));
    }

    function _case(uint8 tee, uint8 version, bytes memory body) private pure returns (Case memory c) {
        uint256 vouched = 384 + 64 + 2 + 32 + 6 + CHAIN_LENGTH;
        c.header = bytes.concat(
            little2(version),
            little2(2),
            little4(tee == TeeKind.SGX ? 0 : 0x81),
            bytes4(0),
            INTEL_QE_VENDOR,
            bytes20(keccak256("user data"))
        );
        c.body = body;
        c.sectionLength = little4(128 + (version == 3 ? 0 : 6) + vouched);
        if (version != 3) c.outer = bytes.concat(little2(6), little4(vouched));
        c.qeReport = sgxReport(CPU_SVN, tee, QE_SVN);
        put(c.qeReport, ATTRIBUTES, hex"1500000000000000e700000000000000");
        c.authLength = little2(32);
        c.auth = bytes.concat(keccak256("authentication data"));
        c.tail = bytes.concat(little2(5), little4(CHAIN_LENGTH));
        (uint256 x, uint256 y) = vm.publicKeyP256(PCK_KEY);
        c.pck.x = bytes32(x);
        c.pck.y = bytes32(y);
        c.pck.platform = keccak256("platform");
        c.pck.issuer = keccak256("issuer");
        c.pck.cpuSvn = CPU_SVN;
        c.pck.fmspc = 0xdec0de000000;
        c.pck.pceId = 0x0102;
        c.pck.pceSvn = PCE_SVN;
        c.pck.serial = 0x1234567890;
        c.current = collateralFor(tee);
    }
}
