// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEnclaveRegistry as I} from "../src/interfaces/IEnclaveRegistry.sol";
import {Fixture} from "./Fixture.sol";

contract RetireTest is Fixture {
    bytes32 private anchor;

    function setUp() public override {
        super.setUp();
        anchor = _register();
    }

    function test_signerRetiresItself() public {
        vm.expectEmit(address(enclaves));
        emit I.EnclaveRetired(anchor, enclave);
        vm.prank(enclave);
        enclaves.retire(anchor, enclave, "");
        assertTrue(_standing().retired);
        assertFalse(enclaves.isValid(anchor, enclave));
    }

    function test_anyoneRelaysItsRetirement() public {
        bytes memory signature = sign(enclaveKey, enclaves.retireDigest(enclave));
        vm.prank(stranger);
        enclaves.retire(anchor, enclave, signature);
        assertFalse(enclaves.isValid(anchor, enclave));
    }

    function test_refusesRetirementByAnother() public {
        bytes memory signature = sign(operatorKey, enclaves.retireDigest(enclave));
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_WrongRetirement.selector, operator, enclave));
        enclaves.retire(anchor, enclave, signature);
    }

    function test_refusesHostSignatureAsRetirement() public {
        bytes memory signature = sign(enclaveKey, enclaves.hostDigest(enclave));
        vm.expectPartialRevert(I.EnclaveRegistry_WrongRetirement.selector);
        enclaves.retire(anchor, enclave, signature);
    }

    function test_refusesUnknownIdentity() public {
        bytes32 another = keccak256("another anchor");
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_Unknown.selector, another, enclave));
        vm.prank(enclave);
        enclaves.retire(another, enclave, "");
    }

    function test_refusesTwice() public {
        vm.startPrank(enclave);
        enclaves.retire(anchor, enclave, "");
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_Retired.selector, anchor, enclave));
        enclaves.retire(anchor, enclave, "");
    }

    function test_retiredNeverRenews() public {
        vm.prank(enclave);
        enclaves.retire(anchor, enclave, "");
        _nextBlock();
        I.Registration memory r = _registration();
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_Retired.selector, anchor, enclave));
        enclaves.register(r);
    }
}
