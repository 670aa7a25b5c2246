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

    bytes16 private constant INTEL_QE_VENDOR = 0x939a7233f79c4ca9940a0db3957f0607;
    /// @dev SHA-256 of "enclave-oracle/measurement/1"
    bytes32 private constant MEASUREMENT_TAG = 0x240ef1b0659317c3937e78c781bb871e216c7712c5326e2cedfb23054d343655;

    // First eight bytes: version, attestation key type 2 (P-256), TEE type (0x00 SGX, 0x81 TDX)
    bytes8 private constant HEAD_3 = 0x0300020000000000;
    bytes8 private constant HEAD_4 = 0x0400020081000000;
    bytes8 private constant HEAD_5 = 0x0500020081000000;
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
        bytes8 head = bytes8(word(quote, 0, 0));
        if (head != HEAD_3 && head != HEAD_4 && head != HEAD_5) {
            revert IDcapVerifier.DcapVerifier_BadHeader(_wrong(head));
        }
        if (bytes16(word(quote, 0, 12)) != INTEL_QE_VENDOR) revert IDcapVerifier.DcapVerifier_BadHeader("qeVendor");

        bool sgx = head == HEAD_3;
        q.tee = sgx ? TeeKind.SGX : TeeKind.TDX;
        uint256 body = HEADER;
        uint256 bodyLength = sgx ? SGX_REPORT : TD10_REPORT;
        if (head == HEAD_5) {
            uint256 kind = _u16(quote, HEADER, 0);
            // Kind 4 has registers that no measurement covers yet (R3).
            if (kind != 2 && kind != 3) revert IDcapVerifier.DcapVerifier_BadHeader("bodyType");
            if (kind == 3) bodyLength = TD15_REPORT;
            uint256 length = _u32(quote, HEADER, 2);
            if (length != bodyLength) revert IDcapVerifier.DcapVerifier_BadLength("body", length, bodyLength);
            body += 6;
        }
        uint256 section = body + bodyLength + 4;
        uint256 qe = section + (sgx ? 128 : 134);
        uint256 end = qe + QE_LENGTH;
        if (quote.length < end) revert IDcapVerifier.DcapVerifier_TooShort(quote.length, end);
        if (quote.length > end) revert IDcapVerifier.DcapVerifier_TrailingBytes(quote.length, end);
        (q.body, q.bodyLength, q.section, q.qe) = (body, bodyLength, section, qe);

        // What is cut off counts into the lengths around it.
        uint256 chain = _u32(quote, qe, QE_CERTIFICATION + 2);
        uint256 declared = _u32(quote, body, bodyLength);
        if (declared != end - section + chain) {
            revert IDcapVerifier.DcapVerifier_BadLength("section", declared, end - section + chain);
        }
        if (!sgx) {
            uint256 kind = _u16(quote, section, 128);
            if (kind != CERTIFICATION_QE_REPORT) revert IDcapVerifier.DcapVerifier_WrongCertificationType(kind);
            declared = _u32(quote, section, 130);
            if (declared != QE_LENGTH + chain) {
                revert IDcapVerifier.DcapVerifier_BadLength("qe", declared, QE_LENGTH + chain);
            }
        }
        declared = _u16(quote, qe, QE_AUTH_LENGTH);
        if (declared != AUTH) revert IDcapVerifier.DcapVerifier_BadLength("qeAuth", declared, AUTH);
        uint256 certification = _u16(quote, qe, QE_CERTIFICATION);
        if (certification != CERTIFICATION_PCK_CHAIN) {
            revert IDcapVerifier.DcapVerifier_WrongCertificationType(certification);
        }
        if (_reserved(quote, qe) != 0) revert IDcapVerifier.DcapVerifier_ReservedBytes("qeReport");
        if (sgx && _reserved(quote, body) != 0) revert IDcapVerifier.DcapVerifier_ReservedBytes("report");
    }

    /// @notice The platform's key vouches for the quoting enclave, that for the attestation key, and that for the report.
    function checkSignatures(bytes calldata quote, Layout memory q, bytes32 pckX, bytes32 pckY) internal view {
        uint256 qe = q.qe;
        uint256 signature = qe + QE_SIGNATURE;
        bytes32 digest = _sha256(quote, qe, SGX_REPORT, 0, 0);
        if (!P256.verify(digest, word(quote, signature, 0), word(quote, signature, 32), pckX, pckY)) {
            revert IDcapVerifier.DcapVerifier_BadQeSignature();
        }
        signature = q.section;
        uint256 key = signature + 64;
        if (_sha256(quote, key, 64, qe + QE_AUTH, AUTH) != word(quote, qe, SGX_REPORT_DATA)) {
            revert IDcapVerifier.DcapVerifier_KeyNotBound();
        }
        digest = _sha256(quote, 0, q.body + q.bodyLength, 0, 0);
        (bytes32 x, bytes32 y) = (word(quote, key, 0), word(quote, key, 32));
        if (!P256.verify(digest, word(quote, signature, 0), word(quote, signature, 32), x, y)) {
            revert IDcapVerifier.DcapVerifier_BadQuoteSignature();
        }
    }

    /// @notice R3, R4: what may be anything in a measurement, but never this.
    function checkAttributes(bytes calldata quote, Layout memory q) internal pure {
        if (q.tee == TeeKind.SGX) {
            if (word(quote, q.body, ATTRIBUTES) & SGX_DEBUG != 0) revert IDcapVerifier.DcapVerifier_Debug();
            return;
        }
        bytes8 attributes = bytes8(word(quote, q.body, TDATTRIBUTES));
        // TUD: any bit of it makes the TD untrusted.
        if (bytes1(attributes) != 0) revert IDcapVerifier.DcapVerifier_Debug();
        if (attributes & TD_FORBIDDEN != 0 || attributes & SEPT_VE_DISABLE == 0) {
            revert IDcapVerifier.DcapVerifier_BadTdAttributes(attributes);
        }
        if (q.bodyLength == TD15_REPORT) {
            // A service TD can change the measured one at run time, and no measurement covers it. 48 bytes.
            bytes32 service = word(quote, q.body, MRSERVICETD) | word(quote, q.body, MRSERVICETD + 16);
            if (service != 0) revert IDcapVerifier.DcapVerifier_ServiceTd();
            // Zero says that there is none, as in TD 1.0.
            if (bytes16(word(quote, q.body, TEE_TCB_SVN2)) == 0) {
                revert IDcapVerifier.DcapVerifier_ReservedBytes("teeTcbSvn2");
            }
        }
    }

    /// @notice The quoting enclave is the one that Intel names. Its versions are judged apart.
    function checkQe(bytes calldata quote, Layout memory q, IDcapCollateral.QeIdentity calldata qe) internal pure {
        uint256 report = q.qe;
        if (word(quote, report, MRSIGNER) != qe.mrSigner) revert IDcapVerifier.DcapVerifier_WrongQe("mrSigner");
        if (_u16(quote, report, ISVPRODID) != qe.isvProdId) revert IDcapVerifier.DcapVerifier_WrongQe("isvProdId");
        bytes4 misc = bytes4(word(quote, report, MISCSELECT));
        if ((misc ^ qe.miscSelect) & qe.miscSelectMask != 0) revert IDcapVerifier.DcapVerifier_WrongQe("miscSelect");
        bytes16 attributes = bytes16(word(quote, report, ATTRIBUTES));
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
        bytes calldata mrSigner = module.mrSigner;
        uint256 start = q.body + MRSIGNERSEAM;
        // 48 bytes, as TcbLevels found, so that the two words overlap.
        if (word(mrSigner, 0, 0) != word(quote, start, 0) || word(mrSigner, 0, 16) != word(quote, start, 16)) {
            revert IDcapVerifier.DcapVerifier_BadModule("mrSigner");
        }
        bytes8 attributes = bytes8(word(quote, q.body, SEAMATTRIBUTES));
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
                bytes4(word(quote, start, MISCSELECT)),
                quote[start + ATTRIBUTES:start + ATTRIBUTES + 48], // and MRENCLAVE
                word(quote, start, MRSIGNER),
                bytes4(word(quote, start, ISVPRODID)), // and ISVSVN
                bytes16(word(quote, start, ISVEXTPRODID)),
                quote[start + CONFIGID:start + CONFIGID + 64],
                bytes2(word(quote, start, CONFIGSVN)),
                bytes16(word(quote, start, ISVFAMILYID))
            )
        );
    }

    /// @return first what evidence binds (R2)
    /// @return second what has to be zero
    function reportData(bytes calldata quote, Layout memory q) internal pure returns (bytes32 first, bytes32 second) {
        uint256 start = q.body + (q.tee == TeeKind.SGX ? SGX_REPORT_DATA : TDX_REPORT_DATA);
        return (word(quote, start, 0), word(quote, start, 32));
    }

    /// @dev Zeros where a quote has none.
    function teeTcbSvns(bytes calldata quote, Layout memory q) internal pure returns (bytes16 launch, bytes16 current) {
        if (q.tee == TeeKind.SGX) return (0, 0);
        launch = bytes16(word(quote, q.body, 0));
        if (q.bodyLength == TD15_REPORT) current = bytes16(word(quote, q.body, TEE_TCB_SVN2));
    }

    function qeSvn(bytes calldata quote, Layout memory q) internal pure returns (uint16) {
        return _u16(quote, q.qe, ISVSVN);
    }

    /// @dev 32 bytes at `offset` in the part that begins at `start`; `parse` has seen that what is used of them lies inside.
    function word(bytes calldata quote, uint256 start, uint256 offset) internal pure returns (bytes32 value) {
        assembly ("memory-safe") {
            value := calldataload(add(quote.offset, add(start, offset)))
        }
    }

    /// @return field the first of the three in the head that no version has
    function _wrong(bytes8 head) private pure returns (string memory field) {
        uint256 version = uint256(uint64(head)) >> 48;
        if (version != 0x0300 && version != 0x0400 && version != 0x0500) return "version";
        return head << 16 >> 48 != HEAD_3 << 16 >> 48 ? "attestationKeyType" : "teeType";
    }

    /// @dev SHA-256 of one part of the quote, or of two in a row.
    function _sha256(bytes calldata quote, uint256 start, uint256 length, uint256 start2, uint256 length2)
        private
        view
        returns (bytes32 digest)
    {
        assembly ("memory-safe") {
            let input := mload(0x40)
            calldatacopy(input, add(quote.offset, start), length)
            calldatacopy(add(input, length), add(quote.offset, start2), length2)
            // The precompile fails only for want of gas.
            if iszero(staticcall(gas(), 0x02, input, add(length, length2), 0, 0x20)) { revert(0, 0) }
            digest := mload(0)
        }
    }

    /// @dev R3: a register that Intel defines later would else stay outside every measurement.
    function _reserved(bytes calldata quote, uint256 report) private pure returns (bytes32) {
        return word(quote, report, 96) | word(quote, report, 160) | word(quote, report, 262) | word(quote, report, 272)
            | bytes32(bytes12(word(quote, report, 20)));
    }

    function _u16(bytes calldata quote, uint256 start, uint256 offset) private pure returns (uint16) {
        uint256 value = uint16(bytes2(word(quote, start, offset)));
        return uint16(value << 8 | value >> 8);
    }

    function _u32(bytes calldata quote, uint256 start, uint256 offset) private pure returns (uint256 value) {
        value = uint32(bytes4(word(quote, start, offset)));
        value = (value & 0x00FF00FF) << 8 | value >> 8 & 0x00FF00FF;
        value = (value & 0xFFFF) << 16 | value >> 16;
    }
}
