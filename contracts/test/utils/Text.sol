// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a test needs to change one thing of a text.
library Text {
    /// @notice `text` with the first `from` replaced; fails where there is none, so that no test changes nothing.
    function replace(string memory text, string memory from, string memory to) internal pure returns (string memory) {
        uint256 place = find(text, from);
        bytes memory source = bytes(text);
        return string(
            bytes.concat(slice(source, 0, place), bytes(to), slice(source, place + bytes(from).length, source.length))
        );
    }

    /// @notice What stands before the first `mark`.
    function before(string memory text, string memory mark) internal pure returns (string memory) {
        return string(slice(bytes(text), 0, find(text, mark)));
    }

    function slice(bytes memory source, uint256 start, uint256 end) internal pure returns (bytes memory part) {
        part = new bytes(end - start);
        assembly ("memory-safe") {
            mcopy(add(part, 0x20), add(add(source, 0x20), start), sub(end, start))
        }
    }

    function find(string memory text, string memory part) private pure returns (uint256) {
        bytes memory source = bytes(text);
        uint256 length = bytes(part).length;
        bytes32 wanted = keccak256(bytes(part));
        for (uint256 i; i + length <= source.length; ++i) {
            if (source[i] != bytes(part)[0]) continue;
            bytes32 found;
            assembly ("memory-safe") {
                found := keccak256(add(add(source, 0x20), i), length)
            }
            if (found == wanted) return i;
        }
        revert(string.concat("the text does not have: ", part));
    }
}
