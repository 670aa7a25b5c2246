// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ConsentKind} from "../src/libraries/Constants.sol";
import {Signatures} from "../src/libraries/Signatures.sol";
import {Test} from "./utils/Test.sol";

contract SignaturesHarness {
    function kindOf(address account, bytes32 digest, bytes calldata signature) external view returns (uint8) {
        return Signatures.kindOf(account, digest, signature);
    }
}

/// kindOf, where the contracts never call it
/// ├── the zero address, which is what a signature that is none recovers to: NONE
/// └── an account without code that answers with the magic value: NONE
contract SignaturesTest is Test {
    SignaturesHarness private harness = new SignaturesHarness();

    function test_zeroAddressNeverSigned() public view {
        assertEq(harness.kindOf(address(0), keccak256("any"), new bytes(65)), ConsentKind.NONE);
    }

    /// The precompile at 4 answers with what it is asked: selector and digest, which here begin like the magic value.
    function test_onlyDeployedCodeConsentsByERC1271() public view {
        assertEq(address(4).code.length, 0);
        assertEq(harness.kindOf(address(4), bytes32(uint256(7)), new bytes(65)), ConsentKind.NONE);
    }
}
