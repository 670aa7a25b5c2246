// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";

contract ExpireTest is TaskFixture {
    Agreement private a;
    TaskRequest private r;
    bytes32 private taskId;
    I.Pricing private pricing;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        _ask();
    }

    function test_anyoneExpiresAndTheRequesterIsRefunded() public {
        vm.warp(uint256(r.deadline) + 1);
        vm.expectEmit(address(oracle));
        emit I.TaskExpired(taskId, r.agreementId, requester);
        vm.prank(stranger);
        oracle.expire(r, pricing);
        assertEq(_state(r), TaskState.EXPIRED);
        assertEq(_balance(requester), FEE);
        // R9: no quota comes back.
        assertEq(registry.agreement(r.agreementId).used, 1);
    }

    function test_refusesUntilTheDeadlinePassed() public {
        vm.warp(r.deadline);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_DeadlineNotPassed.selector, r.deadline, r.deadline));
        oracle.expire(r, pricing);
    }

    function test_refusesTwice() public {
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, pricing);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.EXPIRED));
        oracle.expire(r, pricing);
    }

    function test_refusesSettledTask() public {
        _register();
        _fulfil(a, r, _result(r));
        vm.warp(uint256(r.deadline) + 1);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.FULFILLED));
        oracle.expire(r, pricing);
    }

    function test_keepsTheMinimumFeeForTheShares() public {
        a.price.minFee = FEE / 4;
        _ask();
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, pricing);
        assertEq(_balance(requester), FEE - FEE / 4);
        assertEq(oracle.poolOf(r.agreementId), FEE / 4);
    }

    function test_refundsNothingWhereTheMinimumIsTheFee() public {
        a.price.minFee = FEE;
        _ask();
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, pricing);
        assertEq(_balance(requester), 0);
        assertEq(oracle.poolOf(r.agreementId), FEE);
    }

    function testFuzz_splitsTheFee(uint128 fee, uint128 minFee) public {
        a.price.fee = fee;
        a.price.failedFee = 0;
        a.price.minFee = bound(minFee, 0, fee);
        r = _taskRequest(_activate(a));
        r.maxFee = fee;
        vm.deal(requester, fee);
        vm.prank(requester);
        oracle.request{value: fee}(r, _anyone(), "");
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(oracle.poolOf(r.agreementId), a.price.minFee);
        assertEq(_balance(requester), fee - a.price.minFee);
    }

    function test_refundsATokensFeeInTheToken() public {
        address coin = _token("Coin");
        a = _inToken(coin);
        r = _taskRequest(_activate(a));
        _requestInToken(r);
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(oracle.balanceOf(coin, requester), FEE);
        assertEq(_balance(requester), 0);
    }

    function test_refusesAnotherPrice() public {
        vm.warp(uint256(r.deadline) + 1);
        bytes32 expected = registry.settlementHashOf(r.agreementId);
        pricing.price.minFee = 1;
        bytes32 got = hashing.settlementHash(pricing.enclaveRegistry, pricing.teeHash, pricing.price);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, expected));
        oracle.expire(r, pricing);
    }

    function test_refusesAnotherEnclavePolicy() public {
        vm.warp(uint256(r.deadline) + 1);
        pricing.teeHash = keccak256("another");
        vm.expectPartialRevert(I.ComputeOracle_WrongSettlement.selector);
        oracle.expire(r, pricing);
    }

    function test_refusesUnknownTask() public {
        vm.warp(uint256(r.deadline) + 1);
        r.nonce = keccak256("unknown");
        bytes32 unknown = oracle.taskIdOf(r);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, unknown, TaskState.NONE));
        oracle.expire(r, pricing);
    }

    /// @dev R8: whoever revokes an agreement cannot keep its requesters' money.
    function test_expiresUnderARevokedAgreement() public {
        vm.prank(hospitalA);
        registry.revoke(r.agreementId);
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, pricing);
        assertEq(_balance(requester), FEE);
    }

    function _ask() private {
        r = _taskRequest(_activate(a));
        taskId = _request(r);
        pricing = _pricing(a);
    }
}
