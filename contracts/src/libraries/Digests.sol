// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../interfaces/IDcapCollateral.sol";

/// @title keccak256(abi.encode(struct)) for the structs of IDcapCollateral
/// @dev Words are hashed as they stand: a caller's word with bits beyond its type gives the digest of nothing that was posted.
library Digests {
    uint256 private constant PCK = 11 * 0x20;
    uint256 private constant TCB_INFO = 10 * 0x20;
    uint256 private constant QE = 12 * 0x20;
    /// @dev Of `levels` in the words of QeIdentity.
    uint256 private constant QE_LEVELS = 10 * 0x20;

    function ofMemory(IDcapCollateral.Pck memory pck) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            digest := keccak256(pck, PCK)
        }
    }

    function ofMemory(IDcapCollateral.TcbInfo memory info) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            digest := keccak256(info, TCB_INFO)
        }
    }

    function ofMemory(IDcapCollateral.QeIdentity memory qe) internal pure returns (bytes32 digest) {
        uint256[] memory levels = qe.levels;
        assembly ("memory-safe") {
            let to := mload(0x40)
            mstore(to, 0x20)
            mcopy(add(to, 0x20), qe, QE)
            mstore(add(to, add(0x20, QE_LEVELS)), QE)
            let size := shl(5, add(mload(levels), 1))
            mcopy(add(to, add(0x20, QE)), levels, size)
            digest := keccak256(to, add(add(0x20, QE), size))
        }
    }

    function ofCalldata(IDcapCollateral.Pck calldata pck) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let to := mload(0x40)
            calldatacopy(to, pck, PCK)
            digest := keccak256(to, PCK)
        }
    }

    function ofCalldata(IDcapCollateral.TcbInfo calldata info) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let to := mload(0x40)
            calldatacopy(to, info, TCB_INFO)
            digest := keccak256(to, TCB_INFO)
        }
    }

    function ofCalldata(IDcapCollateral.QeIdentity calldata qe) internal pure returns (bytes32 digest) {
        uint256[] calldata levels = qe.levels;
        assembly ("memory-safe") {
            let to := mload(0x40)
            mstore(to, 0x20)
            calldatacopy(add(to, 0x20), qe, QE)
            mstore(add(to, add(0x20, QE_LEVELS)), QE)
            mstore(add(to, add(0x20, QE)), levels.length)
            let size := shl(5, levels.length)
            calldatacopy(add(to, add(0x40, QE)), levels.offset, size)
            digest := keccak256(to, add(add(0x40, QE), size))
        }
    }
}
