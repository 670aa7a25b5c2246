// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {DevelopmentVerifier} from "../src/DevelopmentVerifier.sol";
import {VerifierStatement} from "../src/Types.sol";
import {IDevelopmentVerifier as I} from "../src/interfaces/IDevelopmentVerifier.sol";
import {Fixture} from "./Fixture.sol";

contract DevelopmentVerifierTest is Fixture {
    function test_givesTheStatementAndItsOwnAnchor() public view {
        VerifierStatement memory s = _statement(keccak256("block"));
        (VerifierStatement memory got, bytes32 anchor) = verifier.verify(_evidence(s));
        assertEq(keccak256(abi.encode(got)), keccak256(abi.encode(s)));
        assertEq(
            anchor,
            sha256(abi.encode(sha256("enclave-oracle/development-anchor/1"), block.chainid, verifier.appraiser()))
        );
        assertEq(anchor, verifier.anchor());
    }

    function testFuzz_refusesAChangedStatement(uint256 word, uint8 bit) public {
        VerifierStatement memory s = _statement(keccak256("block"));
        bytes memory evidence = _evidence(s);
        word = bound(word, 0, 10);
        // The lowest bits are in every type's range.
        uint256 mask = 1 << bound(bit, 0, 7);
        assembly {
            let at := add(add(evidence, 0x20), mul(word, 0x20))
            mstore(at, xor(mload(at), mask))
        }
        vm.expectPartialRevert(I.DevelopmentVerifier_WrongAppraiser.selector);
        verifier.verify(evidence);
    }

    function test_refusesSignatureForAnotherVerifier() public {
        bytes memory evidence = _evidence(_statement(keccak256("block")));
        DevelopmentVerifier another = _deployVerifier(verifier.appraiser());
        vm.expectPartialRevert(I.DevelopmentVerifier_WrongAppraiser.selector);
        another.verify(evidence);
    }

    function test_refusesAnotherLength() public {
        bytes memory evidence = _evidence(_statement(keccak256("block")));
        vm.expectRevert(abi.encodeWithSelector(I.DevelopmentVerifier_BadEvidenceLength.selector, 513, 512));
        verifier.verify(bytes.concat(evidence, hex"00"));
        vm.expectRevert(abi.encodeWithSelector(I.DevelopmentVerifier_BadEvidenceLength.selector, 0, 512));
        verifier.verify("");
    }

    function test_deploysOnDevelopmentChainsOnly() public {
        uint256[3] memory allowed = [uint256(31_337), 1337, 31_338];
        for (uint256 i; i < allowed.length; ++i) {
            vm.chainId(allowed[i]);
            _deployVerifier(stranger);
        }
        uint256[4] memory refused = [uint256(1), 10, 11_155_111, 8453];
        for (uint256 i; i < refused.length; ++i) {
            vm.chainId(refused[i]);
            vm.expectRevert(abi.encodeWithSelector(I.DevelopmentVerifier_NotADevelopmentChain.selector, refused[i]));
            _deployVerifier(stranger);
        }
    }

    function test_refusesZeroAppraiser() public {
        vm.expectRevert(I.DevelopmentVerifier_ZeroAppraiser.selector);
        _deployVerifier(address(0));
    }
}
