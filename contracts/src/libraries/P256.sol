// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title ECDSA on P-256, by the precompile at 0x100
/// @dev Source: EIP-7951. It answers 1 in 32 bytes for a valid signature and nothing for any other input; where it is not
/// there, a call answers nothing too. Both values of s are valid, as in Intel's signatures.
library P256 {
    /// @dev The call itself failed, which the precompile does only for want of gas.
    error P256_CallFailed();

    function verify(bytes32 digest, bytes32 r, bytes32 s, bytes32 x, bytes32 y) internal view returns (bool valid) {
        bool called;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, digest)
            mstore(add(input, 0x20), r)
            mstore(add(input, 0x40), s)
            mstore(add(input, 0x60), x)
            mstore(add(input, 0x80), y)
            called := staticcall(gas(), 0x100, input, 0xa0, 0, 0x20)
            valid := and(called, and(eq(returndatasize(), 0x20), eq(mload(0), 1)))
        }
        if (!called) revert P256_CallFailed();
    }

    /// @notice Whether the precompile is there and tells a valid signature from another.
    /// @dev RFC 6979, A.2.5, SHA-256 of "sample".
    function isAvailable() internal view returns (bool) {
        bytes32 digest = 0xaf2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf;
        bytes32 r = 0xefd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716;
        bytes32 s = 0xf7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8;
        bytes32 x = 0x60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6;
        bytes32 y = 0x7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299;
        return verify(digest, r, s, x, y) && !verify(~digest, r, s, x, y);
    }
}
