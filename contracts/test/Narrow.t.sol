// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {Fixture} from "./Fixture.sol";

/// @notice suspend, resume, revoke, dropMeasurement, dropHost (R8).
contract NarrowTest is Fixture {
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = _activate(a);
    }

    function test_anyPartySuspendsAndResumes() public {
        vm.expectEmit(address(registry));
        emit I.AgreementSuspended(id, hospitalB);
        vm.prank(hospitalB);
        registry.suspend(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Suspended));
        assertTrue(registry.isSuspendedBy(id, hospitalB));
        _requestRefused(I.Status.Suspended);

        vm.expectEmit(address(registry));
        emit I.AgreementResumed(id, hospitalB);
        vm.prank(hospitalB);
        registry.resume(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
        _request(_taskRequest(id));
    }

    function test_resumesOnlyWhenTheLastPartyDid() public {
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.prank(hospitalB);
        registry.suspend(id);
        vm.prank(hospitalA);
        registry.resume(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Suspended));
        assertEq(registry.agreement(id).suspensions, 1);
    }

    function test_refusesToResumeForAnother() public {
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotSuspended.selector, hospitalB, id));
        vm.prank(hospitalB);
        registry.resume(id);
    }

    function test_refusesToSuspendTwice() public {
        vm.startPrank(hospitalA);
        registry.suspend(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadySuspended.selector, hospitalA, id));
        registry.suspend(id);
    }

    function test_anyPartyRevokesForEver() public {
        vm.expectEmit(address(registry));
        emit I.AgreementRevoked(id, author);
        vm.prank(author);
        registry.revoke(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
        assertTrue(registry.isRevokedBy(id, author));
        _requestRefused(I.Status.Revoked);

        bytes memory revoked = abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, I.Status.Revoked);
        vm.startPrank(hospitalA);
        vm.expectRevert(revoked);
        registry.suspend(id);
        vm.expectRevert(revoked);
        registry.resume(id);
        vm.expectRevert(revoked);
        registry.revoke(id);
        vm.stopPrank();
        bytes[] memory signatures = _signatures(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, id));
        registry.activate(a, signatures);
    }

    function test_revokesWhileSuspended() public {
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.prank(hospitalB);
        registry.revoke(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
    }

    function test_draftRevokedByAPartyNeverActivates() public {
        a.salt = keccak256("draft");
        bytes32 draft = registry.agreementIdOf(a);
        bytes[] memory signatures = _signatures(a);
        vm.expectEmit(address(registry));
        emit I.AgreementRevoked(draft, hospitalA);
        vm.prank(hospitalA);
        registry.revoke(draft);
        assertEq(uint8(registry.status(draft)), uint8(I.Status.None));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_RevokedBy.selector, hospitalA, draft));
        registry.activate(a, signatures);
    }

    function test_draftRevokedByAStrangerActivates() public {
        a.salt = keccak256("draft");
        bytes32 draft = registry.agreementIdOf(a);
        vm.prank(stranger);
        registry.revoke(draft);
        assertTrue(registry.isRevokedBy(draft, stranger));
        _activate(a);
    }

    function test_refusesToRevokeADraftTwice() public {
        vm.startPrank(hospitalA);
        registry.revoke(keccak256("draft"));
        vm.expectRevert(
            abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, keccak256("draft"))
        );
        registry.revoke(keccak256("draft"));
    }

    function test_anyPartyDropsAMeasurement() public {
        vm.expectEmit(address(registry));
        emit I.MeasurementDropped(id, MEASUREMENT, hospitalA);
        vm.startPrank(hospitalA);
        registry.dropMeasurement(id, MEASUREMENT);
        assertTrue(registry.isDropped(id, MEASUREMENT));
        assertFalse(registry.isDropped(keccak256("another"), MEASUREMENT));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyDropped.selector, id, MEASUREMENT));
        registry.dropMeasurement(id, MEASUREMENT);
    }

    function test_anyPartyDropsAHost() public {
        bytes32 host = bytes32(uint256(uint160(operator)));
        vm.expectEmit(address(registry));
        emit I.HostDropped(id, host, hospitalB);
        vm.prank(hospitalB);
        registry.dropHost(id, host);
        vm.prank(hospitalB);
        registry.dropHost(id, PLATFORM);
        assertTrue(registry.isDropped(id, host));
        assertTrue(registry.isDropped(id, PLATFORM));
    }

    function test_refusesStrangers() public {
        bytes memory notAParty = abi.encodeWithSelector(I.AgreementRegistry_NotAParty.selector, stranger, id);
        vm.startPrank(stranger);
        vm.expectRevert(notAParty);
        registry.suspend(id);
        vm.expectRevert(notAParty);
        registry.resume(id);
        vm.expectRevert(notAParty);
        registry.revoke(id);
        vm.expectRevert(notAParty);
        registry.dropMeasurement(id, MEASUREMENT);
        vm.expectRevert(notAParty);
        registry.dropHost(id, PLATFORM);
    }

    function test_refusesToNarrowWhatIsNotActive() public {
        bytes32 draft = keccak256("draft");
        bytes memory none = abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, draft, I.Status.None);
        vm.startPrank(hospitalA);
        vm.expectRevert(none);
        registry.suspend(draft);
        vm.expectRevert(none);
        registry.resume(draft);
        vm.expectRevert(none);
        registry.dropMeasurement(draft, MEASUREMENT);
        vm.expectRevert(none);
        registry.dropHost(draft, PLATFORM);
    }

    function _requestRefused(I.Status status) private {
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, status));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _noProof(), "");
    }
}
