// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {TaskState} from "../src/libraries/Constants.sol";
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

    // Suspending

    function test_anyPartySuspendsAndResumes() public {
        vm.expectEmit(address(registry));
        emit I.AgreementSuspended(id, hospitalB);
        vm.prank(hospitalB);
        registry.suspend(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Suspended));
        assertTrue(registry.isSuspendedBy(id, hospitalB));
        assertFalse(registry.isSuspendedBy(id, hospitalA));
        _requestRefused(I.Status.Suspended);

        vm.expectEmit(address(registry));
        emit I.AgreementResumed(id, hospitalB);
        vm.prank(hospitalB);
        registry.resume(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
        assertFalse(registry.isSuspendedBy(id, hospitalB));
        _request(_taskRequest(id));
    }

    function test_suspendedByTwoItIsResumedOneByOne() public {
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.prank(hospitalB);
        registry.suspend(id);
        assertEq(registry.agreement(id).suspensions, 2);
        vm.prank(hospitalA);
        registry.resume(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Suspended));
        assertEq(registry.agreement(id).suspensions, 1);
        _requestRefused(I.Status.Suspended);
        vm.prank(hospitalB);
        registry.resume(id);
        assertEq(registry.agreement(id).suspensions, 0);
        _request(_taskRequest(id));
    }

    /// Whatever the order: suspended while anyone's suspension stands, and every refusal by name.
    function testFuzz_isSuspendedExactlyWhileAnyoneIs(uint8[12] memory moves) public {
        address[] memory parties = registry.partiesOf(a);
        bool[3] memory standing;
        uint256 count;
        for (uint256 i; i < moves.length; ++i) {
            uint256 who = moves[i] % 3;
            bool suspending = moves[i] >= 128;
            bool legal = standing[who] != suspending;
            if (!legal) {
                vm.expectRevert(
                    abi.encodeWithSelector(
                        suspending
                            ? I.AgreementRegistry_AlreadySuspended.selector
                            : I.AgreementRegistry_NotSuspended.selector,
                        parties[who],
                        id
                    )
                );
            }
            vm.prank(parties[who]);
            if (suspending) registry.suspend(id);
            else registry.resume(id);
            if (legal) {
                standing[who] = suspending;
                count = suspending ? count + 1 : count - 1;
            }
            assertEq(registry.agreement(id).suspensions, count);
            I.Status expected = count == 0 ? I.Status.Active : I.Status.Suspended;
            assertEq(uint8(registry.status(id)), uint8(expected));
        }
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

    // Revoking

    function test_anyPartyRevokesForEver() public {
        vm.expectEmit(address(registry));
        emit I.AgreementRevoked(id, author);
        vm.prank(author);
        registry.revoke(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
        assertTrue(registry.isRevokedBy(id, author));
        assertFalse(registry.isRevokedBy(id, hospitalA));
        _requestRefused(I.Status.Revoked);
        _nothingLeaves(I.Status.Revoked);
    }

    function test_revokesWhileSuspended() public {
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.prank(hospitalB);
        registry.revoke(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
        // Nor does the one whose suspension stood bring it back.
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, I.Status.Revoked));
        vm.prank(hospitalA);
        registry.resume(id);
    }

    function test_refusesToRevokeTwice() public {
        vm.startPrank(hospitalA);
        registry.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.revoke(id);
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
        assertTrue(registry.isRevokedBy(draft, hospitalA));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_RevokedBy.selector, hospitalA, draft));
        registry.activate(a, signatures, _noAuditors());
    }

    /// Whoever sees the revocation of a draft coming and activates it first gains no request: the same call then ends it.
    function test_revocationThatWasFrontRunEndsTheAgreement() public {
        a.salt = keccak256("draft");
        id = _activate(a);
        vm.prank(hospitalA);
        registry.revoke(id);
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
        _requestRefused(I.Status.Revoked);
    }

    /// Else anyone could kill anyone's draft, by front-running its activation.
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

    // Dropping

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
        vm.prank(author);
        registry.dropHost(id, PLATFORM);
        assertTrue(registry.isDropped(id, host));
        assertTrue(registry.isDropped(id, PLATFORM));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyDropped.selector, id, host));
        vm.prank(hospitalA);
        registry.dropHost(id, host);
    }

    function test_dropsWhileSuspended() public {
        vm.startPrank(hospitalA);
        registry.suspend(id);
        registry.dropMeasurement(id, MEASUREMENT);
        assertTrue(registry.isDropped(id, MEASUREMENT));
    }

    // No one censors by outcome

    function test_whatWasRequestedBeforeANarrowingSettles() public {
        TaskRequest memory r = _taskRequest(id);
        _request(r);
        _register();
        vm.startPrank(hospitalA);
        registry.dropMeasurement(id, MEASUREMENT);
        registry.dropHost(id, PLATFORM);
        registry.dropHost(id, bytes32(uint256(uint160(operator))));
        registry.suspend(id);
        registry.revoke(id);
        vm.stopPrank();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    // Who may not

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

    function test_refusesPartiesOfAnotherAgreement() public {
        a.salt = keccak256("another");
        a.data[1].owner = hospitalA;
        bytes[] memory signatures = new bytes[](2);
        bytes32 another = registry.agreementIdOf(a);
        signatures[0] = sign(authorKey, another);
        signatures[1] = sign(hospitalAKey, another);
        registry.activate(a, signatures, _noAuditors());
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAParty.selector, hospitalB, another));
        vm.prank(hospitalB);
        registry.revoke(another);
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

    function _nothingLeaves(I.Status status) private {
        bytes memory ended = abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, status);
        vm.startPrank(hospitalA);
        vm.expectRevert(ended);
        registry.suspend(id);
        vm.expectRevert(ended);
        registry.resume(id);
        vm.expectRevert(ended);
        registry.revoke(id);
        vm.expectRevert(ended);
        registry.dropMeasurement(id, MEASUREMENT);
        vm.expectRevert(ended);
        registry.dropHost(id, PLATFORM);
        vm.stopPrank();
        bytes[] memory signatures = _signatures(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, id));
        registry.activate(a, signatures, _noAuditors());
        assertEq(uint8(registry.status(id)), uint8(status));
    }

    function _requestRefused(I.Status status) private {
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, status));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), "");
    }
}
