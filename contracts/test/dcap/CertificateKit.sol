// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Deploy} from "../utils/Deploy.sol";

/// @notice Certificates and revocation lists that are valid as they are made. A test changes one part; `encode` signs again.
abstract contract CertificateKit is Deploy {
    /// @dev Each part is a whole element of DER. What is empty is left out.
    struct Certificate {
        uint256 signerKey;
        bytes version;
        bytes serial;
        bytes algorithm;
        bytes issuer;
        bytes validity;
        bytes subject;
        bytes publicKey;
        bytes extensions;
        bytes outerAlgorithm;
        bytes behind;
    }

    /// @param revoked entries, one after another
    struct List {
        uint256 signerKey;
        bytes version;
        bytes algorithm;
        bytes issuer;
        bytes thisUpdate;
        bytes nextUpdate;
        bytes revoked;
        bytes extensions;
    }

    uint256 internal constant ROOT_KEY = uint256(keccak256("root"));
    uint256 internal constant CA_KEY = uint256(keccak256("CA"));
    uint256 internal constant TCB_KEY = uint256(keccak256("TCB signer"));
    uint256 internal constant PCK_KEY = uint256(keccak256("platform"));
    uint256 internal constant OTHER_KEY = uint256(keccak256("other"));

    uint40 internal constant FROM = 1_704_067_200; // 240101000000Z
    uint40 internal constant TO = 1_735_689_600; // 250101000000Z
    bytes internal constant ECDSA_SHA256 = hex"300a06082a8648ce3d040302";
    bytes internal constant BASIC_CONSTRAINTS = hex"0603551d13";
    bytes internal constant KEY_USAGE = hex"0603551d0f";
    bytes internal constant SGX = hex"06092a864886f84d010d01";
    bytes internal constant TRUE = hex"0101ff";
    bytes internal constant CA_CONSTRAINTS = hex"30060101ff020100";
    bytes internal constant NO_CA = hex"3000";
    bytes internal constant SIGNS_CERTIFICATES = hex"03020106";
    bytes internal constant SIGNS_DATA = hex"030206c0";

    function rootCertificate() internal pure returns (Certificate memory c) {
        c = _certificate(ROOT_KEY, name("Test SGX Root CA"), ROOT_KEY, 1);
        c.issuer = c.subject;
        c.extensions = extensions(constraints(hex"30060101ff020101"), usage(SIGNS_CERTIFICATES), "");
    }

    function caCertificate() internal pure returns (Certificate memory c) {
        c = _certificate(CA_KEY, name("Test SGX PCK Platform CA"), ROOT_KEY, 2);
        c.extensions = extensions(constraints(CA_CONSTRAINTS), usage(SIGNS_CERTIFICATES), "");
    }

    function tcbCertificate() internal pure returns (Certificate memory c) {
        c = _certificate(TCB_KEY, name("Test SGX TCB Signing"), ROOT_KEY, 3);
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), "");
    }

    function pckCertificate() internal pure returns (Certificate memory c) {
        c = _certificate(PCK_KEY, name("Test SGX PCK Certificate"), CA_KEY, 4);
        c.issuer = name("Test SGX PCK Platform CA");
        c.extensions = extensions(constraints(NO_CA), usage(SIGNS_DATA), extension(SGX, "", sgxExtension()));
    }

    function caList() internal pure returns (List memory list) {
        list.signerKey = CA_KEY;
        list.version = hex"020101";
        list.algorithm = ECDSA_SHA256;
        list.issuer = name("Test SGX PCK Platform CA");
        list.thisUpdate = hex"170d3234303130313030303030305a";
        list.nextUpdate = hex"170d3235303130313030303030305a";
        list.revoked = bytes.concat(entry(77), entry(uint160(bytes20(keccak256("revoked")))));
        list.extensions = der(0xa0, der(0x30, der(0x30, hex"0603551d140403020101")));
    }

    function rootList() internal pure returns (List memory list) {
        list = caList();
        list.signerKey = ROOT_KEY;
        list.issuer = name("Test SGX Root CA");
        list.revoked = "";
    }

    function encode(Certificate memory c) internal pure returns (bytes memory) {
        bytes memory body = der(
            0x30,
            bytes.concat(
                c.version,
                c.serial,
                c.algorithm,
                c.issuer,
                c.validity,
                c.subject,
                c.publicKey,
                c.extensions.length == 0 ? bytes("") : der(0xa3, c.extensions)
            )
        );
        return bytes.concat(der(0x30, bytes.concat(body, c.outerAlgorithm, signature(c.signerKey, body))), c.behind);
    }

    function encode(List memory list) internal pure returns (bytes memory) {
        bytes memory body = der(
            0x30,
            bytes.concat(
                list.version,
                list.algorithm,
                list.issuer,
                list.thisUpdate,
                list.nextUpdate,
                list.revoked.length == 0 ? bytes("") : der(0x30, list.revoked),
                list.extensions
            )
        );
        return der(0x30, bytes.concat(body, ECDSA_SHA256, signature(list.signerKey, body)));
    }

    function signature(uint256 key, bytes memory message) internal pure returns (bytes memory) {
        (bytes32 r, bytes32 s) = vm.signP256(key, sha256(message));
        return der(0x03, bytes.concat(hex"00", der(0x30, bytes.concat(integer(uint256(r)), integer(uint256(s))))));
    }

    function rawSignature(uint256 key, bytes memory message) internal pure returns (bytes memory) {
        (bytes32 r, bytes32 s) = vm.signP256(key, sha256(message));
        return bytes.concat(r, s);
    }

    function entry(uint160 serial) internal pure returns (bytes memory) {
        return der(
            0x30,
            bytes.concat(
                integer(serial), hex"170d3234303130313030303030305a", der(0x30, der(0x30, hex"0603551d1504030a0101"))
            )
        );
    }

    function publicKey(uint256 key) internal pure returns (bytes memory) {
        (uint256 x, uint256 y) = vm.publicKeyP256(key);
        return bytes.concat(hex"3059301306072a8648ce3d020106082a8648ce3d03010703420004", bytes32(x), bytes32(y));
    }

    /// @notice O=Test, CN=`common`.
    function name(string memory common) internal pure returns (bytes memory) {
        return der(
            0x30,
            bytes.concat(
                der(0x31, der(0x30, bytes.concat(hex"060355040a", hex"0c0454657374"))),
                der(0x31, der(0x30, bytes.concat(hex"0603550403", der(0x0c, bytes(common)))))
            )
        );
    }

    function extension(bytes memory oid, bytes memory critical, bytes memory value)
        internal
        pure
        returns (bytes memory)
    {
        return der(0x30, bytes.concat(oid, critical, der(0x04, value)));
    }

    function constraints(bytes memory value) internal pure returns (bytes memory) {
        return extension(BASIC_CONSTRAINTS, TRUE, value);
    }

    function usage(bytes memory value) internal pure returns (bytes memory) {
        return extension(KEY_USAGE, TRUE, value);
    }

    /// @notice With a key identifier before them, which nothing here looks at.
    function extensions(bytes memory first, bytes memory second, bytes memory third)
        internal
        pure
        returns (bytes memory)
    {
        return der(0x30, bytes.concat(extension(hex"0603551d0e", "", hex"04020102"), first, second, third));
    }

    bytes16 internal constant CPU_SVN = 0x0e0e0303ffff01800000000000000000;

    function sgxExtension() internal pure returns (bytes memory) {
        return sgxExtension(tcbFields(CPU_SVN, CPU_SVN));
    }

    function sgxExtension(bytes memory tcb) internal pure returns (bytes memory) {
        return der(
            0x30,
            bytes.concat(
                field(1, der(0x04, hex"000102030405060708090a0b0c0d0e0f")),
                field(2, tcb),
                field(3, der(0x04, hex"0102")),
                field(4, der(0x04, hex"00a067110000")),
                field(5, hex"0a0100")
            )
        );
    }

    function tcbFields(bytes16 components, bytes16 cpuSvn) internal pure returns (bytes memory) {
        bytes memory fields;
        for (uint256 i; i < 16; ++i) {
            fields = bytes.concat(fields, tcbField(uint8(i + 1), integer(uint8(components[i]))));
        }
        return
            der(
                0x30, bytes.concat(fields, tcbField(17, integer(13)), tcbField(18, der(0x04, abi.encodePacked(cpuSvn))))
            );
    }

    function field(uint8 number, bytes memory value) internal pure returns (bytes memory) {
        return der(0x30, bytes.concat(hex"060a2a864886f84d010d01", bytes1(number), value));
    }

    function tcbField(uint8 number, bytes memory value) internal pure returns (bytes memory) {
        return der(0x30, bytes.concat(hex"060b2a864886f84d010d0102", bytes1(number), value));
    }

    function integer(uint256 value) internal pure returns (bytes memory) {
        uint256 length = 1;
        while (length < 33 && value >> (8 * length - 1) != 0) {
            ++length;
        }
        bytes memory whole = abi.encodePacked(bytes1(0), value);
        bytes memory content = new bytes(length);
        for (uint256 i; i < length; ++i) {
            content[i] = whole[33 - length + i];
        }
        return der(0x02, content);
    }

    function der(uint8 tag, bytes memory content) internal pure returns (bytes memory) {
        uint256 length = content.length;
        if (length < 0x80) return bytes.concat(bytes1(tag), bytes1(uint8(length)), content);
        if (length < 0x100) return bytes.concat(bytes1(tag), hex"81", bytes1(uint8(length)), content);
        return bytes.concat(bytes1(tag), hex"82", bytes2(uint16(length)), content);
    }

    function _certificate(uint256 key, bytes memory subject, uint256 signerKey, uint256 serial)
        private
        pure
        returns (Certificate memory c)
    {
        c.signerKey = signerKey;
        c.version = hex"a003020102";
        c.serial = integer(serial);
        c.algorithm = ECDSA_SHA256;
        c.issuer = name("Test SGX Root CA");
        c.validity = hex"301e170d3234303130313030303030305a170d3235303130313030303030305a";
        c.subject = subject;
        c.publicKey = publicKey(key);
        c.outerAlgorithm = ECDSA_SHA256;
    }
}
