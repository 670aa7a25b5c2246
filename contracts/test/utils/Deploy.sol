// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Test} from "./Test.sol";

/// @notice Deploys from forge's artifacts.
/// @dev With `new`, each test contract would hold every contract that it deploys, and the compiler would optimize them all
/// again for each: minutes instead of seconds.
abstract contract Deploy is Test {
    /// @param artifact such as "ComputeOracle.sol:ComputeOracle"
    /// @param arguments the constructor's, ABI-encoded
    function deploy(string memory artifact, bytes memory arguments) internal returns (address deployed) {
        bytes memory code = bytes.concat(vm.getCode(artifact), arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
            if iszero(deployed) {
                let free := mload(0x40)
                returndatacopy(free, 0, returndatasize())
                revert(free, returndatasize())
            }
        }
    }
}
