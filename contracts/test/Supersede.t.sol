// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./utils/Vm.sol";

/// @notice An activation that ends the agreement before it, in the same transaction.
contract SupersedeTest is Fixture {
    Agreement private a;
    bytes32 private old;
    /// The same terms again, to supersede `old`.
    Agreement private next;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        old = _activate(a);
        next = a;
        next.supersedes = old;
    }

    function test_activationEndsThePredecessorAtOnce() public {
        bytes32 successor = registry.agreementIdOf(next);
        vm.expectEmit(address(registry));
        emit I.AgreementSuperseded(old, successor);
        vm.expectEmit(address(registry));
        emit I.AgreementActivated(successor, next, _signatures(next));
        _activate(next);
        assertEq(uint8(registry.status(old)), uint8(I.Status.Superseded));
        assertEq(uint8(registry.status(successor)), uint8(I.Status.Active));

        // In the same block.
        TaskRequest memory r = _taskRequest(old);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, old, I.Status.Superseded));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), "");
        _request(_taskRequest(successor));
    }

    function test_whatWasRequestedBeforeStillSettles() public {
        TaskRequest memory r = _taskRequest(old);
        _request(r);
        _register();
        _activate(next);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_whatWasRequestedBeforeIsStillCancelled() public {
        TaskRequest memory r = _taskRequest(old);
        _request(r);
        _activate(next);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(_state(r), TaskState.CANCELLED);
        assertEq(registry.agreement(old).used, 0);
    }

    function test_nothingLeavesSuperseded() public {
        _activate(next);
        bytes memory ended = abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, old, I.Status.Superseded);
        vm.startPrank(hospitalA);
        vm.expectRevert(ended);
        registry.suspend(old);
        vm.expectRevert(ended);
        registry.resume(old);
        vm.expectRevert(ended);
        registry.revoke(old);
        vm.expectRevert(ended);
        registry.dropMeasurement(old, MEASUREMENT);
        vm.expectRevert(ended);
        registry.dropHost(old, PLATFORM);
        vm.stopPrank();
        bytes[] memory signatures = _signatures(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, old));
        registry.activate(a, signatures, _noAuditors());
    }

    // Which predecessors

    function test_suspendedPredecessorEndsToo() public {
        vm.prank(hospitalB);
        registry.suspend(old);
        _activate(next);
        assertEq(uint8(registry.status(old)), uint8(I.Status.Superseded));
        // The suspension does not come along, nor can it be taken back.
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, old, I.Status.Superseded));
        vm.prank(hospitalB);
        registry.resume(old);
        assertEq(uint8(registry.status(registry.agreementIdOf(next))), uint8(I.Status.Active));
    }

    /// Else whoever revokes it first could keep its successor from ever becoming active.
    function test_revokedPredecessorIsNoObstacle() public {
        vm.prank(hospitalB);
        registry.revoke(old);
        vm.recordLogs();
        _activate(next);
        _noSuperseding();
        assertEq(uint8(registry.status(old)), uint8(I.Status.Revoked));
    }

    function test_supersededPredecessorIsNoObstacle() public {
        _activate(next);
        Agreement memory third = next;
        third.salt = keccak256("another successor");
        vm.recordLogs();
        bytes32 id = _activate(third);
        _noSuperseding();
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
        assertEq(uint8(registry.status(old)), uint8(I.Status.Superseded));
    }

    function test_expiredPredecessorIsNoObstacle() public {
        vm.warp(a.notAfter);
        next.notAfter = a.notAfter + 1 days;
        next.activateBefore = a.notAfter + 1 days;
        _activate(next);
        assertEq(uint8(registry.status(old)), uint8(I.Status.Superseded));
    }

    function test_chainOfSuccessorsHasOneActiveEnd() public {
        bytes32 last = old;
        for (uint256 i; i < 4; ++i) {
            next.supersedes = last;
            bytes32 id = _activate(next);
            assertEq(uint8(registry.status(last)), uint8(I.Status.Superseded));
            assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
            last = id;
        }
    }

    function test_refusesAnUnknownPredecessor() public {
        next.supersedes = keccak256("unknown");
        _refuses(abi.encodeWithSelector(I.AgreementRegistry_UnknownPredecessor.selector, keccak256("unknown")));
    }

    function test_refusesADraftAsPredecessor() public {
        Agreement memory draft = a;
        draft.salt = keccak256("draft");
        next.supersedes = registry.agreementIdOf(draft);
        vm.prank(hospitalA);
        registry.approve(next.supersedes);
        _refuses(abi.encodeWithSelector(I.AgreementRegistry_UnknownPredecessor.selector, next.supersedes));
    }

    // Who may

    /// Whoever could revoke it alone may end it so, too (R8).
    function test_onePartyOfThePredecessorIsEnough() public {
        bytes32 id = registry.agreementIdOf(_ofStrangerAnd(hospitalB));
        registry.activate(_ofStrangerAnd(hospitalB), _two(id, hospitalBKey), _noAuditors());
        assertEq(uint8(registry.status(old)), uint8(I.Status.Superseded));
    }

    /// Not even with a consent of the predecessor's party that the successor does not need.
    function test_refusesWithoutAPartyOfThePredecessor() public {
        (address other, uint256 otherKey) = makeAddrAndKey("other");
        Agreement memory foreign = _ofStrangerAnd(other);
        bytes32 id = registry.agreementIdOf(foreign);
        vm.prank(hospitalA);
        registry.approve(id);
        bytes[] memory signatures = _two(id, otherKey);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoPartyOfPredecessor.selector, old));
        vm.prank(hospitalA);
        registry.activate(foreign, signatures, _noAuditors());
        assertEq(uint8(registry.status(old)), uint8(I.Status.Active));
    }

    /// An approval of the predecessor made nobody a party of it.
    function test_refusesWhoOnlyApprovedThePredecessor() public {
        (address other, uint256 otherKey) = makeAddrAndKey("other");
        vm.prank(stranger);
        registry.approve(old);
        Agreement memory foreign = _ofStrangerAnd(other);
        bytes[] memory signatures = _two(registry.agreementIdOf(foreign), otherKey);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoPartyOfPredecessor.selector, old));
        registry.activate(foreign, signatures, _noAuditors());
    }

    /// Signatures of the successor are nothing until it activates.
    function test_predecessorStandsWhileTheSuccessorIsADraft() public {
        bytes32 id = registry.agreementIdOf(next);
        registry.sign(id, hospitalA, sign(hospitalAKey, id));
        assertEq(uint8(registry.status(old)), uint8(I.Status.Active));
        bytes[] memory signatures = _signatures(next);
        signatures[2] = "";
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalB, id));
        registry.activate(next, signatures, _noAuditors());
        assertEq(uint8(registry.status(old)), uint8(I.Status.Active));
        _request(_taskRequest(old));
    }

    /// `next`, but of a stranger's function and one owner's data.
    function _ofStrangerAnd(address owner) private view returns (Agreement memory b) {
        b = next;
        b.fn.owner = stranger;
        b.data[0].owner = owner;
        b.data[1].owner = owner;
    }

    function _two(bytes32 id, uint256 ownerKey) private returns (bytes[] memory signatures) {
        (, uint256 strangerKey) = makeAddrAndKey("stranger");
        signatures = new bytes[](2);
        signatures[0] = sign(strangerKey, id);
        signatures[1] = sign(ownerKey, id);
    }

    function _noSuperseding() private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            assertNotEq(logs[i].topics[0], I.AgreementSuperseded.selector);
        }
    }

    function _refuses(bytes memory err) private {
        bytes[] memory signatures = _signatures(next);
        vm.expectRevert(err);
        registry.activate(next, signatures, _noAuditors());
    }
}
