// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "../interfaces/IDcapVerifier.sol";
import {TeeKind} from "./Constants.sol";
import {P256} from "./P256.sol";

/// @title Intel DCAP quotes, cut before their PCK chain
/// @dev Offsets are bytes from the start of what they are named for; integers in a quote are little-endian. Sources: Intel
/// SGX ECDSA Quote Library Reference, appendix A.4; Intel TDX DCAP Quoting Library API, appendix A.3; Intel SDM vol. 3D,
/// REPORT; Intel TDX Module ABI 348551-008, table 3.23 (TD attributes).
library DcapQuote {
    /// @dev Where the parts of a quote begin. `bytes calldata` and this are handed around together.
    /// @param body the report body, SGX or TDX
    /// @param bodyLength 384 SGX, 584 TD 1.0, 648 TD 1.5
    /// @param section the signature section: signature (64), attestation key (64)
    /// @param qe the quoting enclave's report (384), its signature (64), length of the authentication data (2), that data (32)
    struct Layout {
        uint8 tee;
        uint256 body;
        uint256 bodyLength;
        uint256 section;
        uint256 qe;
    }

    bytes32 private constant INTEL_QE_VENDOR = bytes32(bytes16(0x939a7233f79c4ca9940a0db3957f0607));
    /// @dev SHA-256 of "enclave-oracle/measurement/1"
    bytes32 private constant MEASUREMENT_TAG = 0x240ef1b0659317c3937e78c781bb871e216c7712c5326e2cedfb23054d343655;

    uint256 private constant TEE_SGX = 0x00;
    uint256 private constant TEE_TDX = 0x81;
    uint256 private constant KEY_P256 = 2;
    uint256 private constant CERTIFICATION_PCK_CHAIN = 5;
    uint256 private constant CERTIFICATION_QE_REPORT = 6;

    uint256 private constant HEADER = 48;
    uint256 private constant SGX_REPORT = 384;
    uint256 private constant TD10_REPORT = 584;
    uint256 private constant TD15_REPORT = 648;
    uint256 private constant AUTH = 32;
    /// @dev A cut version 3 quote: no other is shorter, so a header may be read from anything that long.
    uint256 private constant SHORTEST = 1052;

    // In the quoting enclave's part
    uint256 private constant QE_SIGNATURE = SGX_REPORT;
    uint256 private constant QE_AUTH_LENGTH = QE_SIGNATURE + 64;
    uint256 private constant QE_AUTH = QE_AUTH_LENGTH + 2;
    uint256 private constant QE_CERTIFICATION = QE_AUTH + AUTH;
    uint256 private constant QE_LENGTH = QE_CERTIFICATION + 6;

    // In an SGX report
    uint256 private constant MISCSELECT = 16;
    uint256 private constant ISVEXTPRODID = 32;
    uint256 private constant ATTRIBUTES = 48;
    uint256 private constant MRSIGNER = 128;
    uint256 private constant CONFIGID = 192;
    uint256 private constant ISVPRODID = 256;
    uint256 private constant ISVSVN = 258;
    uint256 private constant CONFIGSVN = 260;
    uint256 private constant ISVFAMILYID = 304;
    uint256 private constant SGX_REPORT_DATA = 320;
    bytes32 private constant SGX_DEBUG = bytes32(bytes1(0x02));

    // In a TD report
    uint256 private constant MRSIGNERSEAM = 64;
    uint256 private constant SEAMATTRIBUTES = 112;
    uint256 private constant TDATTRIBUTES = 120;
    uint256 private constant TDX_REPORT_DATA = 520;
    uint256 private constant TEE_TCB_SVN2 = 584;
    uint256 private constant MRSERVICETD = 600;
    /// @dev TDATTRIBUTES to RTMR3, which lie together.
    uint256 private constant TD_REGISTERS = 400;
    /// @dev Bits 8-15, 23-26 and 32-61 are reserved; 17 lets service TDs in; 29 lets the TD migrate. Bytes as in the quote.
    bytes8 private constant TD_FORBIDDEN = 0x00FF8227FFFFFF3F;
    /// @dev Bit 28: the host cannot take a page from under the TD and have it go on with another.
    bytes8 private constant SEPT_VE_DISABLE = 0x0000001000000000;

    /// @notice Takes a cut quote apart; every byte of it has exactly one reading.
    function parse(bytes calldata quote) internal pure returns (Layout memory q) {
        if (quote.length < SHORTEST) revert IDcapVerifier.DcapVerifier_TooShort(quote.length, SHORTEST);
        uint256 version = _u16(quote, 0);
        if (version < 3 || version > 5) revert IDcapVerifier.DcapVerifier_BadHeader("version");
        if (_u16(quote, 2) != KEY_P256) revert IDcapVerifier.DcapVerifier_BadHeader("attestationKeyType");
        uint256 tee = _u32(quote, 4);
        if (tee != (version == 3 ? TEE_SGX : TEE_TDX)) revert IDcapVerifier.DcapVerifier_BadHeader("teeType");
        if (bytes16(word(quote, 12)) != bytes16(INTEL_QE_VENDOR)) {
            revert IDcapVerifier.DcapVerifier_BadHeader("qeVendor");
        }

        q.tee = tee == TEE_SGX ? TeeKind.SGX : TeeKind.TDX;
        q.body = HEADER;
        q.bodyLength = version == 3 ? SGX_REPORT : TD10_REPORT;
        if (version == 5) {
            uint256 kind = _u16(quote, HEADER);
            // Kind 4 has registers that no measurement covers yet (R3).
            if (kind != 2 && kind != 3) revert IDcapVerifier.DcapVerifier_BadHeader("bodyType");
            if (kind == 3) q.bodyLength = TD15_REPORT;
            _checkLength("body", _u32(quote, HEADER + 2), q.bodyLength);
            q.body = HEADER + 6;
        }
        uint256 sectionLength = q.body + q.bodyLength;
        q.section = sectionLength + 4;
        q.qe = q.section + (version == 3 ? 128 : 134);
        uint256 end = q.qe + QE_LENGTH;
        if (quote.length < end) revert IDcapVerifier.DcapVerifier_TooShort(quote.length, end);
        if (quote.length > end) revert IDcapVerifier.DcapVerifier_TrailingBytes(quote.length, end);

        // What is cut off counts into the lengths around it.
        uint256 chain = _u32(quote, end - 4);
        _checkLength("section", _u32(quote, sectionLength), end - q.section + chain);
        if (version != 3) {
            uint256 kind = _u16(quote, q.section + 128);
            if (kind != CERTIFICATION_QE_REPORT) revert IDcapVerifier.DcapVerifier_WrongCertificationType(kind);
            _checkLength("qe", _u32(quote, q.section + 130), QE_LENGTH + chain);
        }
        _checkLength("qeAuth", _u16(quote, q.qe + QE_AUTH_LENGTH), AUTH);
        uint256 certification = _u16(quote, q.qe + QE_CERTIFICATION);
        if (certification != CERTIFICATION_PCK_CHAIN) {
            revert IDcapVerifier.DcapVerifier_WrongCertificationType(certification);
        }
        _checkReserved(quote, q.qe, "qeReport");
        if (q.tee == TeeKind.SGX) _checkReserved(quote, q.body, "report");
    }

    /// @notice The platform's key vouches for the quoting enclave, that for the attestation key, and that for the report.
    function checkSignatures(bytes calldata quote, Layout memory q, bytes32 pckX, bytes32 pckY) internal view {
        uint256 start = q.qe + QE_SIGNATURE;
        if (!P256.verify(sha256(quote[q.qe:start]), word(quote, start), word(quote, start + 32), pckX, pckY)) {
            revert IDcapVerifier.DcapVerifier_BadQeSignature();
        }
        uint256 section = q.section;
        uint256 key = section + 64;
        uint256 auth = q.qe + QE_AUTH;
        bytes32 bound = sha256(abi.encodePacked(quote[key:key + 64], quote[auth:auth + AUTH]));
        if (bound != word(quote, q.qe + SGX_REPORT_DATA)) revert IDcapVerifier.DcapVerifier_KeyNotBound();
        bytes32 digest = sha256(quote[0:q.body + q.bodyLength]);
        if (!P256.verify(
                digest, word(quote, section), word(quote, section + 32), word(quote, key), word(quote, key + 32)
            )) {
            revert IDcapVerifier.DcapVerifier_BadQuoteSignature();
        }
    }

    /// @notice R3, R4: what may be anything in a measurement, but never this.
    function checkAttributes(bytes calldata quote, Layout memory q) internal pure {
        if (q.tee == TeeKind.SGX) {
            if (word(quote, q.body + ATTRIBUTES) & SGX_DEBUG != 0) revert IDcapVerifier.DcapVerifier_Debug();
            return;
        }
        bytes8 attributes = bytes8(word(quote, q.body + TDATTRIBUTES));
        // TUD: any bit of it makes the TD untrusted.
        if (bytes1(attributes) != 0) revert IDcapVerifier.DcapVerifier_Debug();
        if (attributes & TD_FORBIDDEN != 0 || attributes & SEPT_VE_DISABLE == 0) {
            revert IDcapVerifier.DcapVerifier_BadTdAttributes(attributes);
        }
        if (q.bodyLength == TD15_REPORT) {
            // A service TD can change the measured one at run time, and no measurement covers it. 48 bytes.
            bytes32 service = word(quote, q.body + MRSERVICETD) | word(quote, q.body + MRSERVICETD + 16);
            if (service != 0) revert IDcapVerifier.DcapVerifier_ServiceTd();
            // Zero says that there is none, as in TD 1.0.
            if (bytes16(word(quote, q.body + TEE_TCB_SVN2)) == 0) {
                revert IDcapVerifier.DcapVerifier_ReservedBytes("teeTcbSvn2");
            }
        }
    }

    /// @notice The quoting enclave is the one that Intel names. Its versions are judged apart.
    function checkQe(bytes calldata quote, Layout memory q, IDcapCollateral.QeIdentity calldata qe) internal pure {
        uint256 report = q.qe;
        if (word(quote, report + MRSIGNER) != qe.mrSigner) revert IDcapVerifier.DcapVerifier_WrongQe("mrSigner");
        if (_u16(quote, report + ISVPRODID) != qe.isvProdId) revert IDcapVerifier.DcapVerifier_WrongQe("isvProdId");
        bytes4 misc = bytes4(word(quote, report + MISCSELECT));
        if ((misc ^ qe.miscSelect) & qe.miscSelectMask != 0) revert IDcapVerifier.DcapVerifier_WrongQe("miscSelect");
        bytes16 attributes = bytes16(word(quote, report + ATTRIBUTES));
        if ((attributes ^ qe.attributes) & qe.attributesMask != 0) {
            revert IDcapVerifier.DcapVerifier_WrongQe("attributes");
        }
        if (attributes & bytes16(SGX_DEBUG) != 0) revert IDcapVerifier.DcapVerifier_WrongQe("debug");
    }

    /// @notice The TDX module is the one that Intel names. Its versions are judged apart.
    function checkModule(bytes calldata quote, Layout memory q, IDcapCollateral.TdxModule calldata module)
        internal
        pure
    {
        uint256 start = q.body + MRSIGNERSEAM;
        if (keccak256(module.mrSigner) != keccak256(quote[start:start + 48])) {
            revert IDcapVerifier.DcapVerifier_BadModule("mrSigner");
        }
        bytes8 attributes = bytes8(word(quote, q.body + SEAMATTRIBUTES));
        // Outside the mask it has to be zero.
        if (attributes != module.attributes & module.attributesMask) {
            revert IDcapVerifier.DcapVerifier_BadModule("attributes");
        }
    }

    /// @notice R3: as in `enclave_app/protocol/measurement.py`.
    function measurement(bytes calldata quote, Layout memory q) internal pure returns (bytes32) {
        uint256 start = q.body;
        if (q.tee == TeeKind.TDX) {
            start += TDATTRIBUTES;
            return sha256(abi.encodePacked(MEASUREMENT_TAG, q.tee, quote[start:start + TD_REGISTERS]));
        }
        return sha256(
            abi.encodePacked(
                MEASUREMENT_TAG,
                q.tee,
                bytes4(word(quote, start + MISCSELECT)),
                quote[start + ATTRIBUTES:start + ATTRIBUTES + 48], // and MRENCLAVE
                word(quote, start + MRSIGNER),
                bytes4(word(quote, start + ISVPRODID)), // and ISVSVN
                bytes16(word(quote, start + ISVEXTPRODID)),
                quote[start + CONFIGID:start + CONFIGID + 64],
                bytes2(word(quote, start + CONFIGSVN)),
                bytes16(word(quote, start + ISVFAMILYID))
            )
        );
    }

    /// @return first what evidence binds (R2)
    /// @return second what has to be zero
    function reportData(bytes calldata quote, Layout memory q) internal pure returns (bytes32 first, bytes32 second) {
        uint256 start = q.body + (q.tee == TeeKind.SGX ? SGX_REPORT_DATA : TDX_REPORT_DATA);
        return (word(quote, start), word(quote, start + 32));
    }

    /// @dev Zeros where a quote has none.
    function teeTcbSvns(bytes calldata quote, Layout memory q) internal pure returns (bytes16 launch, bytes16 current) {
        if (q.tee == TeeKind.SGX) return (0, 0);
        launch = bytes16(word(quote, q.body));
        if (q.bodyLength == TD15_REPORT) current = bytes16(word(quote, q.body + TEE_TCB_SVN2));
    }

    function qeSvn(bytes calldata quote, Layout memory q) internal pure returns (uint16) {
        return _u16(quote, q.qe + ISVSVN);
    }

    /// @dev `parse` has seen that everything which is read lies inside.
    function word(bytes calldata quote, uint256 start) internal pure returns (bytes32 value) {
        assembly ("memory-safe") {
            value := calldataload(add(quote.offset, start))
        }
    }

    /// @dev R3: a register that Intel defines later would else stay outside every measurement.
    function _checkReserved(bytes calldata quote, uint256 report, string memory field) private pure {
        bytes32 reserved = word(quote, report + 96) | word(quote, report + 160) | word(quote, report + 262)
            | word(quote, report + 272) | bytes32(bytes12(word(quote, report + 20)));
        if (reserved != 0) revert IDcapVerifier.DcapVerifier_ReservedBytes(field);
    }

    function _checkLength(string memory field, uint256 got, uint256 expected) private pure {
        if (got != expected) revert IDcapVerifier.DcapVerifier_BadLength(field, got, expected);
    }

    function _u16(bytes calldata quote, uint256 start) private pure returns (uint16) {
        uint256 value = uint16(bytes2(word(quote, start)));
        return uint16(value << 8 | value >> 8);
    }

    function _u32(bytes calldata quote, uint256 start) private pure returns (uint256 value) {
        value = uint32(bytes4(word(quote, start)));
        value = (value & 0x00FF00FF) << 8 | value >> 8 & 0x00FF00FF;
        value = (value & 0xFFFF) << 16 | value >> 16;
    }
}
