// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {Fixture} from "./Fixture.sol";

contract ApproveTest is Fixture {
    Agreement private a;
    bytes32 private id;
    bytes[] private signatures;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = registry.agreementIdOf(a);
        signatures = _signatures(a);
    }

    function test_approvalStandsForASignature() public {
        vm.expectEmit(address(registry));
        emit I.AgreementApproved(id, hospitalA);
        vm.prank(hospitalA);
        registry.approve(id);
        assertTrue(registry.isApproved(id, hospitalA));
        assertEq(registry.consentOf(id, hospitalA), 0);

        signatures[1] = "";
        registry.activate(a, signatures);
        assertEq(registry.consentOf(id, hospitalA), 3);
    }

    function test_everyPartyMayApprove() public {
        address[] memory parties = registry.partiesOf(a);
        for (uint256 i; i < parties.length; ++i) {
            vm.prank(parties[i]);
            registry.approve(id);
        }
        registry.activate(a, new bytes[](3));
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
    }

    function test_approvalOfAnotherAgreementDoesNotCount() public {
        vm.prank(hospitalA);
        registry.approve(keccak256("another"));
        signatures[1] = "";
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalA, id));
        registry.activate(a, signatures);
    }

    function test_approvalMakesNobodyAParty() public {
        vm.prank(stranger);
        registry.approve(id);
        registry.activate(a, signatures);
        assertEq(registry.consentOf(id, stranger), 0);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAParty.selector, stranger, id));
        vm.prank(stranger);
        registry.suspend(id);
    }

    function test_refusesAfterRevokingTheDraft() public {
        vm.startPrank(hospitalA);
        registry.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.approve(id);
    }
}
