// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Der} from "./Der.sol";
import {X509} from "./X509.sol";

/// @title Revocation lists
/// @notice Version 2, complete, with an end. No critical extension is known here, so neither a partial nor an indirect list
/// passes.
/// @dev Source: RFC 5280, 5.
library RevocationList {
    /// @param issuer keccak256 of the name in DER
    /// @param serials, serialsEnd the revoked serial numbers in memory, 20 bytes each
    struct List {
        bytes32 issuer;
        uint40 issuedAt;
        uint40 nextUpdate;
        uint256 serials;
        uint256 serialsEnd;
        bytes32 digest;
        bytes32 r;
        bytes32 s;
    }

    /// @dev OBJECT IDENTIFIER 2.5.29.20
    uint256 private constant CRL_NUMBER = 0x551d14;

    error RevocationList_WrongVersion();
    error RevocationList_CriticalExtension();

    /// @notice Takes apart the list in memory from `p` to `end`.
    function parse(uint256 p, uint256 end) internal view returns (List memory list) {
        uint256 q;
        (p, q) = Der.open(p, end, Der.SEQUENCE);
        Der.close(q, end);
        q = Der.skip(p, end, Der.SEQUENCE);
        list.digest = X509.hash(p, q);
        _body(list, p, q);
        p = X509.algorithm(q);
        (list.r, list.s, p) = Der.signature(p, end);
        Der.close(p, end);
    }

    function _body(List memory list, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 q;
            // Where it ends, the caller has read already.
            // slither-disable-next-line unused-return
            (p,) = Der.open(p, end, Der.SEQUENCE);
            if (Der.load(p) >> 232 != 0x020101) revert RevocationList_WrongVersion();
            p = X509.algorithm(p + 3);
            q = Der.skip(p, end, Der.SEQUENCE);
            list.issuer = Der.hash(p, q);
            (list.issuedAt, p) = Der.time(q, end);
            // Optional in the RFC, and wanted here: a list without an end would never be stale.
            (list.nextUpdate, p) = Der.time(p, end);
            if (Der.peek(p, end) == Der.SEQUENCE) {
                (q, p) = Der.open(p, end, Der.SEQUENCE);
                _revoked(list, q, p);
            }
            // [0] { SEQUENCE OF Extension }
            (p, q) = Der.open(p, end, 0xa0);
            Der.close(q, end);
            (p, q) = Der.open(p, end, Der.SEQUENCE);
            Der.close(q, end);
            _extensions(p, end);
        }
    }

    function _revoked(List memory list, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 free;
            assembly ("memory-safe") {
                free := mload(0x40)
            }
            uint256 to = free;
            while (p < end) {
                uint256 q;
                (p, q) = Der.open(p, end, Der.SEQUENCE);
                uint160 serial;
                (serial, p) = X509.serial(p, q);
                // When it was revoked matters to nobody.
                p = Der.skip(p, q, Der.peek(p, q) == Der.UTC_TIME ? Der.UTC_TIME : Der.GENERALIZED_TIME);
                if (p != q) {
                    uint256 stop;
                    (p, stop) = Der.open(p, q, Der.SEQUENCE);
                    Der.close(stop, q);
                    _extensions(p, q);
                }
                p = q;
                assembly ("memory-safe") {
                    mstore(to, shl(96, serial))
                }
                to += 20;
            }
            assembly ("memory-safe") {
                mstore(0x40, and(add(to, 0x3f), not(0x1f)))
            }
            (list.serials, list.serialsEnd) = (free, to);
        }
    }

    function _afterNumber(uint256 p, uint256 end) private pure returns (uint256 next) {
        // Any number will do.
        // slither-disable-next-line unused-return
        (, next) = Der.integer(p, end, 20);
    }

    function _extensions(uint256 p, uint256 end) private pure {
        while (p < end) {
            uint256 oid;
            bool critical;
            uint256 start;
            (oid, critical, start, p) = X509.extension(p, end);
            if (critical) revert RevocationList_CriticalExtension();
            if (oid == CRL_NUMBER) Der.close(_afterNumber(start, p), p);
        }
    }
}
