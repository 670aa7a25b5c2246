// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../interfaces/IDcapCollateral.sol";
import {Der} from "./Der.sol";

/// @title The SGX extension of a PCK certificate
/// @notice In the order of the specification; CPUSVN must be what its sixteen components are.
/// @dev Source: Intel SGX PCK Certificate and CRL Profile Specification, 1.3.5.
library PckExtension {
    error PckExtension_NoSgxExtension();
    /// @param field .1 to .5 of the extension, and 0x0200 + n for .2.n
    error PckExtension_BadField(uint256 field);

    /// @dev OBJECT IDENTIFIER 1.2.840.113741.1.13.1.n, without n.
    uint256 private constant FIELD = 0x060a2a864886f84d010d01;
    /// @dev OBJECT IDENTIFIER 1.2.840.113741.1.13.1.2.n, without n.
    uint256 private constant TCB_FIELD = 0x060b2a864886f84d010d0102;

    /// @dev All of entry .2.0 but its value, which is below 0x80, and which is not.
    uint256 private constant COMPONENT = 0x3010060b2a864886f84d010d0102000201;
    uint256 private constant HIGH_COMPONENT = 0x3011060b2a864886f84d010d010200020200;

    /// @notice Fills in platform, cpuSvn, pceSvn, pceId and fmspc.
    /// @param p, end the extension's value
    function read(IDcapCollateral.Pck memory pck, uint256 p, uint256 end) internal pure {
        unchecked {
            if (p == 0) revert PckExtension_NoSgxExtension();
            uint256 q;
            (p, q) = Der.open(p, end, Der.SEQUENCE);
            Der.close(q, end);
            uint256 value;
            (value, p) = _octets(p, end, 1, 16);
            pck.platform = sha256(abi.encodePacked(uint128(value)));
            (p, q) = _field(p, end, 2);
            uint256 stop;
            (p, stop) = Der.open(p, q, Der.SEQUENCE);
            Der.close(stop, q);
            _tcb(pck, p, q);
            (value, p) = _octets(q, end, 3, 2);
            pck.pceId = bytes2(uint16(value));
            (value, p) = _octets(p, end, 4, 6);
            pck.fmspc = bytes6(uint48(value));
            // SGX type, then what only platforms of several packages have. None of it is relied on.
            (, p) = _field(p, end, 5);
            for (uint256 field = 6; p != end; ++field) {
                if (field > 7) revert PckExtension_BadField(field);
                (, p) = _field(p, end, field);
            }
        }
    }

    function _tcb(IDcapCollateral.Pck memory pck, uint256 p, uint256 end) private pure {
        unchecked {
            uint256 components;
            uint256 value;
            for (uint256 i = 1; i <= 16; ++i) {
                uint256 word = Der.load(p);
                if (word >> 120 == COMPONENT | i << 16) {
                    value = word >> 112 & 0xff;
                    if (value > 0x7f) revert PckExtension_BadField(0x0200 + i);
                    p += 18;
                } else {
                    if (word >> 112 != HIGH_COMPONENT | i << 24) revert PckExtension_BadField(0x0200 + i);
                    value = word >> 104 & 0xff;
                    if (value < 0x80) revert PckExtension_BadField(0x0200 + i);
                    p += 19;
                }
                components = components << 8 | value;
            }
            (value, p) = _number(p, end, 17, 2);
            pck.pceSvn = uint16(value);
            uint256 stop;
            (p, stop) = _tcbField(p, end, 18);
            (p, stop) = Der.open(p, stop, Der.OCTET_STRING);
            if (stop != end || end - p != 16 || Der.load(p) >> 128 != components) {
                revert PckExtension_BadField(0x0212);
            }
            pck.cpuSvn = bytes16(uint128(components));
        }
    }

    function _number(uint256 p, uint256 end, uint256 field, uint256 size)
        private
        pure
        returns (uint256 value, uint256 next)
    {
        unchecked {
            uint256 stop;
            (p, next) = _tcbField(p, end, field);
            (value, stop) = Der.integer(p, next, size);
            if (stop != next) revert PckExtension_BadField(0x0200 + field);
        }
    }

    /// @return start where the value of the entry starts; opening it finds whether it is there
    /// @return next where the entry ends
    function _tcbField(uint256 p, uint256 end, uint256 field) private pure returns (uint256 start, uint256 next) {
        unchecked {
            (start, next) = Der.open(p, end, Der.SEQUENCE);
            if (Der.load(start) >> 152 != (TCB_FIELD << 8 | field)) revert PckExtension_BadField(0x0200 + field);
            start += 13;
        }
    }

    function _octets(uint256 p, uint256 end, uint256 field, uint256 size)
        private
        pure
        returns (uint256 value, uint256 next)
    {
        unchecked {
            uint256 stop;
            (p, next) = _field(p, end, field);
            (p, stop) = Der.open(p, next, Der.OCTET_STRING);
            if (stop != next || stop - p != size) revert PckExtension_BadField(field);
            value = Der.load(p) >> 8 * (32 - size);
        }
    }

    function _field(uint256 p, uint256 end, uint256 field) private pure returns (uint256 start, uint256 next) {
        unchecked {
            (start, next) = Der.open(p, end, Der.SEQUENCE);
            if (start + 12 > next || Der.load(start) >> 160 != (FIELD << 8 | field)) {
                revert PckExtension_BadField(field);
            }
            start += 12;
        }
    }
}
