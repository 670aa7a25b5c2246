// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Serial numbers kept as the code of a contract
/// @dev Behind a STOP, so that nobody can run them. Twenty bytes each.
library CodeStore {
    /// @dev As many as fit beside the STOP (EIP-170).
    uint256 internal constant MAX_SERIALS = 1228;

    error CodeStore_TooMany(uint256 count, uint256 max);
    error CodeStore_Failed();

    /// @param p, end memory of the serial numbers
    /// @param known a store, or zero
    /// @return store one of exactly these; `known` where that has them
    function write(uint256 p, uint256 end, address known) internal returns (address store) {
        uint256 size = end - p;
        if (size > MAX_SERIALS * 20) revert CodeStore_TooMany(size / 20, MAX_SERIALS);
        assembly ("memory-safe") {
            // PUSH2 size + 1, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN, and the STOP: the first byte of the code.
            let code := mload(0x40)
            mstore(code, shl(168, or(0x61000080600a5f395ff300, shl(64, add(size, 1)))))
            mcopy(add(code, 11), p, size)
            store := known
            // Lists come anew each month, mostly with the same numbers.
            if iszero(eq(extcodehash(known), keccak256(add(code, 10), add(size, 1)))) {
                store := create(0, code, add(size, 11))
            }
        }
        if (store == address(0)) revert CodeStore_Failed();
    }

    function contains(address store, uint160 serial) internal view returns (bool found) {
        assembly ("memory-safe") {
            let size := sub(extcodesize(store), 1)
            let p := mload(0x40)
            let end := add(p, size)
            extcodecopy(store, p, 1, size)
            for {} lt(p, end) { p := add(p, 20) } {
                if eq(shr(96, mload(p)), serial) {
                    found := 1
                    break
                }
            }
        }
    }
}
