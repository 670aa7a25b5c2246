// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title ECDSA on P-256 by the precompile of EIP-7951
library P256 {
    /// @dev A malleated signature (r, n - s) is as good: nothing here is keyed by a signature.
    function verify(bytes32 digest, bytes32 r, bytes32 s, bytes32 x, bytes32 y) internal view returns (bool valid) {
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, digest)
            mstore(add(input, 0x20), r)
            mstore(add(input, 0x40), s)
            mstore(add(input, 0x60), x)
            mstore(add(input, 0x80), y)
            // Where the precompile is missing, and for a bad signature, it returns nothing.
            valid := and(staticcall(gas(), 0x100, input, 0xa0, input, 0x20), eq(returndatasize(), 0x20))
            valid := and(valid, eq(mload(input), 1))
        }
    }
}
