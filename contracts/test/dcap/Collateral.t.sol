// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {CodeStore} from "../../src/libraries/CodeStore.sol";
import {Der} from "../../src/libraries/Der.sol";
import {PckExtension} from "../../src/libraries/PckExtension.sol";
import {RevocationList} from "../../src/libraries/RevocationList.sol";
import {X509} from "../../src/libraries/X509.sol";
import {Text} from "../utils/Text.sol";
import {CertificateKit} from "./CertificateKit.sol";

/// @notice What the store takes and what it refuses, by name.
contract CollateralTest is CertificateKit {
    using Text for string;

    IDcapCollateral private store;
    bytes32 private ca;
    bytes32 private tcbSigner;

    uint40 private constant NOW = FROM + 30 days;

    function setUp() public {
        vm.warp(NOW);
        store = create(encode(rootCertificate()));
        ca = store.postIssuer(encode(caCertificate()));
        tcbSigner = store.postIssuer(encode(tcbCertificate()));
        store.postCrl(encode(rootList()), store.anchor());
        store.postCrl(encode(caList()), ca);
    }

    // The root

    function test_anchorIsTheDigestOfTheRoot() public view {
        assertEq(store.anchor(), sha256(encode(rootCertificate())));
        IDcapCollateral.Issuer memory root = store.issuer(store.anchor());
        (uint256 x, uint256 y) = vm.publicKeyP256(ROOT_KEY);
        assertEq(root.x, bytes32(x));
        assertEq(root.y, bytes32(y));
        assertEq(root.name, keccak256(name("Test SGX Root CA")));
        assertEq(root.serial, 1);
        assertEq(root.notBefore, FROM);
        assertEq(root.notAfter, TO);
        assertTrue(root.ca);
    }

    /// @dev R4
    function test_onlyIntelsRootIsTakenOutsideDevelopmentChains() public {
        bytes memory root = encode(rootCertificate());
        uint256[3] memory development = [uint256(31_337), 1337, 31_338];
        for (uint256 i; i < 3; ++i) {
            vm.chainId(development[i]);
            create(root);
        }
        uint256[4] memory other = [uint256(1), 31_339, 11_155_111, 0x7a6900000000];
        for (uint256 i; i < 4; ++i) {
            vm.chainId(other[i]);
            vm.expectRevert(
                abi.encodeWithSelector(IDcapCollateral.DcapCollateral_NotADevelopmentChain.selector, other[i])
            );
            this.create(root);
            assertEq(
                create(vm.readFileBinary("oracle/attestation/roots/intel-sgx-root-ca.der")).anchor(),
                0x44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3
            );
        }
    }

    function test_rootMustHaveSignedItself() public {
        Certificate memory c = rootCertificate();
        c.signerKey = OTHER_KEY;
        refusesRoot(c, IDcapCollateral.DcapCollateral_BadSignature.selector);
        c = rootCertificate();
        c.issuer = name("Another");
        refusesRoot(c, IDcapCollateral.DcapCollateral_BadSignature.selector);
    }

    function test_rootMustBeACaAboveOthers() public {
        Certificate memory c = rootCertificate();
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_CERTIFICATES), "");
        refusesRoot(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(CA_CONSTRAINTS), usage(SIGNS_CERTIFICATES), "");
        refusesRoot(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(hex"30060101ff020101"), usage(SIGNS_DATA), "");
        refusesRoot(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(hex"30030101ff"), usage(SIGNS_CERTIFICATES), "");
        create(encode(c));
    }

    function test_withoutThePrecompileThereIsNoStore() public {
        bytes memory root = encode(rootCertificate());
        vm.mockCall(address(0x100), "", "");
        vm.expectRevert(IDcapCollateral.DcapCollateral_NoP256.selector);
        this.create(root);
        // One that calls everything valid is none either.
        vm.mockCall(address(0x100), "", abi.encode(1));
        vm.expectRevert(IDcapCollateral.DcapCollateral_NoP256.selector);
        this.create(root);
    }

    // Issuers

    function test_keepsAnIssuerUnderWhatIsSignedOfIt() public {
        IDcapCollateral.Issuer memory kept = store.issuer(ca);
        (uint256 x,) = vm.publicKeyP256(CA_KEY);
        assertEq(kept.x, bytes32(x));
        assertTrue(kept.ca);
        assertEq(kept.serial, 2);
        assertFalse(store.issuer(tcbSigner).ca);
        assertEq(store.postIssuer(encode(caCertificate())), ca);
    }

    function test_refusesAnIssuerThatTheRootDidNotSign() public {
        Certificate memory c = caCertificate();
        c.signerKey = CA_KEY;
        refusesIssuer(c, IDcapCollateral.DcapCollateral_BadSignature.selector);
        c = caCertificate();
        c.issuer = name("Test SGX PCK Platform CA");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
    }

    function test_refusesAnIssuerOfAnotherRole() public {
        Certificate memory c = caCertificate();
        c.subject = name("Test SGX PCK Certificate");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.subject = name("Test SGX CA PCK");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.subject = name("Test SGX TCB Signing");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c = caCertificate();
        c.extensions = extensions(constraints(hex"30060101ff020101"), usage(SIGNS_CERTIFICATES), "");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(hex"30030101ff"), usage(SIGNS_CERTIFICATES), "");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(CA_CONSTRAINTS), usage(hex"03020204"), "");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_CERTIFICATES), "");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c = tcbCertificate();
        c.subject = name("Test SGX PCK Platform CA");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c = tcbCertificate();
        c.extensions = extensions(constraints(NO_CA), usage(hex"03020640"), "");
        refusesIssuer(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
    }

    function test_refusesTwoCommonNames() public {
        Certificate memory c = caCertificate();
        bytes memory common = der(0x31, der(0x30, bytes.concat(hex"0603550403", der(0x0c, "SGX PCK Test CA"))));
        c.subject = der(0x30, bytes.concat(common, common));
        refusesIssuer(c, X509.X509_BadName.selector);
    }

    // Certificates, by the example of a PCK

    function test_keepsAPckAsTheDigestOfItsParts() public {
        bytes32 digest = store.postPck(encode(pckCertificate()), ca);
        assertEq(digest, keccak256(abi.encode(pck())));
        assertTrue(store.isPck(digest));
        assertFalse(store.isPck(keccak256("another")));
    }

    function test_takesASignatureWithAHighOrALowS() public {
        bytes memory certificate = encode(pckCertificate());
        bytes32 digest = store.postPck(certificate, ca);
        assertEq(store.postPck(encodeMalleated(pckCertificate()), ca), digest);
    }

    function test_refusesAPckOfAnotherIssuer() public {
        bytes memory certificate = encode(pckCertificate());
        refusesPckOf(certificate, keccak256("none"), IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
        refusesPckOf(certificate, tcbSigner, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        refusesPckOf(certificate, store.anchor(), IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        Certificate memory c = pckCertificate();
        c.issuer = name("Test SGX PCK Processor CA");
        refusesPck(c, IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
        c = pckCertificate();
        c.signerKey = OTHER_KEY;
        refusesPck(c, IDcapCollateral.DcapCollateral_BadSignature.selector);
    }

    function test_refusesAPckThatMayIssueOrMayNotSign() public {
        Certificate memory c = pckCertificate();
        bytes memory sgx = extension(SGX, "", sgxExtension());
        c.extensions = extensions(constraints(CA_CONSTRAINTS), usage(SIGNS_DATA), sgx);
        refusesPck(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        c.extensions = extensions(constraints(NO_CA), usage(hex"03020640"), sgx);
        refusesPck(c, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
    }

    function test_refusesAnotherVersionAlgorithmOrKey() public {
        Certificate memory c = pckCertificate();
        c.version = hex"a003020101";
        refusesPck(c, X509.X509_WrongVersion.selector);
        c = pckCertificate();
        c.algorithm = hex"300a06082a8648ce3d040303";
        refusesPck(c, X509.X509_WrongAlgorithm.selector);
        c = pckCertificate();
        c.outerAlgorithm = hex"300c06082a8648ce3d0403020500";
        refusesPck(c, X509.X509_WrongAlgorithm.selector);
        c = pckCertificate();
        c.publicKey =
            hex"3039301306072a8648ce3d020106082a8648ce3d030107032200021234567890123456789012345678901234567890123456789012345678901234";
        refusesPck(c, X509.X509_WrongKey.selector);
        c = pckCertificate();
        c.publicKey = Text.slice(c.publicKey, 0, 27);
        refusesPck(c, Der.Der_WrongTag.selector);
        c.publicKey = "";
        refusesPck(c, X509.X509_WrongKey.selector);
    }

    function test_refusesASerialNumberThatIsNotPositiveOrTooLong() public {
        Certificate memory c = pckCertificate();
        c.serial = hex"020100";
        refusesPck(c, X509.X509_BadSerial.selector);
        c.serial = hex"0201ff";
        refusesPck(c, Der.Der_BadInteger.selector);
        c.serial = integer(1 << 160);
        refusesPck(c, Der.Der_BadInteger.selector);
        c.serial = hex"02020001";
        refusesPck(c, Der.Der_BadInteger.selector);
        c.serial = hex"0200";
        refusesPck(c, Der.Der_BadInteger.selector);
        c.serial = integer(type(uint160).max);
        store.postPck(encode(c), ca);
    }

    function test_refusesTimesInAnotherForm() public {
        bytes memory before = hex"170d3234303130313030303030305a";
        bytes[11] memory bad = [
            bytes(hex"170d3530303130313030303030305a"), // 1950
            hex"170d3235303131333030303030305b", // no Z
            hex"170d3235313330313030303030305a", // month 13
            hex"170d3235303233303030303030305a", // 30 February
            hex"170b323530313031303030305a", // no seconds
            hex"180f32303235303130313030303030305a", // 2025 as GeneralizedTime
            hex"170d323530313031303030303a305a", // no digit
            hex"1811323530313031303030302b303030305a5a",
            hex"170d32353031303130303030303a5a", // no digit, yet fewer than sixty seconds
            hex"170e3235303130313030303030305a5a",
            hex"181032303530303130313030303030305a5a"
        ];
        for (uint256 i; i < bad.length; ++i) {
            Certificate memory c = pckCertificate();
            c.validity = der(0x30, bytes.concat(before, bad[i]));
            refusesPck(c, Der.Der_BadTime.selector);
        }
        Certificate memory later = pckCertificate();
        later.validity = der(0x30, bytes.concat(before, hex"180f32303530303130313030303030305a"));
        IDcapCollateral.Pck memory parts = pck();
        parts.notAfter = 2_524_608_000;
        assertEq(store.postPck(encode(later), ca), keccak256(abi.encode(parts)));
    }

    function test_refusesExtensionsThatItDoesNotKnowTwiceOrInAnotherForm() public {
        bytes memory sgx = extension(SGX, "", sgxExtension());
        Certificate memory c = pckCertificate();
        c.extensions = extensions(
            constraints(NO_CA), usage(SIGNS_DATA), bytes.concat(sgx, extension(hex"0603551d25", TRUE, hex"3000"))
        );
        refusesPck(c, X509.X509_UnknownCriticalExtension.selector);
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), bytes.concat(sgx, sgx));
        refusesPck(c, X509.X509_DuplicateExtension.selector);
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), bytes.concat(sgx, usage(SIGNS_DATA)));
        refusesPck(c, X509.X509_DuplicateExtension.selector);
        c.extensions = extensions(constraints(NO_CA), "", sgx);
        refusesPck(c, X509.X509_BadExtension.selector);
        c.extensions = extensions("", usage(SIGNS_DATA), sgx);
        refusesPck(c, X509.X509_BadExtension.selector);
        bytes[4] memory usages = [bytes(hex"030207c0"), hex"030306c000", hex"030200c0", hex"030208c0"];
        for (uint256 i; i < usages.length; ++i) {
            c.extensions = extensions(constraints(NO_CA), usage(usages[i]), sgx);
            refusesPck(c, X509.X509_BadExtension.selector);
        }
        c.extensions = extensions(extension(BASIC_CONSTRAINTS, hex"010101", NO_CA), usage(SIGNS_DATA), sgx);
        refusesPck(c, X509.X509_BadExtension.selector);
        c.extensions = extensions(constraints(hex"3003010100"), usage(SIGNS_DATA), sgx);
        refusesPck(c, X509.X509_BadExtension.selector);
        c.extensions = "";
        refusesPck(c, Der.Der_WrongTag.selector);
    }

    function test_refusesObjectIdentifiersInAnotherForm() public {
        bytes[5] memory bad = [
            bytes(hex"0600"),
            hex"0603551d8e", // no end
            hex"0604551d8001", // a number with a zero before it
            hex"0603883703", // 2.999.3, the first two numbers in two bytes
            hex"06202a030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021"
        ];
        for (uint256 i; i < bad.length; ++i) {
            Certificate memory c = pckCertificate();
            c.extensions = extensions(
                constraints(NO_CA),
                usage(SIGNS_DATA),
                bytes.concat(extension(SGX, "", sgxExtension()), extension(bad[i], "", hex"0500"))
            );
            refusesPck(c, X509.X509_BadExtension.selector);
        }
    }

    function test_refusesNamesInAnotherForm() public {
        bytes[4] memory bad = [
            bytes(hex"06035505030c0141"), // 2.5.5.3
            hex"06035504830c0141", // 2.5.4 and no end
            hex"06025504030c0141",
            hex"0303550403" hex"0c0141"
        ];
        for (uint256 i; i < bad.length; ++i) {
            Certificate memory c = pckCertificate();
            c.subject = der(0x30, der(0x31, der(0x30, bad[i])));
            refusesPck(c, X509.X509_BadName.selector);
        }
        Certificate memory two = pckCertificate();
        two.subject = der(0x30, der(0x31, bytes.concat(der(0x30, hex"06035504030c0141"), hex"0500")));
        refusesPck(two, Der.Der_TrailingBytes.selector);
        two.subject = der(0x30, der(0x31, der(0x30, hex"06035504030c01410500")));
        refusesPck(two, Der.Der_TrailingBytes.selector);
        two.subject = der(0x30, der(0x31, der(0x30, hex"0603550403020141")));
        refusesPck(two, Der.Der_WrongTag.selector);
    }

    function test_refusesBytesThatBelongToNothing() public {
        Certificate memory c = pckCertificate();
        c.behind = hex"00";
        refusesPck(c, Der.Der_TrailingBytes.selector);
        c = pckCertificate();
        c.extensions = bytes.concat(c.extensions, hex"0500");
        refusesPck(c, Der.Der_TrailingBytes.selector);
        c = pckCertificate();
        c.validity =
            der(0x30, bytes.concat(hex"170d3234303130313030303030305a170d3235303130313030303030305a", hex"0500"));
        refusesPck(c, Der.Der_TrailingBytes.selector);
        c = pckCertificate();
        c.extensions = extensions(constraints(hex"30000500"), usage(SIGNS_DATA), extension(SGX, "", sgxExtension()));
        refusesPck(c, Der.Der_TrailingBytes.selector);
    }

    function test_refusesLengthsInAnotherForm() public {
        Certificate memory c = pckCertificate();
        c.issuer = bytes.concat(hex"3080", c.issuer, hex"0000");
        refusesPck(c, Der.Der_BadLength.selector);
        c.issuer = hex"30810a310830060603550403";
        refusesPck(c, Der.Der_BadLength.selector);
        c.issuer = hex"308200803100";
        refusesPck(c, Der.Der_BadLength.selector);
        c.issuer = hex"30830000003100";
        refusesPck(c, Der.Der_BadLength.selector);
        c.issuer = hex"3082ffff3100";
        refusesPck(c, Der.Der_BadLength.selector);
    }

    function testFuzz_noBitOfACertificateIsFree(uint256 place) public {
        bytes memory certificate = encode(pckCertificate());
        place = bound(place, 0, certificate.length * 8 - 1);
        certificate[place / 8] ^= bytes1(uint8(1 << place % 8));
        vm.expectRevert();
        store.postPck(certificate, ca);
    }

    // The SGX extension

    function test_refusesAPckWithoutItsExtension() public {
        Certificate memory c = pckCertificate();
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), "");
        refusesPck(c, PckExtension.PckExtension_NoSgxExtension.selector);
    }

    function test_refusesACpuSvnThatIsNotItsComponents(uint256 bit) public {
        bytes16 other = CPU_SVN ^ bytes16(uint128(1) << uint128(bound(bit, 0, 127)));
        refusesSgx(sgxExtension(tcbFields(CPU_SVN, other)), 0x0212);
        refusesSgx(sgxExtension(tcbFields(other, CPU_SVN)), 0x0212);
    }

    function test_refusesFieldsInAnotherOrderOrForm() public {
        bytes memory tcbs = tcbFields(CPU_SVN, CPU_SVN);
        bytes memory ppid = field(1, der(0x04, hex"000102030405060708090a0b0c0d0e0f"));
        bytes memory rest =
            bytes.concat(field(3, der(0x04, hex"0102")), field(4, der(0x04, hex"00a067110000")), field(5, hex"0a0100"));
        refusesSgx(der(0x30, bytes.concat(field(2, tcbs), ppid, rest)), 1);
        refusesSgx(der(0x30, bytes.concat(ppid, rest)), 2);
        refusesSgx(der(0x30, bytes.concat(field(1, der(0x04, hex"00")), field(2, tcbs), rest)), 1);
        refusesSgx(der(0x30, bytes.concat(ppid, field(2, tcbs), field(4, der(0x04, hex"0102")))), 3);
        refusesSgx(der(0x30, bytes.concat(ppid, field(2, tcbs), rest, field(9, hex"0500"))), 6);
        refusesSgx(der(0x30, bytes.concat(ppid, field(2, tcbs), field(3, hex"040201020500"))), 3);
        // The last byte of field 5's name is outside of it.
        bytes memory outside = bytes.concat(field(4, der(0x04, hex"00a067110000")), hex"300b060a2a864886f84d010d0105");
        refusesSgx(der(0x30, bytes.concat(ppid, field(2, tcbs), field(3, der(0x04, hex"0102")), outside)), 5);
        refusesSgx(
            der(
                0x30,
                bytes.concat(ppid, field(2, tcbs), rest, field(6, hex"0500"), field(7, hex"0500"), field(8, hex"0500"))
            ),
            8
        );
    }

    function test_refusesComponentsInAnotherForm() public {
        bytes memory good = tcbFields(CPU_SVN, CPU_SVN);
        bytes memory first = tcbField(1, hex"02010e");
        bytes[9] memory bad = [
            tcbField(2, hex"0202008e"),
            tcbField(1, hex"0402008e"),
            tcbField(1, hex"0202018e"),
            tcbField(1, hex"0202000e"),
            tcbField(1, hex"0201ff"),
            tcbField(1, hex"0203000100"),
            tcbField(2, hex"02010e"),
            tcbField(1, hex"04010e"),
            tcbField(1, hex"02018e")
        ];
        for (uint256 i; i < bad.length; ++i) {
            refusesSgx(sgxExtension(replaced(good, first, bad[i])), 0x0201);
        }
    }

    function test_refusesWhatFollowsTheComponentsInAnotherForm() public {
        bytes memory good = tcbFields(CPU_SVN, CPU_SVN);
        bytes memory svn = tcbField(17, integer(13));
        bytes[3] memory numbers =
            [tcbField(19, integer(13)), tcbField(17, hex"02010d0500"), bytes(hex"300c060b2a864886f84d010d010211")];
        for (uint256 i; i < 2; ++i) {
            refusesSgx(sgxExtension(replaced(good, svn, numbers[i])), 0x0211);
        }
        Certificate memory c = pckCertificate();
        c.extensions = extensions(
            constraints(NO_CA), usage(SIGNS_DATA), extension(SGX, "", sgxExtension(replaced(good, svn, numbers[2])))
        );
        refusesPck(c, Der.Der_WrongTag.selector);

        bytes memory all = abi.encodePacked(CPU_SVN);
        bytes memory last = tcbField(18, der(0x04, all));
        bytes[5] memory octets = [
            bytes.concat(last, hex"0500"),
            tcbField(19, der(0x04, all)),
            tcbField(18, der(0x04, bytes.concat(all, hex"00"))),
            tcbField(18, bytes.concat(der(0x04, Text.slice(all, 0, 15)), hex"00")),
            tcbField(18, bytes.concat(der(0x04, all), hex"0500"))
        ];
        for (uint256 i; i < octets.length; ++i) {
            refusesSgx(sgxExtension(replaced(good, last, octets[i])), 0x0212);
        }
    }

    /// @dev The length of the whole changes with a part of it.
    function replaced(bytes memory fields, bytes memory part, bytes memory by) private pure returns (bytes memory) {
        bytes memory all = bytes(string(fields).replace(string(part), string(by)));
        return der(0x30, Text.slice(all, 4, all.length));
    }

    function test_platformsOfSeveralPackagesHaveMoreFields() public {
        Certificate memory c = pckCertificate();
        bytes memory tcbs = tcbFields(CPU_SVN, CPU_SVN);
        c.extensions = extensions(
            constraints(NO_CA),
            usage(SIGNS_DATA),
            extension(
                SGX,
                "",
                der(
                    0x30,
                    bytes.concat(
                        field(1, der(0x04, hex"000102030405060708090a0b0c0d0e0f")),
                        field(2, tcbs),
                        field(3, der(0x04, hex"0102")),
                        field(4, der(0x04, hex"00a067110000")),
                        field(5, hex"0a0101"),
                        field(6, der(0x04, hex"00112233445566778899aabbccddeeff")),
                        field(7, der(0x30, hex"0500"))
                    )
                )
            )
        );
        assertEq(store.postPck(encode(c), ca), keccak256(abi.encode(pck())));
    }

    function testFuzz_readsAnyPlatform(bytes16 cpuSvn) public {
        Certificate memory c = pckCertificate();
        c.extensions = extensions(
            constraints(NO_CA), usage(SIGNS_DATA), extension(SGX, "", sgxExtension(tcbFields(cpuSvn, cpuSvn)))
        );
        IDcapCollateral.Pck memory parts = pck();
        parts.cpuSvn = cpuSvn;
        assertEq(store.postPck(encode(c), ca), keccak256(abi.encode(parts)));
    }

    // Revocation lists

    function test_keepsARevocationList() public view {
        IDcapCollateral.Crl memory kept = store.crl(ca);
        assertEq(kept.issuedAt, FROM);
        assertEq(kept.nextUpdate, TO);
        assertEq(kept.serials.code, abi.encodePacked(bytes1(0), uint160(77), bytes20(keccak256("revoked"))));
        assertTrue(store.isRevoked(ca, 77));
        assertTrue(store.isRevoked(ca, uint160(bytes20(keccak256("revoked")))));
        assertFalse(store.isRevoked(ca, 78));
        assertFalse(store.isRevoked(store.anchor(), 77));
        assertEq(store.crl(store.anchor()).serials, address(0));
    }

    function test_aListMustBeNewer() public {
        refusesList(caList(), IDcapCollateral.DcapCollateral_NotNewer.selector);
        List memory list = caList();
        list.thisUpdate = hex"170d3233313233313233353935395a";
        refusesList(list, IDcapCollateral.DcapCollateral_NotNewer.selector);
        list.thisUpdate = hex"170d3234303130313030303030315a";
        list.revoked = "";
        store.postCrl(encode(list), ca);
        assertEq(store.crl(ca).issuedAt, FROM + 1);
        assertFalse(store.isRevoked(ca, 77));
    }

    function test_aNewListOfTheSameSerialsKeepsTheirStore() public {
        address serials = store.crl(ca).serials;
        List memory list = caList();
        list.thisUpdate = hex"170d3234303130313030303030315a";
        store.postCrl(encode(list), ca);
        assertEq(store.crl(ca).serials, serials);
        assertEq(store.crl(ca).issuedAt, FROM + 1);
        list.thisUpdate = hex"170d3234303130313030303030325a";
        list.revoked = bytes.concat(list.revoked, entry(79));
        store.postCrl(encode(list), ca);
        assertTrue(store.isRevoked(ca, 79));
        assertTrue(store.isRevoked(ca, 77));
        assertFalse(store.isRevoked(ca, 78));
    }

    function test_refusesAListOfAnotherIssuer() public {
        List memory list = newList();
        list.signerKey = ROOT_KEY;
        refusesList(list, IDcapCollateral.DcapCollateral_BadSignature.selector);
        list = newList();
        list.issuer = name("Test SGX Root CA");
        refusesList(list, IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
        refusesListOf(encode(newList()), keccak256("none"), IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
        refusesListOf(encode(newList()), tcbSigner, IDcapCollateral.DcapCollateral_WrongIssuer.selector);
        refusesListOf(encode(newList()), store.anchor(), IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
    }

    function test_refusesListsInAnotherForm() public {
        List memory list = newList();
        list.version = "";
        refusesList(list, RevocationList.RevocationList_WrongVersion.selector);
        list.version = hex"020100";
        refusesList(list, RevocationList.RevocationList_WrongVersion.selector);
        list = newList();
        list.algorithm = hex"300a06082a8648ce3d040303";
        refusesList(list, X509.X509_WrongAlgorithm.selector);
        list = newList();
        list.nextUpdate = "";
        refusesList(list, Der.Der_WrongTag.selector);
        list = newList();
        list.extensions = "";
        refusesList(list, Der.Der_WrongTag.selector);
        list = newList();
        // issuingDistributionPoint: a list of some certificates only
        list.extensions = der(0xa0, der(0x30, extension(hex"0603551d1c", TRUE, hex"3000")));
        refusesList(list, RevocationList.RevocationList_CriticalExtension.selector);
        list = newList();
        // certificateIssuer: an entry of another CA
        list.revoked = der(
            0x30,
            bytes.concat(
                integer(5), hex"170d3234303130313030303030305a", der(0x30, extension(hex"0603551d1d", TRUE, hex"3000"))
            )
        );
        refusesList(list, RevocationList.RevocationList_CriticalExtension.selector);
        list = newList();
        list.revoked = der(0x30, bytes.concat(integer(5), hex"170d3234303130313030303030305a0500"));
        refusesList(list, Der.Der_WrongTag.selector);
        list.revoked = der(0x30, bytes.concat(integer(0), hex"170d3234303130313030303030305a"));
        refusesList(list, X509.X509_BadSerial.selector);
        list.revoked = der(0x30, bytes.concat(integer(1 << 160), hex"170d3234303130313030303030305a"));
        refusesList(list, Der.Der_BadInteger.selector);
    }

    function testFuzz_noBitOfAListIsFree(uint256 place) public {
        bytes memory list = encode(newList());
        place = bound(place, 0, list.length * 8 - 1);
        list[place / 8] ^= bytes1(uint8(1 << place % 8));
        vm.expectRevert();
        store.postCrl(list, ca);
    }

    function testFuzz_knowsEverySerialOfAList(uint160[] memory serials, uint160 other) public {
        List memory list = newList();
        list.revoked = "";
        bool listed;
        uint256 count = serials.length > 40 ? 40 : serials.length;
        for (uint256 i; i < count; ++i) {
            if (serials[i] == 0) serials[i] = 1;
            listed = listed || serials[i] == other;
            list.revoked = bytes.concat(list.revoked, entry(serials[i]));
        }
        store.postCrl(encode(list), ca);
        for (uint256 i; i < count; ++i) {
            assertTrue(store.isRevoked(ca, serials[i]));
        }
        assertEq(store.isRevoked(ca, other), listed);
    }

    // Documents: their form is IntelJson's, in IntelJson.t.sol

    function test_keepsTheNewestDocumentOfAKey() public {
        bytes32 digest = postQe(qe("2024-01-05", "17"));
        assertEq(digest, keccak256(abi.encode(qeParts(FROM + 4 days, 17))));
        (bytes32 kept, uint40 issuedAt) = store.qeIdentity(1, 17);
        assertEq(kept, digest);
        assertEq(issuedAt, FROM + 4 days);
        // Evaluation numbers go back and forth: each has a place of its own.
        postQe(qe("2024-01-04", "16"));
        (kept,) = store.qeIdentity(1, 17);
        assertEq(kept, digest);
        (kept,) = store.qeIdentity(2, 17);
        assertEq(kept, 0);
        refusesQe(qe("2024-01-05", "17"), IDcapCollateral.DcapCollateral_NotNewer.selector);
        refusesQe(qe("2024-01-04", "17"), IDcapCollateral.DcapCollateral_NotNewer.selector);
        assertTrue(postQe(qe("2024-01-06", "17")) != digest);
    }

    function test_refusesADocumentOfAnotherSigner() public {
        bytes memory json = bytes(qe("2024-01-05", "17"));
        bytes memory good = rawSignature(TCB_KEY, json);
        bytes memory other = rawSignature(OTHER_KEY, json);
        bytes4 bad = IDcapCollateral.DcapCollateral_BadSignature.selector;
        refusesSigned(json, other, tcbSigner, bad);
        refusesSigned(json, Text.slice(good, 0, 63), tcbSigner, bad);
        refusesSigned(json, bytes.concat(good, hex"00"), tcbSigner, bad);
        refusesSigned(json, good, keccak256("none"), IDcapCollateral.DcapCollateral_UnknownIssuer.selector);
        vm.expectPartialRevert(bad);
        store.postTcbInfo(json, other, tcbSigner);
        // The CA and the root may sign certificates and lists only.
        bytes4 wrong = IDcapCollateral.DcapCollateral_WrongIssuer.selector;
        refusesSigned(json, rawSignature(CA_KEY, json), ca, wrong);
        refusesSigned(json, rawSignature(ROOT_KEY, json), store.anchor(), wrong);
        store.postQeIdentity(json, good, tcbSigner);
    }

    /// @dev Or a stolen key could block a key of the store with a date far ahead.
    function test_aRevokedSignerPostsNothing() public {
        revoke(ROOT_KEY, store.anchor(), 3);
        refusesQe(qe("2024-01-05", "17"), IDcapCollateral.DcapCollateral_Revoked.selector);
    }

    // What a registration rests on

    function test_checksEverythingAndTellsTheLastSecond() public {
        ready();
        // The documents end first.
        assertEq(store.check(pck(), tcb(), qeParts(FROM + 4 days, 17)), FROM + 60 days - 1);
        assertEq(store.checkCollateral(tcb(), qeParts(FROM + 4 days, 17)), FROM + 60 days - 1);
        vm.warp(FROM + 60 days - 1);
        store.check(pck(), tcb(), qeParts(FROM + 4 days, 17));
    }

    function test_refusesWhatWasNotPostedOrIsNotTheNewest() public {
        ready();
        IDcapCollateral.Pck memory p = pck();
        IDcapCollateral.TcbInfo memory t = tcb();
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 4 days, 17);
        p.pceSvn += 1;
        vm.expectPartialRevert(IDcapCollateral.DcapCollateral_UnknownPck.selector);
        store.check(p, t, q);
        p = pck();
        t.levels = keccak256("others");
        refusesAll(p, t, q, IDcapCollateral.DcapCollateral_NotCurrent.selector);
        t = tcb();
        q.levels[0] += 1;
        refusesAll(p, t, q, IDcapCollateral.DcapCollateral_NotCurrent.selector);
        q = qeParts(FROM + 4 days, 18);
        refusesAll(p, t, q, IDcapCollateral.DcapCollateral_NotCurrent.selector);
        q = qeParts(FROM + 4 days, 17);
        store.check(p, t, q);
        postQe(qe("2024-01-06", "17"));
        refusesAll(p, t, q, IDcapCollateral.DcapCollateral_NotCurrent.selector);
    }

    function test_nothingCountsBeforeOrAtItsEnd() public {
        ready();
        IDcapCollateral.Pck memory p = pck();
        IDcapCollateral.TcbInfo memory t = tcb();
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 4 days, 17);
        vm.warp(FROM + 60 days);
        vm.expectPartialRevert(IDcapCollateral.DcapCollateral_Expired.selector);
        store.check(p, t, q);
        // What ended is good enough to show how a platform stood before.
        store.checkEarlier(t, q);
        vm.warp(FROM + 4 days - 1);
        vm.expectPartialRevert(IDcapCollateral.DcapCollateral_NotYetValid.selector);
        store.check(p, t, q);
    }

    function test_refusesTheRevokedAtTheirNextUse() public {
        ready();
        IDcapCollateral.Pck memory p = pck();
        IDcapCollateral.TcbInfo memory t = tcb();
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 4 days, 17);
        uint256 clean = vm.snapshotState();
        revoke(CA_KEY, ca, 4);
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_Revoked.selector, ca, uint160(4)));
        store.check(p, t, q);
        store.checkCollateral(t, q);
        assertTrue(store.isRevoked(ca, 4));
        vm.revertToState(clean);
        bytes32 anchor = store.anchor();
        revoke(ROOT_KEY, anchor, 2);
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_Revoked.selector, anchor, uint160(2)));
        store.check(p, t, q);
        store.checkCollateral(t, q);
        assertTrue(store.isRevoked(ca, 4));
        vm.revertToState(clean);
        // The signer, and the root itself.
        for (uint160 serial = 3; serial != 0; serial -= serial == 3 ? 2 : 1) {
            revoke(ROOT_KEY, anchor, serial);
            bytes memory reason =
                abi.encodeWithSelector(IDcapCollateral.DcapCollateral_Revoked.selector, anchor, serial);
            vm.expectRevert(reason);
            store.check(p, t, q);
            vm.expectRevert(reason);
            store.checkCollateral(t, q);
            if (serial == 3) {
                vm.expectRevert(reason);
                store.checkEarlier(t, q);
            }
            vm.revertToState(clean);
        }
    }

    /// @dev Intel has two signing certificates; each document may be of its own.
    function test_eachDocumentsSignerIsLookedUp() public {
        ready();
        Certificate memory second = tcbCertificate();
        second.serial = integer(9);
        bytes32 other = store.postIssuer(encode(second));
        string memory json = qe("2024-01-06", "17");
        store.postQeIdentity(bytes(json), rawSignature(TCB_KEY, bytes(json)), other);
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 5 days, 17);
        q.signer = other;
        IDcapCollateral.Pck memory p = pck();
        IDcapCollateral.TcbInfo memory t = tcb();
        store.check(p, t, q);
        bytes32 anchor = store.anchor();
        revoke(ROOT_KEY, anchor, 9);
        bytes memory reason =
            abi.encodeWithSelector(IDcapCollateral.DcapCollateral_Revoked.selector, anchor, uint160(9));
        vm.expectRevert(reason);
        store.check(p, t, q);
        vm.expectRevert(reason);
        store.checkCollateral(t, q);
        vm.expectRevert(reason);
        store.checkEarlier(t, q);
    }

    function test_listsMustBeThereAndInTheirDates() public {
        store = create(encode(rootCertificate()));
        store.postIssuer(encode(caCertificate()));
        store.postIssuer(encode(tcbCertificate()));
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_NoCrl.selector, ca));
        store.isRevoked(ca, 5);
        store.postCrl(encode(caList()), ca);
        bytes32 anchor = store.anchor();
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_NoCrl.selector, anchor));
        store.isRevoked(ca, 5);
        ready();
        IDcapCollateral.Pck memory p = pck();
        IDcapCollateral.TcbInfo memory t = tcb();
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 4 days, 17);
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_NoCrl.selector, anchor));
        store.check(p, t, q);
        vm.expectRevert(abi.encodeWithSelector(IDcapCollateral.DcapCollateral_NoCrl.selector, anchor));
        store.checkEarlier(t, q);
        List memory list = rootList();
        list.nextUpdate = hex"170d3234303131303030303030305a"; // 10 January
        store.postCrl(encode(list), anchor);
        vm.warp(FROM + 9 days);
        vm.expectRevert(
            abi.encodeWithSelector(
                IDcapCollateral.DcapCollateral_Expired.selector, anchor, FROM + 9 days, uint256(FROM + 9 days)
            )
        );
        store.check(p, t, q);
        vm.warp(FROM + 9 days - 1);
        assertEq(store.check(p, t, q), FROM + 9 days - 1);
    }

    function test_eachCertificateMustBeInItsDates() public {
        bytes memory shorter = hex"301e170d3234303130313030303030305a170d3234303131303030303030305a";
        IDcapCollateral.QeIdentity memory q = qeParts(FROM + 4 days, 17);
        for (uint256 i; i < 4; ++i) {
            Certificate[4] memory chain = [rootCertificate(), caCertificate(), tcbCertificate(), pckCertificate()];
            chain[i].validity = shorter;
            store = create(encode(chain[0]));
            ca = store.postIssuer(encode(chain[1]));
            tcbSigner = store.postIssuer(encode(chain[2]));
            store.postCrl(encode(rootList()), store.anchor());
            store.postCrl(encode(caList()), ca);
            postDocuments();
            store.postPck(encode(chain[3]), ca);
            IDcapCollateral.Pck memory p = pck();
            IDcapCollateral.TcbInfo memory t = tcb();
            q.signer = tcbSigner;
            if (i == 3) p.notAfter = FROM + 9 days;
            vm.warp(FROM + 9 days - 1);
            assertEq(store.check(p, t, q), FROM + 9 days - 1);
            vm.warp(FROM + 9 days);
            vm.expectPartialRevert(IDcapCollateral.DcapCollateral_Expired.selector);
            store.check(p, t, q);
        }
    }

    // Helpers

    function create(bytes memory root) public returns (IDcapCollateral) {
        return IDcapCollateral(deploy("DcapCollateral.sol:DcapCollateral", abi.encode(root)));
    }

    function ready() private {
        store.postPck(encode(pckCertificate()), ca);
        postDocuments();
    }

    function postDocuments() private {
        bytes memory json = bytes(tcbJson());
        store.postTcbInfo(json, rawSignature(TCB_KEY, json), tcbSigner);
        postQe(qe("2024-01-05", "17"));
    }

    function postQe(string memory json) private returns (bytes32) {
        return store.postQeIdentity(bytes(json), rawSignature(TCB_KEY, bytes(json)), tcbSigner);
    }

    function revoke(uint256 key, bytes32 issuer, uint160 serial) private {
        List memory list = key == CA_KEY ? newList() : rootList();
        list.thisUpdate = hex"170d3234303130313030303030315a";
        list.revoked = entry(serial);
        store.postCrl(encode(list), issuer);
    }

    function newList() private pure returns (List memory list) {
        list = caList();
        list.thisUpdate = hex"170d3234303130313030303030315a";
    }

    function pck() private view returns (IDcapCollateral.Pck memory p) {
        (uint256 x, uint256 y) = vm.publicKeyP256(PCK_KEY);
        p.x = bytes32(x);
        p.y = bytes32(y);
        p.platform = sha256(hex"000102030405060708090a0b0c0d0e0f");
        p.issuer = ca;
        p.cpuSvn = CPU_SVN;
        p.fmspc = 0x00a067110000;
        p.pceId = 0x0102;
        p.pceSvn = 13;
        p.serial = 4;
        p.notBefore = FROM;
        p.notAfter = TO;
    }

    function tcbJson() private pure returns (string memory) {
        string memory svns = '{"svn":1}';
        for (uint256 i; i < 15; ++i) {
            svns = string.concat(svns, ',{"svn":1}');
        }
        return string.concat(
            '{"id":"SGX","version":3,"issueDate":"2024-01-05T00:00:00Z","nextUpdate":"2024-03-01T00:00:00Z",',
            '"fmspc":"00A067110000","pceId":"0102","tcbType":0,"tcbEvaluationDataNumber":17,"tcbLevels":[{"tcb":{"sgxtcbcomponents":[',
            svns,
            '],"pcesvn":13},"tcbDate":"2024-01-01T00:00:00Z","tcbStatus":"UpToDate"}]}'
        );
    }

    function tcb() private view returns (IDcapCollateral.TcbInfo memory t) {
        t.tee = 1;
        t.fmspc = 0x00a067110000;
        t.pceId = 0x0102;
        t.evaluation = 17;
        t.issuedAt = FROM + 4 days;
        t.nextUpdate = FROM + 60 days;
        t.changedAt = FROM;
        t.levels = keccak256(
            abi.encode(
                IDcapCollateral.TcbLevel(bytes32(bytes16(0x01010101010101010101010101010101)), 13, 1, FROM), bytes32(0)
            )
        );
        t.signer = tcbSigner;
    }

    function qe(string memory issued, string memory evaluation) private pure returns (string memory) {
        return string.concat(
            '{"id":"QE","version":2,"issueDate":"',
            issued,
            'T00:00:00Z","nextUpdate":"2024-03-15T00:00:00Z","tcbEvaluationDataNumber":',
            evaluation,
            ',"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"11000000000000000000000000000000",',
            '"attributesMask":"FBFFFFFFFFFFFFFF0000000000000000","mrsigner":"8C4F5775D796503E96137F77C68A829A0056AC8DED70140B081B094490C57BFF",',
            '"isvprodid":1,"tcbLevels":[{"tcb":{"isvsvn":8},"tcbDate":"2024-01-01T00:00:00Z","tcbStatus":"UpToDate"}]}'
        );
    }

    function qeParts(uint40 issuedAt, uint32 evaluation) private view returns (IDcapCollateral.QeIdentity memory q) {
        q.tee = 1;
        q.evaluation = evaluation;
        q.issuedAt = issuedAt;
        q.nextUpdate = FROM + 74 days;
        q.miscSelectMask = 0xffffffff;
        q.attributes = 0x11000000000000000000000000000000;
        q.attributesMask = 0xfbffffffffffffff0000000000000000;
        q.mrSigner = 0x8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff;
        q.isvProdId = 1;
        q.levels = new uint256[](1);
        q.levels[0] = 8 << 48 | 1 << 40 | uint256(FROM);
        q.signer = tcbSigner;
    }

    /// @dev The same certificate with the other of its two signatures.
    function encodeMalleated(Certificate memory c) private pure returns (bytes memory) {
        bytes memory whole = encode(c);
        bytes memory body = Text.slice(whole, 4, 8 + (uint256(uint8(whole[6])) << 8 | uint8(whole[7])));
        (bytes32 r, bytes32 s) = vm.signP256(c.signerKey, sha256(body));
        uint256 other = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 - uint256(s);
        return der(
            0x30,
            bytes.concat(
                body,
                ECDSA_SHA256,
                der(0x03, bytes.concat(hex"00", der(0x30, bytes.concat(integer(uint256(r)), integer(other)))))
            )
        );
    }

    function refusesRoot(Certificate memory c, bytes4 reason) private {
        bytes memory root = encode(c);
        vm.expectPartialRevert(reason);
        this.create(root);
    }

    function refusesIssuer(Certificate memory c, bytes4 reason) private {
        bytes memory certificate = encode(c);
        vm.expectPartialRevert(reason);
        store.postIssuer(certificate);
    }

    function refusesPck(Certificate memory c, bytes4 reason) private {
        refusesPckOf(encode(c), ca, reason);
    }

    function refusesPckOf(bytes memory certificate, bytes32 issuer, bytes4 reason) private {
        vm.expectPartialRevert(reason);
        store.postPck(certificate, issuer);
    }

    function refusesSgx(bytes memory value, uint256 badField) private {
        Certificate memory c = pckCertificate();
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), extension(SGX, "", value));
        bytes memory certificate = encode(c);
        vm.expectRevert(abi.encodeWithSelector(PckExtension.PckExtension_BadField.selector, badField));
        store.postPck(certificate, ca);
    }

    function refusesList(List memory list, bytes4 reason) private {
        refusesListOf(encode(list), ca, reason);
    }

    function refusesListOf(bytes memory list, bytes32 issuer, bytes4 reason) private {
        vm.expectPartialRevert(reason);
        store.postCrl(list, issuer);
    }

    function refusesQe(string memory json, bytes4 reason) private {
        bytes memory signed = rawSignature(TCB_KEY, bytes(json));
        vm.expectPartialRevert(reason);
        store.postQeIdentity(bytes(json), signed, tcbSigner);
    }

    function refusesSigned(bytes memory json, bytes memory signed, bytes32 signer, bytes4 reason) private {
        vm.expectPartialRevert(reason);
        store.postQeIdentity(json, signed, signer);
    }

    function refusesAll(
        IDcapCollateral.Pck memory p,
        IDcapCollateral.TcbInfo memory t,
        IDcapCollateral.QeIdentity memory q,
        bytes4 reason
    ) private {
        vm.expectPartialRevert(reason);
        store.check(p, t, q);
        vm.expectPartialRevert(reason);
        store.checkCollateral(t, q);
        vm.expectPartialRevert(reason);
        store.checkEarlier(t, q);
    }
}
