// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

contract ExpireTest is Fixture {
    Agreement private a;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        r = _taskRequest(_activate(a));
        taskId = _request(r);
    }

    function test_anyoneExpiresAndTheRequesterIsRefunded() public {
        vm.warp(uint256(r.deadline) + 1);
        vm.expectEmit(address(oracle));
        emit I.TaskExpired(taskId, r.agreementId, requester);
        vm.prank(stranger);
        oracle.expire(r);
        assertEq(_state(taskId), TaskState.EXPIRED);
        assertEq(oracle.balanceOf(requester), FEE);
        // R9: no quota comes back.
        assertEq(registry.agreement(r.agreementId).used, 1);
    }

    function test_refusesUntilTheDeadlinePassed() public {
        vm.warp(r.deadline);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_DeadlineNotPassed.selector, r.deadline, r.deadline));
        oracle.expire(r);
    }

    function test_refusesTwice() public {
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.EXPIRED));
        oracle.expire(r);
    }

    function test_refusesSettledTask() public {
        _register();
        _fulfil(a, r, _result(r));
        vm.warp(uint256(r.deadline) + 1);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.FULFILLED));
        oracle.expire(r);
    }
}
