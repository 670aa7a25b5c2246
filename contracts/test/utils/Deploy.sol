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
        bytes memory code = bytes.concat(_creationCode(artifact), arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
            if iszero(deployed) {
                let free := mload(0x40)
                returndatacopy(free, 0, returndatasize())
                revert(free, returndatasize())
            }
        }
    }

    function _creationCode(string memory artifact) internal view returns (bytes memory) {
        if (!vm.envOr("SHIPPED", false)) return vm.getCode(artifact);
        string memory shipped = string.concat("oracle/abi/", _afterColon(artifact), ".json");
        // Tests' own contracts are not there; `vm.exists` is not allowed for such a path under an inline configuration.
        try vm.getCode(shipped) returns (bytes memory code) {
            return code;
        } catch {
            return vm.getCode(artifact);
        }
    }

    function _afterColon(string memory artifact) private pure returns (string memory name) {
        bytes memory text = bytes(artifact);
        uint256 start = text.length;
        while (start != 0 && text[start - 1] != ":") --start;
        name = new string(text.length - start);
        for (uint256 i; i < bytes(name).length; ++i) {
            bytes(name)[i] = text[start + i];
        }
    }
}
