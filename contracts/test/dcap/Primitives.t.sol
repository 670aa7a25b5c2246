// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Calendar} from "../../src/libraries/Calendar.sol";
import {CodeStore} from "../../src/libraries/CodeStore.sol";
import {Der} from "../../src/libraries/Der.sol";
import {P256} from "../../src/libraries/P256.sol";
import {Test} from "../utils/Test.sol";

contract PrimitivesHarness {
    function integer(bytes memory der, uint256 size) external pure returns (uint256 value, uint256 length) {
        (uint256 p, uint256 end) = _in(der);
        (value, length) = Der.integer(p, end, size);
        length -= p;
    }

    function open(bytes memory der, uint256 tag) external pure returns (uint256 start, uint256 length) {
        (uint256 p, uint256 end) = _in(der);
        (start, length) = Der.open(p, end, tag);
        (start, length) = (start - p, length - p);
    }

    function signature(bytes memory der) external pure returns (bytes32 r, bytes32 s, uint256 length) {
        (uint256 p, uint256 end) = _in(der);
        (r, s, length) = Der.signature(p, end);
        length -= p;
    }

    function write(bytes memory serials, address known) external returns (address) {
        (uint256 p, uint256 end) = _in(serials);
        return CodeStore.write(p, end, known);
    }

    function contains(address store, uint160 serial) external view returns (bool) {
        return CodeStore.contains(store, serial);
    }

    function verify(bytes32 digest, bytes32 r, bytes32 s, bytes32 x, bytes32 y) external view returns (bool) {
        return P256.verify(digest, r, s, x, y);
    }

    function isAvailable() external view returns (bool) {
        return P256.isAvailable();
    }

    function _in(bytes memory data) private pure returns (uint256 p, uint256 end) {
        assembly ("memory-safe") {
            p := add(data, 0x20)
            end := add(p, mload(data))
        }
    }
}

contract PrimitivesTest is Test {
    uint256 private constant ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;

    PrimitivesHarness private tried = new PrimitivesHarness();

    // P256

    function testFuzz_verifiesWhatAKeySignedAndNothingElse(uint256 key, bytes32 digest, uint256 bit) public view {
        key = bound(key, 1, ORDER - 1);
        (bytes32 r, bytes32 s) = vm.signP256(key, digest);
        (uint256 x, uint256 y) = vm.publicKeyP256(key);
        assertTrue(tried.verify(digest, r, s, bytes32(x), bytes32(y)));
        // Both values of s: nothing is keyed by a signature.
        assertTrue(tried.verify(digest, r, bytes32(ORDER - uint256(s)), bytes32(x), bytes32(y)));
        bytes32 flip = bytes32(uint256(1) << bound(bit, 0, 255));
        assertFalse(tried.verify(digest ^ flip, r, s, bytes32(x), bytes32(y)));
        assertFalse(tried.verify(digest, r ^ flip, s, bytes32(x), bytes32(y)));
        assertFalse(tried.verify(digest, r, s ^ flip, bytes32(x), bytes32(y)));
        assertFalse(tried.verify(digest, r, s, bytes32(x) ^ flip, bytes32(y)));
        assertFalse(tried.verify(digest, r, s, bytes32(x), bytes32(y) ^ flip));
    }

    function test_onlyTheAnswerOneInAWordIsValid() public {
        assertTrue(tried.isAvailable());
        bytes[5] memory answers = [bytes(""), abi.encode(2), abi.encode(0), hex"01", abi.encode(1, 1)];
        for (uint256 i; i < answers.length; ++i) {
            vm.mockCall(address(0x100), "", answers[i]);
            assertFalse(tried.verify(0, 0, 0, 0, 0));
            assertFalse(tried.isAvailable());
        }
        vm.mockCall(address(0x100), "", abi.encode(1));
        assertTrue(tried.verify(0, 0, 0, 0, 0));
        assertFalse(tried.isAvailable());
    }

    function test_aFailedCallIsNoInvalidSignature() public {
        vm.mockCallRevert(address(0x100), "", "");
        vm.expectRevert(P256.P256_CallFailed.selector);
        tried.verify(0, 0, 0, 0, 0);
    }

    // Calendar

    function testFuzz_daysFollowEachOther(uint256 day) public pure {
        // The other way round, by counting from the first of a year.
        day = bound(day, 1, 2_932_896);
        uint256 year = 1970;
        uint256 left = day;
        while (left >= (leap(year) ? 366 : 365)) {
            left -= leap(year) ? 366 : 365;
            ++year;
        }
        uint8[12] memory lengths = [31, leap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        uint256 month;
        while (left >= lengths[month]) {
            left -= lengths[month++];
        }
        assertEq(unix(year, month + 1, left + 1, 0, 0, 0), day * 1 days);
        assertEq(unix(year, month + 1, left + 1, 23, 59, 59), day * 1 days + 86_399);
        assertEq(unix(year, month + 1, lengths[month] + 1, 0, 0, 0), 0);
    }

    function test_refusesWhatIsNoDate() public pure {
        assertEq(unix(2024, 2, 29, 0, 0, 0), 1_709_164_800);
        assertEq(unix(2024, 0, 1, 0, 0, 0), 0);
        assertEq(unix(2024, 13, 1, 0, 0, 0), 0);
        assertEq(unix(2024, 1, 0, 0, 0, 0), 0);
        assertEq(unix(2023, 2, 29, 0, 0, 0), 0);
        assertEq(unix(2100, 2, 29, 0, 0, 0), 0);
        assertEq(unix(2000, 2, 29, 0, 0, 0), 951_782_400);
        assertEq(unix(2024, 1, 1, 24, 0, 0), 0);
        assertEq(unix(2024, 1, 1, 0, 60, 0), 0);
        assertEq(unix(2024, 1, 1, 0, 0, 60), 0);
        assertEq(unix(1969, 12, 31, 0, 0, 0), 0);
    }

    function testFuzz_onlyDecimalDigitsAreDigits(bytes14 digits) public pure {
        bool wanted = true;
        uint256 values;
        for (uint256 i; i < 14; ++i) {
            if (uint8(digits[i]) > 9) wanted = false;
            if (i % 2 == 1) values = values << 16 | uint256(uint8(digits[i - 1])) * 10 + uint8(digits[i]);
        }
        (bool valid, uint256 found) = Calendar.digits(uint112(digits));
        assertEq(valid, wanted);
        if (wanted) assertEq(found, values);
    }

    // Der

    function testFuzz_readsEveryInteger(uint256 value, uint256 size) public {
        size = bound(size, 1, 32);
        bytes memory content = abi.encodePacked(value);
        uint256 zeros;
        while (zeros < 31 && content[zeros] == 0) ++zeros;
        bytes memory short = cut(content, zeros);
        if (uint8(short[0]) > 0x7f) short = bytes.concat(hex"00", short);
        bytes memory der = bytes.concat(hex"02", bytes1(uint8(short.length)), short);
        if (32 - zeros > size) {
            vm.expectRevert(Der.Der_BadInteger.selector);
            tried.integer(der, size);
            return;
        }
        (uint256 found, uint256 length) = tried.integer(bytes.concat(der, hex"ff"), size);
        assertEq(found, value);
        assertEq(length, der.length);
        // The same number with a zero before it has another form.
        vm.expectRevert(Der.Der_BadInteger.selector);
        tried.integer(bytes.concat(hex"02", bytes1(uint8(short.length + 1)), hex"00", short), 32);
    }

    function testFuzz_opensEachLengthInItsOneForm(uint256 length) public {
        length = bound(length, 0, 70_000);
        bytes memory content = new bytes(length);
        bytes memory two = bytes.concat(hex"3082", bytes2(uint16(length)), content);
        bytes memory one = bytes.concat(hex"3081", bytes1(uint8(length)), content);
        bytes memory none = bytes.concat(hex"30", bytes1(uint8(length)), content);
        bytes memory good = length < 0x80 ? none : length < 0x100 ? one : two;
        if (length < 0x10000) {
            (uint256 start, uint256 whole) = tried.open(good, 0x30);
            assertEq(start, good.length - length);
            assertEq(whole, good.length);
            good = cutEnd(good, good.length - 1);
            vm.expectRevert(Der.Der_BadLength.selector);
            tried.open(good, 0x30);
        }
        if (length < 0x100) {
            vm.expectRevert(Der.Der_BadLength.selector);
            tried.open(two, 0x30);
        }
        if (length < 0x80) {
            vm.expectRevert(Der.Der_BadLength.selector);
            tried.open(one, 0x30);
        }
    }

    function test_opensNothingBehindTheEnd() public {
        vm.expectRevert(abi.encodeWithSelector(Der.Der_WrongTag.selector, 0, 0x30));
        tried.open("", 0x30);
        vm.expectRevert(abi.encodeWithSelector(Der.Der_WrongTag.selector, 0x31, 0x30));
        tried.open(hex"3100", 0x30);
    }

    function test_opensNoLengthOfThreeBytes() public {
        vm.expectRevert(Der.Der_BadLength.selector);
        tried.open(bytes.concat(hex"30830100", new bytes(0x100)), 0x30);
        vm.expectRevert(Der.Der_BadLength.selector);
        tried.open(bytes.concat(hex"30800100", new bytes(0x100)), 0x30);
    }

    function test_aSignatureIsTwoNumbersAndNothingElse() public {
        (bytes32 r, bytes32 s, uint256 length) = tried.signature(hex"0309003006020107020109ff");
        assertEq(uint256(r), 7);
        assertEq(uint256(s), 9);
        assertEq(length, 11);
        vm.expectRevert(Der.Der_BadSignature.selector);
        tried.signature(hex"0300");
        vm.expectRevert(Der.Der_BadSignature.selector);
        tried.signature(hex"0309013006020107020109");
        vm.expectPartialRevert(Der.Der_TrailingBytes.selector);
        tried.signature(hex"030b0030060201070201090500");
        vm.expectPartialRevert(Der.Der_TrailingBytes.selector);
        tried.signature(hex"030b0030080201070201090500");
    }

    // CodeStore

    function test_keepsAsManySerialsAsOneContractHolds() public {
        bytes memory serials = new bytes(1228 * 20);
        for (uint256 i; i < 1228; ++i) {
            serials[20 * i] = bytes1(uint8(i >> 8));
            serials[20 * i + 1] = bytes1(uint8(i));
        }
        address store = tried.write(serials, address(0));
        assertEq(store.code.length, 1 + 1228 * 20);
        assertTrue(tried.contains(store, 0));
        assertTrue(tried.contains(store, uint160(1227) << 144));
        assertFalse(tried.contains(store, uint160(1228) << 144));
        assertEq(tried.write(serials, store), store);
        vm.expectRevert(abi.encodeWithSelector(CodeStore.CodeStore_TooMany.selector, 1229, 1228));
        tried.write(new bytes(1229 * 20), address(0));
    }

    function test_aStoreThatCannotBeMadeIsNoStore() public {
        // Out of the gas that its code costs, though not out of all.
        vm.expectRevert(CodeStore.CodeStore_Failed.selector);
        tried.write{gas: 1_000_000}(new bytes(1000 * 20), address(0));
    }

    function leap(uint256 year) private pure returns (bool) {
        return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    }

    function unix(uint256 year, uint256 month, uint256 day, uint256 hour, uint256 minute, uint256 second)
        private
        pure
        returns (uint256)
    {
        return Calendar.unix(
            year / 100 << 96 | year % 100 << 80 | month << 64 | day << 48 | hour << 32 | minute << 16 | second
        );
    }

    function cut(bytes memory source, uint256 start) private pure returns (bytes memory part) {
        part = new bytes(source.length - start);
        for (uint256 i; i < part.length; ++i) {
            part[i] = source[start + i];
        }
    }

    function cutEnd(bytes memory source, uint256 length) private pure returns (bytes memory) {
        assembly ("memory-safe") {
            mstore(source, length)
        }
        return source;
    }
}
