// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";

contract CancelTest is TaskFixture {
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
        oracle.cancel(r, _anyone());
        assertEq(_state(r), TaskState.CANCELLED);
        assertEq(_balance(requester), FEE);
        assertEq(registry.agreement(r.agreementId).used, 0);
        assertEq(registry.usedBy(r.agreementId, requester), 0);
    }

    function test_cancelsInTheLastBlockOfTheDelay() public {
        vm.roll(vm.getBlockNumber() + RELEASE_DELAY);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(_state(r), TaskState.CANCELLED);
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
        oracle.cancel(r, _anyone());
    }

    function test_refusesTwice() public {
        vm.prank(requester);
        oracle.cancel(r, _anyone());
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
        oracle.cancel(r, _anyone());
        assertEq(_balance(requester), FEE);
    }

    function test_cancelledTaskCannotBeRequestedAgain() public {
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, taskId, TaskState.CANCELLED));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), "");
    }

    function test_refusesOtherAdmission() public {
        IAgreementRegistry.Admission memory admission = _anyone();
        admission.requesters = keccak256("others");
        vm.expectPartialRevert(IAgreementRegistry.AgreementRegistry_WrongAdmission.selector);
        vm.prank(requester);
        oracle.cancel(r, admission);
    }

    /// @dev No broker released, so nothing was spent: a deadline that passed does not matter.
    function test_cancelsPastTheDeadline() public {
        vm.warp(uint256(r.deadline) + 1);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(_state(r), TaskState.CANCELLED);
    }

    function test_keepsNoMinimumFee() public {
        a.price.minFee = FEE;
        r = _taskRequest(_activate(a));
        _request(r);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(_balance(requester), FEE);
        assertEq(oracle.poolOf(r.agreementId), 0);
    }

    function test_givesATokensFeeBackInTheToken() public {
        address coin = _token("Coin");
        r = _taskRequest(_activate(_inToken(coin)));
        _requestInToken(r);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(oracle.balanceOf(coin, requester), FEE);
        assertEq(_balance(requester), 0);
    }

    function testFuzz_isOpenForTheDelayOnly(uint32 delay, uint256 blocks) public {
        a.keys.releaseDelay = uint32(bound(delay, 0, 1000));
        a.salt = keccak256("another");
        r = _taskRequest(_activate(a));
        taskId = _request(r);
        uint256 from = vm.getBlockNumber();
        vm.roll(from + bound(blocks, 0, 1001));
        uint256 until = a.keys.releaseDelay == 0 ? 0 : from + a.keys.releaseDelay;
        assertEq(oracle.task(r.agreementId, taskId).cancelUntil, until);
        if (vm.getBlockNumber() > until) {
            _refuses(abi.encodeWithSelector(I.ComputeOracle_CancelClosed.selector, vm.getBlockNumber(), until));
        } else {
            vm.prank(requester);
            oracle.cancel(r, _anyone());
            assertEq(_balance(requester), FEE);
        }
    }

    function _refuses(bytes memory err) private {
        vm.expectRevert(err);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
    }
}
