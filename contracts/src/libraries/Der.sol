// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Calendar} from "./Calendar.sol";

/// @title Reading DER
/// @notice Strict: definite lengths in their shortest form, exact ends. `p` is a place in memory; what is read there counts
/// only up to `end`.
/// @dev Source: ITU-T X.690, 8 to 11.
library Der {
    error Der_WrongTag(uint256 got, uint256 expected);
    error Der_BadLength();
    error Der_TrailingBytes(uint256 count);
    error Der_BadInteger();
    error Der_BadTime();
    error Der_BadSignature();

    uint256 internal constant BOOLEAN = 0x01;
    uint256 internal constant INTEGER = 0x02;
    uint256 internal constant BIT_STRING = 0x03;
    uint256 internal constant OCTET_STRING = 0x04;
    uint256 internal constant OID = 0x06;
    uint256 internal constant UTC_TIME = 0x17;
    uint256 internal constant GENERALIZED_TIME = 0x18;
    uint256 internal constant SEQUENCE = 0x30;
    uint256 internal constant SET = 0x31;

    /// @notice The tag at `p`, zero at the end.
    function peek(uint256 p, uint256 end) internal pure returns (uint256 tag) {
        if (p < end) {
            assembly ("memory-safe") {
                tag := byte(0, mload(p))
            }
        }
    }

    /// @return start where the content of the element at `p` starts
    /// @return next where the element ends
    function open(uint256 p, uint256 end, uint256 tag) internal pure returns (uint256 start, uint256 next) {
        unchecked {
            uint256 word = load(p);
            if (word >> 248 != tag) revert Der_WrongTag(p < end ? word >> 248 : 0, tag);
            uint256 length = word >> 240 & 0xff;
            start = p + 2;
            if (length > 0x7f) {
                // One or two bytes of length, each where no shorter form has it.
                if (length == 0x81) {
                    length = word >> 232 & 0xff;
                    start = p + 3;
                    if (length < 0x80) revert Der_BadLength();
                } else {
                    if (length != 0x82) revert Der_BadLength();
                    length = word >> 224 & 0xffff;
                    start = p + 4;
                    if (length < 0x100) revert Der_BadLength();
                }
            }
            next = start + length;
            if (next > end) revert Der_BadLength();
        }
    }

    /// @notice Behind the element at `p`.
    function skip(uint256 p, uint256 end, uint256 tag) internal pure returns (uint256 next) {
        (, next) = open(p, end, tag);
    }

    function close(uint256 p, uint256 end) internal pure {
        if (p != end) revert Der_TrailingBytes(end > p ? end - p : 0);
    }

    /// @notice A number from 0 up to 2^(8 * size) - 1.
    function integer(uint256 p, uint256 end, uint256 size) internal pure returns (uint256 value, uint256 next) {
        unchecked {
            uint256 start;
            (start, next) = open(p, end, INTEGER);
            uint256 length = next - start;
            if (length == 0) revert Der_BadInteger();
            uint256 word = load(start);
            uint256 first = word >> 248;
            if (first > 0x7f) revert Der_BadInteger();
            if (first == 0 && length > 1) {
                // A leading zero only keeps the number positive.
                if (word >> 240 & 0x80 == 0) revert Der_BadInteger();
                word = load(start + 1);
                --length;
            }
            if (length > size) revert Der_BadInteger();
            value = word >> 8 * (32 - length);
        }
    }

    /// @notice UTCTime up to 2049, GeneralizedTime from 2050 on, in unix seconds (RFC 5280, 4.1.2.5).
    function time(uint256 p, uint256 end) internal pure returns (uint40 value, uint256 next) {
        unchecked {
            uint256 tag = peek(p, end);
            bool utc = tag == UTC_TIME;
            uint256 start;
            (start, next) = open(p, end, utc ? UTC_TIME : GENERALIZED_TIME);
            if (next - start != (utc ? 13 : 15)) revert Der_BadTime();
            uint256 word = load(start);
            if (utc) {
                // "20" for 00 to 49; before 1970 no certificate of this format was issued.
                if (word >> 248 > 0x34) revert Der_BadTime();
                word = 0x3230 << 240 | word >> 16;
            } else if (word >> 224 < 0x32303530) {
                revert Der_BadTime();
            }
            // YYYYMMDDHHMMSSZ
            word ^= 0x30303030303030303030303030305a << 136;
            if (word >> 136 & 0xff != 0) revert Der_BadTime();
            bool digits;
            (digits, word) = Calendar.digits(word >> 144);
            if (!digits) revert Der_BadTime();
            uint256 seconds_ = Calendar.unix(word);
            if (seconds_ == 0) revert Der_BadTime();
            value = uint40(seconds_);
        }
    }

    /// @notice ECDSA-Sig-Value in a BIT STRING.
    function signature(uint256 p, uint256 end) internal pure returns (bytes32 r, bytes32 s, uint256 next) {
        unchecked {
            uint256 start;
            (start, next) = open(p, end, BIT_STRING);
            if (next == start || load(start) >> 248 != 0) revert Der_BadSignature();
            uint256 stop;
            (start, stop) = open(start + 1, next, SEQUENCE);
            close(stop, next);
            uint256 value;
            (value, start) = integer(start, stop, 32);
            r = bytes32(value);
            (value, start) = integer(start, stop, 32);
            s = bytes32(value);
            close(start, stop);
        }
    }

    function load(uint256 p) internal pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := mload(p)
        }
    }

    /// @dev keccak256 of memory from `p` to `end`.
    function hash(uint256 p, uint256 end) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            digest := keccak256(p, sub(end, p))
        }
    }
}
