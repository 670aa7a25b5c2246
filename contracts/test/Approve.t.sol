// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {ConsentKind} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @notice approve: consent by one's own transaction, ahead of the activation (R7).
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
        emit I.AgreementApproved(id, hospitalA, ConsentKind.OWN_TRANSACTION, "");
        vm.prank(hospitalA);
        registry.approve(id);
        assertEq(registry.approvalOf(id, hospitalA), ConsentKind.OWN_TRANSACTION);
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.NONE);

        signatures[1] = "";
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.OWN_TRANSACTION);
    }

    function test_everyPartyMayApprove() public {
        address[] memory parties = registry.partiesOf(a);
        for (uint256 i; i < parties.length; ++i) {
            vm.prank(parties[i]);
            registry.approve(id);
        }
        registry.activate(a, new bytes[](3), _noAuditors());
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
    }

    function test_approvalOfAnotherAgreementDoesNotCount() public {
        vm.prank(hospitalA);
        registry.approve(keccak256("another"));
        _refusesSilentA();
    }

    function test_approvalOfAnotherAccountDoesNotCount() public {
        vm.prank(stranger);
        registry.approve(id);
        _refusesSilentA();
    }

    /// An approval does not excuse a signature that is none.
    function test_badSignatureIsRefusedBesideAnApproval() public {
        vm.prank(hospitalA);
        registry.approve(id);
        signatures[1] = signatures[0];
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.activate(a, signatures, _noAuditors());
    }

    function test_approvalMakesNobodyAParty() public {
        vm.prank(stranger);
        registry.approve(id);
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, stranger), ConsentKind.NONE);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAParty.selector, stranger, id));
        vm.prank(stranger);
        registry.suspend(id);
    }

    function test_revokingTheDraftUndoesAnApproval() public {
        vm.startPrank(hospitalA);
        registry.approve(id);
        registry.revoke(id);
        vm.stopPrank();
        signatures[1] = "";
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_RevokedBy.selector, hospitalA, id));
        registry.activate(a, signatures, _noAuditors());
    }

    function test_refusesAfterRevokingTheDraft() public {
        vm.startPrank(hospitalA);
        registry.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.approve(id);
    }

    function _refusesSilentA() private {
        signatures[1] = "";
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalA, id));
        registry.activate(a, signatures, _noAuditors());
    }
}
