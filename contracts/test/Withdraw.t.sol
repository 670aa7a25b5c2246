// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Takes no ether.
contract Refuser {}

contract Reenterer {
    I private immutable oracle;
    bytes public seen;

    constructor(I oracle_) {
        oracle = oracle_;
    }

    receive() external payable {
        try oracle.withdraw(payable(address(this))) {
            seen = "entered";
        } catch (bytes memory err) {
            seen = err;
        }
    }
}

contract WithdrawTest is Fixture {
    function setUp() public override {
        super.setUp();
        TaskRequest memory r = _taskRequest(_activate(_agreement()));
        _request(r);
        vm.prank(requester);
        oracle.cancel(r);
    }

    function test_paysTheWholeBalanceOut() public {
        address payable to = payable(makeAddr("cold wallet"));
        vm.expectEmit(address(oracle));
        emit I.Withdrawn(requester, to, FEE);
        vm.prank(requester);
        assertEq(oracle.withdraw(to), FEE);
        assertEq(to.balance, FEE);
        assertEq(oracle.balanceOf(requester), 0);
        assertEq(address(oracle).balance, 0);
    }

    function test_refusesTwice() public {
        vm.startPrank(requester);
        oracle.withdraw(payable(requester));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, requester));
        oracle.withdraw(payable(requester));
    }

    function test_refusesWhoHasNothing() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, stranger));
        vm.prank(stranger);
        oracle.withdraw(payable(stranger));
    }

    function test_keepsTheBalanceWhenTheReceiverRefuses() public {
        address payable refuser = payable(address(new Refuser()));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, refuser, FEE));
        vm.prank(requester);
        oracle.withdraw(refuser);
        assertEq(oracle.balanceOf(requester), FEE);
    }

    function test_receiverCannotReenter() public {
        Reenterer receiver = new Reenterer(oracle);
        vm.prank(requester);
        oracle.withdraw(payable(address(receiver)));
        assertEq(
            receiver.seen(), abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        assertEq(address(receiver).balance, FEE);
    }
}
