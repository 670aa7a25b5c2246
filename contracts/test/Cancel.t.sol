// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

contract CancelTest is Fixture {
    Agreement private a;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        a.access.quotaPerRequester = 3;
        r = _taskRequest(_activate(a));
        taskId = _request(r);
    }

    function test_givesFeeAndQuotaBack() public {
        vm.expectEmit(address(oracle));
        emit I.TaskCancelled(taskId, r.agreementId, requester);
        vm.prank(requester);
        oracle.cancel(r);
        assertEq(_state(taskId), TaskState.CANCELLED);
        assertEq(oracle.balanceOf(requester), FEE);
        assertEq(registry.agreement(r.agreementId).used, 0);
        assertEq(registry.usedBy(r.agreementId, requester), 0);
    }

    function test_cancelsInTheLastBlockOfTheDelay() public {
        vm.roll(vm.getBlockNumber() + RELEASE_DELAY);
        vm.prank(requester);
        oracle.cancel(r);
        assertEq(_state(taskId), TaskState.CANCELLED);
    }

    function test_refusesPastTheDelay() public {
        uint256 until = vm.getBlockNumber() + RELEASE_DELAY;
        vm.roll(until + 1);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_CancelClosed.selector, until + 1, until));
    }

    function test_refusesWhereTheDelayIsZero() public {
        a.keys.releaseDelay = 0;
        r = _taskRequest(_activate(a));
        _request(r);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_CancelClosed.selector, vm.getBlockNumber(), 0));
    }

    function test_refusesAnother() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequester.selector, stranger, requester));
        vm.prank(stranger);
        oracle.cancel(r);
    }

    function test_refusesTwice() public {
        vm.prank(requester);
        oracle.cancel(r);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.CANCELLED));
    }

    function test_refusesUnknownTask() public {
        r.nonce = keccak256("unknown");
        bytes32 unknown = oracle.taskIdOf(r);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, unknown, TaskState.NONE));
    }

    function test_refusesSettledTask() public {
        _register();
        _fulfil(a, r, _result(r));
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.FULFILLED));
    }

    function test_cancelsUnderARevokedAgreement() public {
        vm.prank(hospitalA);
        registry.revoke(r.agreementId);
        vm.prank(requester);
        oracle.cancel(r);
        assertEq(oracle.balanceOf(requester), FEE);
    }

    function test_cancelledTaskCannotBeRequestedAgain() public {
        vm.prank(requester);
        oracle.cancel(r);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, taskId, TaskState.CANCELLED));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _noProof(), "");
    }

    function _refuses(bytes memory err) private {
        vm.expectRevert(err);
        vm.prank(requester);
        oracle.cancel(r);
    }
}
