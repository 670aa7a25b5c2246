// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapVerifier} from "../../src/interfaces/IDcapVerifier.sol";
import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";
import {SVN_TAG, TcbStatus, TeeKind} from "../../src/libraries/Constants.sol";
import {DcapKit} from "./DcapKit.sol";

/// @notice Which bytes are a quote, and whose.
contract QuoteTest is DcapKit {
    function test_aQuoteOfEachKindGivesItsClaims() public view {
        for (uint8 version = 3; version <= 5; ++version) {
            Case memory c = _of(version);
            IEvidenceVerifier.Claims memory claims = check(c);
            assertEq(claims.anchor, store.anchor());
            assertEq(claims.tee, version == 3 ? TeeKind.SGX : TeeKind.TDX);
            assertEq(claims.reportData, REPORT_DATA);
            assertEq(claims.platform, c.pck.platform);
            assertEq(claims.svnDigest, sha256(abi.encode(SVN_TAG, versionsOf(c))));
            assertEq(claims.verifier, bytes32(0));
            assertEq(claims.judgement.tcbStatus, TcbStatus.UP_TO_DATE);
            assertEq(claims.judgement.evaluation, EVALUATION);
            assertEq(claims.judgement.changedAt, CHANGED_AT);
            assertEq(claims.judgement.validUntil, store.END());
            assertEq(claims.judgement.earlierStatus, 0);
            assertEq(claims.judgement.earlierEvaluation, 0);
        }
    }

    function test_aTdReport10InAVersion5QuoteCounts() public view {
        Case memory c = tdxCase(4);
        put(c.header, 0, little2(5));
        c.bodyKind = bytes.concat(little2(2), little4(584));
        assertEq(check(c).reportData, REPORT_DATA);
    }

    /// forge-config: default.fuzz.runs = 64
    function test_noBitOfAQuoteIsFree(uint8 version, uint256 bit) public {
        Case memory c = _of(uint8(bound(version, 3, 5)));
        IDcapVerifier.Evidence memory e = evidenceOf(c);
        flip(e.quote, bound(bit, 0, e.quote.length * 8 - 1));
        vm.expectRevert();
        verifier.verify(abi.encode(e));
    }

    /// @dev Wherever its offsets point, evidence says what it said or nothing: each part is read once, or the same way each time.
    function test_noWordOfTheEvidenceCanBeReadInTwoWays(uint256 index, uint256 value, uint256 near) public {
        IDcapVerifier.Evidence memory e = evidenceOf(tdxCase(5));
        store.grantOnly(keccak256(abi.encode(e.pck, e.current.tcb, e.current.qe)));
        bytes memory evidence = abi.encode(e);
        bytes32 claims = keccak256(abi.encode(verifier.verify(evidence)));
        // An offset that points to zero, just before or behind it, or somewhere.
        index = bound(index, 0, evidence.length / 32 - 1);
        if (near % 4 < 2) value = type(uint256).max - 32 * bound(value, 0, evidence.length / 16) - 31 * (near % 2);
        else if (near % 4 == 2) value = bound(value, 0, evidence.length + 64);
        put(evidence, 32 * index, abi.encode(value));
        try verifier.verify(evidence) returns (IEvidenceVerifier.Claims memory other) {
            assertEq(keccak256(abi.encode(other)), claims);
        } catch {}
    }

    /// @dev s and n - s sign the same: nothing is keyed by a signature, so the claims are the same, too.
    function test_aMalleatedSignatureGivesTheSameClaims() public view {
        uint256 n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;
        IDcapVerifier.Evidence memory e = evidenceOf(sgxCase());
        bytes32 claims = keccak256(abi.encode(verifier.verify(abi.encode(e))));
        uint256 s = 48 + 384 + 4 + 32;
        put(e.quote, s, abi.encode(n - uint256(cut(e.quote, s))));
        assertEq(keccak256(abi.encode(verifier.verify(abi.encode(e)))), claims);
    }

    function test_aShorterQuoteIsRefused(uint256 length) public {
        for (uint8 version = 3; version <= 5; ++version) {
            IDcapVerifier.Evidence memory e = evidenceOf(_of(version));
            uint256 whole = e.quote.length;
            uint256 less = bound(length, 0, whole - 1);
            bytes memory quote = e.quote;
            assembly ("memory-safe") {
                mstore(quote, less)
            }
            uint256 needed = less < 1052 ? 1052 : whole;
            refusesBytes(
                abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_TooShort.selector, less, needed)
            );
        }
    }

    function test_trailingBytesAreRefused() public {
        for (uint8 version = 3; version <= 5; ++version) {
            IDcapVerifier.Evidence memory e = evidenceOf(_of(version));
            uint256 whole = e.quote.length;
            e.quote = bytes.concat(e.quote, hex"00");
            refusesBytes(
                abi.encode(e),
                abi.encodeWithSelector(IDcapVerifier.DcapVerifier_TrailingBytes.selector, whole + 1, whole)
            );
        }
    }

    function test_otherHeadersAreRefused() public {
        _refusesHeader(3, 0, little2(2), "version");
        _refusesHeader(3, 0, little2(6), "version");
        _refusesHeader(3, 2, little2(3), "attestationKeyType");
        _refusesHeader(3, 4, little4(0x81), "teeType");
        _refusesHeader(4, 4, little4(0), "teeType");
        _refusesHeader(4, 4, little4(0x10081), "teeType");
        _refusesHeader(5, 4, little4(0), "teeType");
        _refusesHeader(5, 12, hex"00", "qeVendor");
        _refusesHeader(3, 27, hex"08", "qeVendor");
        Case memory c = tdxCase(5);
        put(c.bodyKind, 0, little2(1));
        refuses(c, _badHeader("bodyType"));
        // TD 1.5 extended: registers that no measurement covers (R3).
        put(c.bodyKind, 0, little2(4));
        refuses(c, _badHeader("bodyType"));
    }

    function test_lengthsThatDoNotFitAreRefused() public {
        Case memory c = tdxCase(5);
        put(c.bodyKind, 2, little4(649));
        refuses(c, _badLength("body", 649, 648));

        uint256 section = 128 + 384 + 64 + 2 + 32 + 6 + CHAIN_LENGTH;
        c = sgxCase();
        c.sectionLength = little4(section - 1);
        refuses(c, _badLength("section", section - 1, section));
        c = sgxCase();
        c.tail = bytes.concat(little2(5), little4(CHAIN_LENGTH + 1));
        refuses(c, _badLength("section", section, section + 1));

        c = tdxCase(4);
        c.outer = bytes.concat(little2(6), little4(section - 129));
        refuses(c, _badLength("qe", section - 129, section - 128));
        c = tdxCase(4);
        c.authLength = little2(31);
        refuses(c, _badLength("qeAuth", 31, 32));
    }

    function test_otherCertificationDataIsRefused() public {
        Case memory c = sgxCase();
        c.tail = bytes.concat(little2(4), little4(CHAIN_LENGTH));
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongCertificationType.selector, 4));
        c = tdxCase(4);
        put(c.outer, 0, little2(5));
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongCertificationType.selector, 5));
    }

    /// @dev R3
    function test_reservedBytesAreRefused(uint256 which) public {
        uint256[4] memory starts = [uint256(20), 96, 160, 262];
        uint256[4] memory lengths = [uint256(12), 32, 32, 42];
        uint256 range = which % 4;
        uint256 bit = starts[range] * 8 + which / 4 % (lengths[range] * 8);
        Case memory c = sgxCase();
        flip(c.body, bit);
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ReservedBytes.selector, "report"));
        c = tdxCase(4);
        flip(c.qeReport, bit);
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ReservedBytes.selector, "qeReport"));
    }

    /// @dev R4
    function test_debugIsRefused() public {
        Case memory c = sgxCase();
        flip(c.body, ATTRIBUTES * 8 + 1);
        refuses(c, IDcapVerifier.DcapVerifier_Debug.selector);
        for (uint256 bit; bit < 8; ++bit) {
            c = tdxCase(4);
            flip(c.body, TD_ATTRIBUTES * 8 + bit);
            refuses(c, IDcapVerifier.DcapVerifier_Debug.selector);
        }
    }

    /// @dev R3. The bits are numbered as in Intel's table: of a little-endian number.
    function test_tdAttributesAreThoseThatTheTableAllows() public {
        for (uint256 bit = 8; bit < 64; ++bit) {
            Case memory c = tdxCase(5);
            flip(c.body, TD_ATTRIBUTES * 8 + bit);
            bool fine = bit == 16 || bit >= 18 && bit <= 22 || bit == 27 || bit == 30 || bit == 31 || bit >= 62;
            if (fine) {
                assertEq(check(c).reportData, REPORT_DATA);
            } else {
                bytes8 attributes = bytes8(cut(c.body, TD_ATTRIBUTES));
                refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadTdAttributes.selector, attributes));
            }
        }
    }

    /// @dev R3
    function test_aServiceTdIsRefused() public {
        for (uint256 i; i < 48; ++i) {
            Case memory c = tdxCase(5);
            c.body[MRSERVICETD + i] = 0x80;
            refuses(c, IDcapVerifier.DcapVerifier_ServiceTd.selector);
        }
    }

    function test_aTdReport15WithoutVersionsOfNowIsRefused() public {
        Case memory c = tdxCase(5);
        put(c.body, TEE_TCB_SVN2_AT, new bytes(16));
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ReservedBytes.selector, "teeTcbSvn2"));
    }

    /// @dev R2
    function test_reportDataThatGoesOnIsRefused(uint256 bit) public {
        bit = bound(bit, 0, 255);
        Case memory c = sgxCase();
        flip(c.body, (REPORT_DATA_AT + 32) * 8 + bit);
        refuses(c, IDcapVerifier.DcapVerifier_ReportDataNotZero.selector);
        c = tdxCase(4);
        flip(c.body, (TD_REPORT_DATA_AT + 32) * 8 + bit);
        refuses(c, IDcapVerifier.DcapVerifier_ReportDataNotZero.selector);
    }

    function test_aQuoteSignedByAnotherKeyIsRefused() public {
        for (uint8 version = 3; version <= 5; ++version) {
            Case memory c = _of(version);
            bytes memory signed = bytes.concat(c.header, c.bodyKind, c.body);
            IDcapVerifier.Evidence memory e = evidenceOf(c);
            put(e.quote, signed.length + 4, signP256(PCK_KEY, signed));
            refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadQuoteSignature.selector));
        }
    }

    function test_aQuotingEnclaveOfAnotherPlatformIsRefused() public {
        Case memory c = sgxCase();
        (uint256 x, uint256 y) = vm.publicKeyP256(ATTESTATION_KEY);
        c.pck.x = bytes32(x);
        c.pck.y = bytes32(y);
        refuses(c, IDcapVerifier.DcapVerifier_BadQeSignature.selector);
    }

    /// @dev A zero key is no point, and what the precompile does not know it does not call valid.
    function test_aKeyOffTheCurveIsRefused() public {
        Case memory c = sgxCase();
        c.pck.x = 0;
        c.pck.y = 0;
        refuses(c, IDcapVerifier.DcapVerifier_BadQeSignature.selector);
    }

    function test_withoutThePrecompileNothingIsValid() public {
        bytes memory evidence = encode(sgxCase());
        vm.mockCall(address(0x100), "", "");
        refusesBytes(evidence, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadQeSignature.selector));
    }

    function test_aPrecompileThatAnswersSomethingElseMakesNothingValid() public {
        bytes memory evidence = encode(sgxCase());
        bytes[3] memory answers =
            [abi.encode(uint256(2)), abi.encodePacked(uint248(0), uint248(1)), abi.encode(uint256(1), uint256(1))];
        for (uint256 i; i < 3; ++i) {
            vm.mockCall(address(0x100), "", answers[i]);
            refusesBytes(evidence, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadQeSignature.selector));
        }
    }

    function test_anAttestationKeyThatTheQuotingEnclaveDidNotNameIsRefused() public {
        Case memory c = sgxCase();
        IDcapVerifier.Evidence memory e = evidenceOf(c);
        bytes memory signed = bytes.concat(c.header, c.body);
        uint256 other = uint256(keccak256("another attestation key"));
        (uint256 x, uint256 y) = vm.publicKeyP256(other);
        put(e.quote, signed.length + 4, bytes.concat(signP256(other, signed), abi.encode(x, y)));
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_KeyNotBound.selector));

        e = evidenceOf(c);
        // The last byte of the authentication data.
        e.quote[e.quote.length - 7] ^= 0x01;
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_KeyNotBound.selector));
    }

    function test_anotherQuotingEnclaveIsRefused() public {
        _refusesQe(128, hex"00", "mrSigner");
        _refusesQe(159, hex"00", "mrSigner");
        _refusesQe(256, little2(2), "isvProdId");
        _refusesQe(256, little2(0x0101), "isvProdId");
        _refusesQe(16, hex"01", "miscSelect");
        _refusesQe(ATTRIBUTES, hex"14", "attributes");
        Case memory c = sgxCase();
        // Whatever the mask leaves out.
        c.current.qe.attributesMask = 0;
        put(c.qeReport, ATTRIBUTES, hex"17");
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongQe.selector, "debug"));
    }

    function test_whatAMaskLeavesOutMayBeAnything() public view {
        Case memory c = sgxCase();
        c.current.qe.miscSelectMask = 0xFFFFFFFE;
        put(c.qeReport, 16, hex"ffffff01");
        c.current.qe.miscSelect = 0xFFFFFF00;
        put(c.qeReport, ATTRIBUTES + 8, hex"ffff");
        assertEq(check(c).reportData, REPORT_DATA);
    }

    /// @dev R3: every register counts, and nothing else does.
    function test_everyRegisterIsMeasuredAndNothingElse() public view {
        bytes32 measured = check(sgxCase()).measurement;
        for (uint256 i; i < 384; ++i) {
            bool reserved = i >= 20 && i < 32 || i >= 96 && i < 128 || i >= 160 && i < 192 || i >= 262 && i < 304;
            if (reserved || i >= 352) continue;
            Case memory c = sgxCase();
            c.body[i] ^= 0x80;
            bool same = check(c).measurement == measured;
            assertEq(same, i < 16 || i >= 320);
        }
        measured = check(tdxCase(5)).measurement;
        // Not the attributes, of which few bits are free, nor what the status is judged by.
        for (uint256 i = 128; i < 552; ++i) {
            Case memory c = tdxCase(5);
            c.body[i] ^= 0x80;
            assertEq(check(c).measurement == measured, i >= 520);
        }
    }

    function _of(uint8 version) private pure returns (Case memory) {
        return version == 3 ? sgxCase() : tdxCase(version);
    }

    function _refusesHeader(uint8 version, uint256 start, bytes memory value, string memory field) private {
        Case memory c = _of(version);
        put(c.header, start, value);
        refuses(c, _badHeader(field));
    }

    function _refusesQe(uint256 start, bytes memory value, string memory field) private {
        Case memory c = sgxCase();
        put(c.qeReport, start, value);
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongQe.selector, field));
    }

    function _badHeader(string memory field) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadHeader.selector, field);
    }

    function _badLength(string memory field, uint256 got, uint256 expected) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadLength.selector, field, got, expected);
    }
}
