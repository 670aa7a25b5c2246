// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Der} from "./Der.sol";
import {P256} from "./P256.sol";

/// @title Certificates of Intel's profile
/// @notice Version 3, P-256 keys, ECDSA with SHA-256. An extension that is not known here must not be critical.
/// @dev Sources: RFC 5280; Intel SGX PCK Certificate and CRL Profile Specification.
library X509 {
    /// @param name, issuer keccak256 of the names in DER
    /// @param nameStart, nameEnd the subject's content in memory
    /// @param pathLength as said, NO_PATH_LENGTH where nothing is
    /// @param sgxStart, sgxEnd content of the SGX extension in memory; zero where there is none
    /// @param digest SHA-256 of what is signed
    struct Certificate {
        bytes32 x;
        bytes32 y;
        bytes32 name;
        bytes32 issuer;
        uint256 nameStart;
        uint256 nameEnd;
        uint160 serial;
        uint40 notBefore;
        uint40 notAfter;
        bool ca;
        uint256 pathLength;
        uint256 usage;
        uint256 sgxStart;
        uint256 sgxEnd;
        bytes32 digest;
        bytes32 r;
        bytes32 s;
    }

    error X509_WrongVersion();
    error X509_WrongAlgorithm();
    error X509_WrongKey();
    error X509_BadSerial();
    error X509_BadName();
    error X509_BadExtension();
    error X509_DuplicateExtension(bytes32 oid);
    /// @param oid the first bytes of the object identifier
    error X509_UnknownCriticalExtension(bytes32 oid);

    uint256 internal constant NO_PATH_LENGTH = type(uint256).max;
    /// @dev Bits of KeyUsage, the first being the highest.
    uint256 internal constant DIGITAL_SIGNATURE = 0x80;
    uint256 internal constant KEY_CERT_SIGN = 0x04;
    uint256 internal constant CRL_SIGN = 0x02;

    /// @dev AlgorithmIdentifier of ecdsa-with-SHA256, without parameters (RFC 5758, 3.2), as its element.
    uint256 private constant ECDSA_SHA256 = 0x300a06082a8648ce3d040302;
    /// @dev SubjectPublicKeyInfo of an uncompressed P-256 key, up to x (RFC 5480).
    uint256 private constant P256_KEY = 0x3059301306072a8648ce3d020106082a8648ce3d03010703420004;

    /// @dev The highest bit of each byte.
    uint256 private constant HIGH = 0x8080808080808080808080808080808080808080808080808080808080808080;

    uint256 private constant BASIC_CONSTRAINTS = 0x551d13;
    uint256 private constant KEY_USAGE = 0x551d0f;
    /// @dev 1.2.840.113741.1.13.1
    uint256 private constant SGX = 0x2a864886f84d010d01;

    /// @notice Takes apart the certificate in memory from `p` to `end`.
    function parse(uint256 p, uint256 end) internal view returns (Certificate memory c) {
        uint256 q;
        (p, q) = Der.open(p, end, Der.SEQUENCE);
        Der.close(q, end);
        q = Der.skip(p, end, Der.SEQUENCE);
        c.digest = hash(p, q);
        _body(c, p, q);
        p = algorithm(q);
        (c.r, c.s, p) = Der.signature(p, end);
        Der.close(p, end);
    }

    /// @notice Behind the AlgorithmIdentifier at `p`, where an element must follow: opening that finds whether all of it is there.
    function algorithm(uint256 p) internal pure returns (uint256 next) {
        unchecked {
            if (Der.load(p) >> 160 != ECDSA_SHA256) revert X509_WrongAlgorithm();
            next = p + 12;
        }
    }

    /// @notice Serial number: positive, at most 20 bytes (RFC 5280, 4.1.2.2).
    function serial(uint256 p, uint256 end) internal pure returns (uint160 value, uint256 next) {
        uint256 number;
        (number, next) = Der.integer(p, end, 20);
        if (number == 0) revert X509_BadSerial();
        value = uint160(number);
    }

    function hash(uint256 p, uint256 end) internal view returns (bytes32 digest) {
        assembly ("memory-safe") {
            // The precompile cannot fail but for want of gas, and then nothing is left to go on with.
            if iszero(staticcall(gas(), 2, p, sub(end, p), 0, 0x20)) { revert(0, 0) }
            digest := mload(0)
        }
    }

    /// @notice Whether the holder of (x, y) signed it.
    function isSignedBy(Certificate memory c, bytes32 x, bytes32 y) internal view returns (bool) {
        return P256.verify(c.digest, c.r, c.s, x, y);
    }

    /// @notice What the subject's common name says it is.
    /// @return pckCa whether "SGX PCK" and " CA" stand in it, in this order
    /// @return tcbSigner whether "SGX TCB Signing" stands in it
    function role(Certificate memory c) internal pure returns (bool pckCa, bool tcbSigner) {
        unchecked {
            (uint256 p, uint256 end) = _commonName(c);
            bool pck;
            while (p < end) {
                uint256 word = Der.load(p);
                // Behind the name comes a tag, which stands in none of these texts.
                if (word >> 200 == uint56(bytes7("SGX PCK"))) pck = true;
                if (pck && word >> 232 == uint24(bytes3(" CA"))) pckCa = true;
                if (word >> 136 == uint120(bytes15("SGX TCB Signing"))) tcbSigner = true;
                ++p;
            }
        }
    }

    /// @dev Parts of one form are compared as words. An element follows each, and opening that refuses whatever passed the end.
    function _body(Certificate memory c, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 q;
            // Where it ends, the caller has read already.
            // slither-disable-next-line unused-return
            (p,) = Der.open(p, end, Der.SEQUENCE);
            // [0] { INTEGER 2 }
            if (Der.load(p) >> 216 != 0xa003020102) revert X509_WrongVersion();
            (c.serial, p) = serial(p + 5, end);
            p = algorithm(p);
            q = Der.skip(p, end, Der.SEQUENCE);
            c.issuer = Der.hash(p, q);
            (p, q) = Der.open(q, end, Der.SEQUENCE);
            (c.notBefore, p) = Der.time(p, q);
            (c.notAfter, p) = Der.time(p, q);
            Der.close(p, q);
            q = Der.skip(p, end, Der.SEQUENCE);
            c.name = Der.hash(p, q);
            (c.nameStart, c.nameEnd) = Der.open(p, end, Der.SEQUENCE);
            _checkName(c.nameStart, c.nameEnd);
            p = q;
            if (Der.load(p) >> 40 != P256_KEY) revert X509_WrongKey();
            c.x = bytes32(Der.load(p + 27));
            c.y = bytes32(Der.load(p + 59));
            // [3] { SEQUENCE OF Extension }
            (p, q) = Der.open(p + 91, end, 0xa3);
            Der.close(q, end);
            (p, q) = Der.open(p, end, Der.SEQUENCE);
            Der.close(q, end);
            _extensions(c, p, end);
        }
    }

    function _extensions(Certificate memory c, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 seen;
            c.pathLength = NO_PATH_LENGTH;
            while (p < end) {
                uint256 oid;
                bool critical;
                uint256 start;
                (oid, critical, start, p) = extension(p, end);
                uint256 bit;
                if (oid == BASIC_CONSTRAINTS) {
                    bit = 1;
                    _basicConstraints(c, start, p);
                } else if (oid == KEY_USAGE) {
                    bit = 2;
                    _keyUsage(c, start, p);
                } else if (oid == SGX) {
                    bit = 4;
                    (c.sgxStart, c.sgxEnd) = (start, p);
                } else if (critical) {
                    revert X509_UnknownCriticalExtension(bytes32(oid));
                }
                if (seen & bit != 0) revert X509_DuplicateExtension(bytes32(oid));
                seen |= bit;
            }
            // Both are in every certificate of the profile, and what follows relies on them.
            if (seen & 3 != 3) revert X509_BadExtension();
        }
    }

    /// @notice The extension at `p`.
    /// @return oid its object identifier
    /// @return critical whether a reader must know it
    /// @return start where its value starts
    /// @return stop where it ends
    function extension(uint256 p, uint256 end)
        internal
        pure
        returns (uint256 oid, bool critical, uint256 start, uint256 stop)
    {
        unchecked {
            uint256 next;
            (p, stop) = Der.open(p, end, Der.SEQUENCE);
            (p, next) = Der.open(p, stop, Der.OID);
            uint256 length = next - p;
            if (length == 0 || length > 31) revert X509_BadExtension();
            oid = Der.load(p) >> 256 - 8 * length;
            _checkOid(oid, length);
            p = next;
            if (Der.peek(p, stop) == Der.BOOLEAN) {
                // DER leaves out what is the default, FALSE.
                if (Der.load(p) >> 232 != 0x0101ff) revert X509_BadExtension();
                critical = true;
                p += 3;
            }
            (start, next) = Der.open(p, stop, Der.OCTET_STRING);
            Der.close(next, stop);
        }
    }

    /// @dev Each number of it is in its shortest form and ends: only a byte with the highest bit has another behind it, and none
    /// begins with 0x80. The first two numbers are in one byte.
    function _checkOid(uint256 oid, uint256 length) private pure {
        unchecked {
            uint256 x = oid ^ HIGH;
            uint256 is80 = ~((x & ~HIGH) + ~HIGH | x) & HIGH;
            if ((oid | oid >> 8 * (length - 1)) & 0x80 != 0 || is80 & (~oid & HIGH) >> 8 != 0) {
                revert X509_BadExtension();
            }
        }
    }

    /// @dev RFC 5280, 4.2.1.9
    function _basicConstraints(Certificate memory c, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 stop;
            (p, stop) = Der.open(p, end, Der.SEQUENCE);
            Der.close(stop, end);
            if (Der.peek(p, end) == Der.BOOLEAN) {
                // Behind the end comes a SEQUENCE, which is no value of it.
                if (Der.load(p) >> 232 != 0x0101ff) revert X509_BadExtension();
                c.ca = true;
                p += 3;
                if (p != end) (c.pathLength, p) = Der.integer(p, end, 1);
            }
            Der.close(p, end);
        }
    }

    /// @dev RFC 5280, 4.2.1.3. No certificate of the profile has decipherOnly, the one bit in a second byte.
    function _keyUsage(Certificate memory c, uint256 p, uint256 end) private pure {
        unchecked {
            (uint256 start, uint256 stop) = Der.open(p, end, Der.BIT_STRING);
            Der.close(stop, end);
            if (stop - start != 2) revert X509_BadExtension();
            uint256 word = Der.load(start);
            uint256 unused = word >> 248;
            c.usage = word >> 240 & 0xff;
            // Unused bits are zero, and the last used one is not; more than seven are unused in no byte.
            if (c.usage & (1 << unused + 1) - 1 != 1 << unused) revert X509_BadExtension();
        }
    }

    /// @dev A name may say anything, but only in DER: text of one attribute 2.5.4.n in each part. The issuer's name needs no such
    /// look, for it is some certificate's subject.
    function _checkName(uint256 p, uint256 end) private pure {
        unchecked {
            while (p < end) {
                uint256 next;
                uint256 stop;
                (p, next) = Der.open(p, end, Der.SET);
                (p, stop) = Der.open(p, next, Der.SEQUENCE);
                Der.close(stop, next);
                // OBJECT IDENTIFIER 2.5.4.n, n being one byte
                uint256 word = Der.load(p);
                if (word >> 224 != 0x06035504 || word >> 216 & 0x80 != 0) revert X509_BadName();
                Der.close(Der.skip(p + 5, next, word >> 208 & 0xff == 0x0c ? 0x0c : 0x13), next);
                p = next;
            }
        }
    }

    function _commonName(Certificate memory c) private pure returns (uint256 start, uint256 stop) {
        unchecked {
            uint256 p = c.nameStart;
            uint256 q;
            while (p < c.nameEnd) {
                (p, q) = Der.open(p, c.nameEnd, Der.SET);
                uint256 next;
                (p, next) = Der.open(p, q, Der.SEQUENCE);
                Der.close(next, q);
                // OBJECT IDENTIFIER 2.5.4.3, which one name has once
                if (p + 5 <= q && Der.load(p) >> 216 == 0x0603550403) {
                    if (stop != 0) revert X509_BadName();
                    uint256 tag = Der.peek(p + 5, q);
                    (start, stop) = Der.open(p + 5, q, tag == 0x0c ? 0x0c : 0x13);
                    Der.close(stop, q);
                }
                p = q;
            }
        }
    }
}
