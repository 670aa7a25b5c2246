// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../interfaces/IDcapCollateral.sol";
import {Calendar} from "./Calendar.sol";
import {TcbStatus, TeeKind} from "./Constants.sol";

/// @title Intel's TCB info and enclave identities
/// @notice In exactly the order and form in which Intel signs them; `category`, `type` and `advisoryIDs` may be missing,
/// and `tdxModuleIdentities` too. Anything else is refused, so that no other reader can see another document. `p` is a place
/// in memory.
/// @dev Source: Intel PCS API v4, TCB info v3 and enclave identity v2.
library IntelJson {
    /// @param got what stands there, `wanted` what should
    error IntelJson_Unexpected(bytes32 got, bytes32 wanted);
    error IntelJson_TrailingBytes();
    /// @dev Intel's strings are printable ASCII without a backslash.
    error IntelJson_BadCharacter(bytes32 got);
    error IntelJson_BadNumber(bytes32 got);
    error IntelJson_TooLarge(uint256 got, uint256 max);
    error IntelJson_BadHex(bytes32 got);
    error IntelJson_BadDate(bytes32 got);
    error IntelJson_UnknownStatus(bytes32 got);
    error IntelJson_NotDescending(uint256 index);
    error IntelJson_DuplicateModule(uint256 version);

    uint256 private constant ONES = 0x0101010101010101010101010101010101010101010101010101010101010101;
    /// @dev The lower seven bits of each byte, and the highest.
    uint256 private constant LOW = ONES * 0x7f;
    uint256 private constant HIGH = ONES * 0x80;

    /// @notice TCB info in memory from `p` to `end`.
    function tcbInfo(uint256 p, uint256 end) internal pure returns (IDcapCollateral.TcbInfo memory info) {
        unchecked {
            p = _skip(p, '{"id":"', 7);
            if (_starts(p, 'TDX"', 4)) {
                info.tee = TeeKind.TDX;
            } else {
                _skip(p, 'SGX"', 4);
                info.tee = TeeKind.SGX;
            }
            p = _skip(p + 4, ',"version":3,"issueDate":"', 26);
            (info.issuedAt, p) = _date(p);
            p = _skip(p, ',"nextUpdate":"', 15);
            (info.nextUpdate, p) = _date(p);
            p = _skip(p, ',"fmspc":"', 10);
            info.fmspc = bytes6(uint48(_hex(p, 12)));
            p = _skip(p + 12, '","pceId":"', 11);
            info.pceId = bytes2(uint16(_hex(p, 4)));
            p = _skip(p + 4, '","tcbType":0,', 14);
            p = _skip(p, '"tcbEvaluationDataNumber":', 26);
            uint256 number;
            (number, p) = _number(p);
            info.evaluation = uint32(_atMost(number, type(uint32).max));
            if (info.tee == TeeKind.TDX) (info.modules, p) = _modules(p, end);
            p = _skip(p, ',"tcbLevels":[', 14);
            (info.levels, info.changedAt, p) = _levels(p, end, info.tee == TeeKind.TDX);
            p = _skip(p, "}", 1);
            if (p != end) revert IntelJson_TrailingBytes();
        }
    }

    /// @notice An enclave identity in memory from `p` to `end`.
    function qeIdentity(uint256 p, uint256 end) internal pure returns (IDcapCollateral.QeIdentity memory qe) {
        unchecked {
            p = _skip(p, '{"id":"', 7);
            if (_starts(p, 'TD_QE"', 6)) {
                qe.tee = TeeKind.TDX;
                p += 6;
            } else {
                qe.tee = TeeKind.SGX;
                p = _skip(p, 'QE"', 3);
            }
            p = _skip(p, ',"version":', 11);
            // Of the TDX quoting enclave's, version 3 has the same form.
            p = qe.tee == TeeKind.TDX && _starts(p, "3", 1) ? p + 1 : _skip(p, "2", 1);
            p = _skip(p, ',"issueDate":"', 14);
            (qe.issuedAt, p) = _date(p);
            p = _skip(p, ',"nextUpdate":"', 15);
            (qe.nextUpdate, p) = _date(p);
            p = _skip(p, ',"tcbEvaluationDataNumber":', 27);
            uint256 number;
            (number, p) = _number(p);
            qe.evaluation = uint32(_atMost(number, type(uint32).max));
            p = _skip(p, ',"miscselect":"', 15);
            qe.miscSelect = bytes4(uint32(_hex(p, 8)));
            p = _skip(p + 8, '","miscselectMask":"', 20);
            qe.miscSelectMask = bytes4(uint32(_hex(p, 8)));
            p = _skip(p + 8, '","attributes":"', 16);
            qe.attributes = bytes16(uint128(_hex(_word(p))));
            p = _skip(p + 32, '","attributesMask":"', 20);
            qe.attributesMask = bytes16(uint128(_hex(_word(p))));
            p = _skip(p + 32, '","mrsigner":"', 14);
            qe.mrSigner = bytes32(_hex(_word(p)) << 128 | _hex(_word(p + 32)));
            p = _skip(p + 64, '","isvprodid":', 14);
            (number, p) = _number(p);
            qe.isvProdId = uint16(_atMost(number, type(uint16).max));
            p = _skip(p, ',"tcbLevels":[', 14);
            (qe.levels, p) = _isvLevels(p, end, type(uint16).max);
            p = _skip(p, "}", 1);
            if (p != end) revert IntelJson_TrailingBytes();
        }
    }

    /// @dev `tdxModule` and `tdxModuleIdentities`.
    /// @return digest keccak256 of the concatenated digests
    function _modules(uint256 p, uint256 end) private pure returns (bytes32 digest, uint256) {
        unchecked {
            IDcapCollateral.TdxModule memory module;
            p = _skip(p, ',"tdxModule":{', 14);
            p = _skip(_module(module, p), "}", 1);
            bytes memory digests = abi.encodePacked(keccak256(abi.encode(module)));
            if (_starts(p, ',"tdxModuleIdentities":[', 24)) {
                p += 24;
                // Version 0 is `tdxModule`.
                uint256 seen = 1;
                while (true) {
                    p = _skip(p, '{"id":"TDX_', 11);
                    uint256 id = _word(p);
                    module.version = uint8(_hex(p, 2));
                    // Lower-case letters have this bit, and no one looks for such an id.
                    if (id & (0x40 << 248) != 0 && id & (0x20 << 248) != 0) revert IntelJson_BadHex(bytes32(id));
                    if (id & (0x40 << 240) != 0 && id & (0x20 << 240) != 0) revert IntelJson_BadHex(bytes32(id));
                    if (seen >> module.version & 1 != 0) revert IntelJson_DuplicateModule(module.version);
                    seen |= 1 << module.version;
                    p = _skip(p + 2, '",', 2);
                    p = _module(module, p);
                    p = _skip(p, ',"tcbLevels":[', 14);
                    (module.levels, p) = _isvLevels(p, end, type(uint8).max);
                    p = _skip(p, "}", 1);
                    digests = bytes.concat(digests, keccak256(abi.encode(module)));
                    if (!_starts(p, ",", 1)) break;
                    ++p;
                }
                p = _skip(p, "]", 1);
            }
            return (keccak256(digests), p);
        }
    }

    function _module(IDcapCollateral.TdxModule memory module, uint256 p) private pure returns (uint256) {
        unchecked {
            p = _skip(p, '"mrsigner":"', 12);
            module.mrSigner =
                abi.encodePacked(uint128(_hex(_word(p))), uint128(_hex(_word(p + 32))), uint128(_hex(_word(p + 64))));
            p = _skip(p + 96, '","attributes":"', 16);
            module.attributes = bytes8(uint64(_hex(p, 16)));
            p = _skip(p + 16, '","attributesMask":"', 20);
            module.attributesMask = bytes8(uint64(_hex(p, 16)));
            return _skip(p + 16, '"', 1);
        }
    }

    /// @return chain hash chain over them
    /// @return best date of the first
    /// @return next behind the closing bracket
    function _levels(uint256 p, uint256 end, bool tdx) private pure returns (bytes32 chain, uint40 best, uint256 next) {
        unchecked {
            uint256 first;
            assembly ("memory-safe") {
                first := mload(0x40)
            }
            uint256 to = first;
            uint256 above = type(uint256).max;
            uint256 aboveTdx = type(uint256).max;
            while (true) {
                uint256 svns;
                uint256 tdxSvns;
                uint256 pceSvn;
                uint256 status;
                uint40 date;
                p = _skip(p, '{"tcb":{"sgxtcbcomponents":[', 28);
                (svns, p) = _components(p, end);
                p = _skip(p, ',"pcesvn":', 10);
                (pceSvn, p) = _number(p);
                if (tdx) {
                    p = _skip(p, ',"tdxtcbcomponents":[', 21);
                    (tdxSvns, p) = _components(p, end);
                }
                p = _skip(p, "}", 1);
                (date, status, p) = _standing(p, end);
                if (to == first) best = date;
                // Intel compares the SGX components, then PCESVN, then the TDX components.
                uint256 rank = svns << 16 | _atMost(pceSvn, type(uint16).max);
                if (rank > above || (rank == above && tdxSvns >= aboveTdx)) {
                    revert IntelJson_NotDescending((to - first) / 0xa0);
                }
                (above, aboveTdx) = (rank, tdxSvns);
                assembly ("memory-safe") {
                    mstore(to, or(shl(128, svns), tdxSvns))
                    mstore(add(to, 0x20), pceSvn)
                    mstore(add(to, 0x40), status)
                    mstore(add(to, 0x60), date)
                }
                to += 0xa0;
                if (!_starts(p, ",", 1)) break;
                ++p;
            }
            next = _skip(p, "]", 1);
            // From the last to the first; the words behind the free pointer are no one else's.
            while (to != first) {
                to -= 0xa0;
                assembly ("memory-safe") {
                    mstore(add(to, 0x80), chain)
                    chain := keccak256(to, 0xa0)
                }
            }
        }
    }

    /// @return levels ISVSVN << 48 | status << 40 | date, one each
    function _isvLevels(uint256 p, uint256 end, uint256 maxSvn)
        private
        pure
        returns (uint256[] memory levels, uint256)
    {
        unchecked {
            assembly ("memory-safe") {
                levels := mload(0x40)
            }
            uint256 count;
            uint256 above = type(uint256).max;
            while (true) {
                uint256 svn;
                uint256 status;
                uint40 date;
                p = _skip(p, '{"tcb":{"isvsvn":', 17);
                (svn, p) = _number(p);
                p = _skip(p, "}", 1);
                (date, status, p) = _standing(p, end);
                if (_atMost(svn, maxSvn) >= above) revert IntelJson_NotDescending(count);
                above = svn;
                ++count;
                assembly ("memory-safe") {
                    mstore(add(levels, shl(5, count)), or(or(shl(48, svn), shl(40, status)), date))
                }
                if (!_starts(p, ",", 1)) break;
                ++p;
            }
            assembly ("memory-safe") {
                mstore(levels, count)
                mstore(0x40, add(add(levels, 0x20), shl(5, count)))
            }
            return (levels, _skip(p, "]", 1));
        }
    }

    /// @dev Sixteen SVNs of a byte each, up to and with the closing bracket. There are hundreds in a document.
    function _components(uint256 p, uint256 end) private pure returns (uint256 svns, uint256) {
        unchecked {
            for (uint256 i = 16; i != 0; --i) {
                uint256 word = _word(p);
                if (word >> 200 != uint56(bytes7('{"svn":'))) revert IntelJson_Unexpected(bytes32(word), '{"svn":');
                p += 7;
                uint256 svn = (word >> 192 & 0xff) - 0x30;
                uint256 next = word >> 184 & 0xff;
                if (svn > 9 || next - 0x30 < 10) {
                    (svn, p) = _number(p);
                    next = _word(p) >> 248;
                } else {
                    ++p;
                }
                svns = svns << 8 | _atMost(svn, type(uint8).max);
                if (next == 0x2c) p = _labels(p, end);
                // The closing brace and what is behind it.
                uint256 closing = i == 1 ? 0x7d5d : 0x7d2c;
                word = _word(p);
                if (word >> 240 != closing) revert IntelJson_Unexpected(bytes32(word), bytes32(closing << 240));
                p += 2;
            }
            return (svns, p);
        }
    }

    /// @dev `category` and `type`.
    function _labels(uint256 p, uint256 end) private pure returns (uint256) {
        unchecked {
            if (_starts(p, ',"category":"', 13)) p = _afterString(p + 13, end);
            if (_starts(p, ',"type":"', 9)) p = _afterString(p + 9, end);
            return p;
        }
    }

    /// @dev What every level ends with.
    function _standing(uint256 p, uint256 end) private pure returns (uint40 date, uint256 status, uint256) {
        unchecked {
            p = _skip(p, ',"tcbDate":"', 12);
            (date, p) = _date(p);
            p = _skip(p, ',"tcbStatus":"', 14);
            uint256 q = _afterString(p, end);
            status = _status(p, q - 1);
            if (_starts(q, ',"advisoryIDs":[', 16)) {
                q += 16;
                while (true) {
                    q = _afterString(_skip(q, '"', 1), end);
                    if (!_starts(q, ",", 1)) break;
                    ++q;
                }
                q = _skip(q, "]", 1);
            }
            return (date, status, _skip(q, "}", 1));
        }
    }

    function _status(uint256 p, uint256 end) private pure returns (uint256) {
        bytes32 name;
        assembly ("memory-safe") {
            name := keccak256(p, sub(end, p))
        }
        if (name == keccak256("UpToDate")) return TcbStatus.UP_TO_DATE;
        if (name == keccak256("OutOfDate")) return TcbStatus.OUT_OF_DATE;
        if (name == keccak256("SWHardeningNeeded")) return TcbStatus.SW_HARDENING_NEEDED;
        if (name == keccak256("ConfigurationNeeded")) return TcbStatus.CONFIGURATION_NEEDED;
        if (name == keccak256("ConfigurationAndSWHardeningNeeded")) {
            return TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED;
        }
        if (name == keccak256("OutOfDateConfigurationNeeded")) return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
        if (name == keccak256("Revoked")) return TcbStatus.REVOKED;
        revert IntelJson_UnknownStatus(bytes32(_word(p)));
    }

    /// @dev "2024-03-13T00:00:00Z" and the quote behind it.
    function _date(uint256 p) private pure returns (uint40 date, uint256 next) {
        uint256 word = _word(p);
        uint256 x = (word ^ uint256(bytes32('0000-00-00T00:00:00Z"'))) >> 88;
        // Bytes from the right: quote 0, Z 1, second 2, : 4, minute 5, : 7, hour 8, T 10, day 11, - 13, month 14, - 16, year 17.
        uint256 packed = x >> 16 & 0xffff | x >> 24 & 0xffff0000 | x >> 32 & 0xffff00000000 | x >> 40
            & 0xffff000000000000 | x >> 48 & 0xffff0000000000000000 | x >> 56 & 0xffffffff00000000000000000000;
        bool valid = x & 0xff0000ff0000ff0000ff0000ff0000ffff == 0;
        bool digits;
        (digits, packed) = Calendar.digits(packed);
        uint256 seconds_ = valid && digits ? Calendar.unix(packed) : 0;
        if (seconds_ == 0) revert IntelJson_BadDate(bytes32(word));
        return (uint40(seconds_), p + 21);
    }

    function _atMost(uint256 value, uint256 max) private pure returns (uint256) {
        if (value > max) revert IntelJson_TooLarge(value, max);
        return value;
    }

    /// @dev A number without leading zeros, of at most eleven digits.
    function _number(uint256 p) private pure returns (uint256 value, uint256 next) {
        uint256 word = _word(p);
        next = p;
        unchecked {
            while (next - p < 11) {
                uint256 digit = (word >> 248) - 0x30;
                if (digit > 9) break;
                // No digit follows a leading zero.
                if (next != p && value == 0) revert IntelJson_BadNumber(bytes32(_word(p)));
                value = value * 10 + digit;
                word <<= 8;
                ++next;
            }
        }
        if (next == p) revert IntelJson_BadNumber(bytes32(_word(p)));
    }

    /// @dev Less than 32 hexadecimal digits: they go to the right, with zeros before them.
    function _hex(uint256 p, uint256 digits) private pure returns (uint256) {
        return _hex(_word(p) >> 256 - 8 * digits | ONES * 0x30 << 8 * digits);
    }

    /// @dev 32 hexadecimal digits, all bytes at once.
    function _hex(uint256 text) private pure returns (uint256 value) {
        unchecked {
            // Letters have 0x40, and stand for nine more than their lower half says.
            uint256 letters = text >> 6 & ONES;
            value = (text & ONES * 0x0f) + 9 * letters;
            uint256 aboveNine = value + ONES * 6 >> 4 & ONES;
            if (value & ONES * 0xf0 != 0 || (text | letters << 5) != value + ONES * 0x30 + aboveNine * 0x27) {
                revert IntelJson_BadHex(bytes32(text));
            }
            value = (value | value >> 4) & 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
            value = (value | value >> 8) & 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
            value = (value | value >> 16) & 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
            value = (value | value >> 32) & 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
            value = (value | value >> 64) & type(uint128).max;
        }
    }

    /// @dev Behind the next quote. Without backslashes in it, no other reader can see the string end elsewhere.
    function _afterString(uint256 p, uint256 end) private pure returns (uint256) {
        unchecked {
            for (; p < end; p += 32) {
                uint256 word = _word(p);
                uint256 low = word & LOW;
                // The highest bit of each byte that is, or is not, what the names say; no sum reaches the next byte.
                uint256 quotes = ~((low ^ ONES * 0x22) + LOW | word) & HIGH;
                uint256 plain = low + ONES * 0x60 & (low ^ ONES * 0x5c) + LOW & ~(low + ONES | word) & HIGH;
                // Whatever stands before the first quote must be plain.
                if ((plain ^ HIGH) > quotes) revert IntelJson_BadCharacter(bytes32(word));
                if (quotes != 0) {
                    uint256 place;
                    assembly ("memory-safe") {
                        place := shr(3, clz(quotes))
                    }
                    return p + place + 1;
                }
            }
            revert IntelJson_Unexpected(0, '"');
        }
    }

    /// @param length of `text`
    function _starts(uint256 p, bytes32 text, uint256 length) private pure returns (bool) {
        return (_word(p) ^ uint256(text)) >> 256 - 8 * length == 0;
    }

    function _skip(uint256 p, bytes32 text, uint256 length) private pure returns (uint256) {
        unchecked {
            if (!_starts(p, text, length)) revert IntelJson_Unexpected(bytes32(_word(p)), text);
            return p + length;
        }
    }

    function _word(uint256 p) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := mload(p)
        }
    }
}
