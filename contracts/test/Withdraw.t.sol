// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Coin} from "./utils/Tokens.sol";

/// @notice Takes no ether.
contract Refuser {}

/// @notice What tokens can do wrong is in Payments.t.sol, who may come back in is in Attacks.t.sol.
contract WithdrawTest is TaskFixture {
    Coin private coin;

    function setUp() public override {
        super.setUp();
        TaskRequest memory r = _taskRequest(_activate(_agreement()));
        _request(r);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        coin = Coin(_token("Coin"));
        r = _taskRequest(_activate(_inToken(address(coin))));
        _requestInToken(r);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
    }

    function test_paysTheWholeBalanceOut() public {
        address to = makeAddr("cold wallet");
        vm.expectEmit(address(oracle));
        emit I.Withdrawn(requester, NATIVE, to, FEE);
        vm.prank(requester);
        assertEq(oracle.withdraw(NATIVE, to), FEE);
        assertEq(to.balance, FEE);
        assertEq(_balance(requester), 0);
        assertEq(address(oracle).balance, 0);
    }

    function test_paysATokenOut() public {
        address to = makeAddr("cold wallet");
        vm.expectEmit(address(oracle));
        emit I.Withdrawn(requester, address(coin), to, FEE);
        vm.prank(requester);
        assertEq(oracle.withdraw(address(coin), to), FEE);
        assertEq(coin.balanceOf(to), FEE);
        assertEq(oracle.balanceOf(address(coin), requester), 0);
        assertEq(coin.balanceOf(address(oracle)), 0);
    }

    function test_balancesAreOfOneToken() public {
        vm.prank(requester);
        oracle.withdraw(address(coin), requester);
        assertEq(_balance(requester), FEE);
        assertEq(address(oracle).balance, FEE);
    }

    function test_refusesTwice() public {
        vm.startPrank(requester);
        oracle.withdraw(NATIVE, requester);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, requester, NATIVE));
        oracle.withdraw(NATIVE, requester);
        oracle.withdraw(address(coin), requester);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, requester, address(coin)));
        oracle.withdraw(address(coin), requester);
    }

    function test_refusesWhoHasNothing() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, stranger, NATIVE));
        vm.prank(stranger);
        oracle.withdraw(NATIVE, stranger);
    }

    function test_refusesATokenThatNobodyPaidIn() public {
        address other = _token("Coin");
        Coin(other).mint(address(oracle), FEE);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, requester, other));
        vm.prank(requester);
        oracle.withdraw(other, requester);
    }

    function test_keepsTheBalanceWhenTheReceiverRefuses() public {
        address refuser = address(new Refuser());
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, refuser, FEE));
        vm.prank(requester);
        oracle.withdraw(NATIVE, refuser);
        assertEq(_balance(requester), FEE);
    }

    function test_refusesNobodyAsReceiver() public {
        vm.startPrank(requester);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, address(0), FEE));
        oracle.withdraw(NATIVE, address(0));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, address(0), FEE));
        oracle.withdraw(address(coin), address(0));
    }

    /// @dev Nobody can put coins here but by a request.
    function test_takesNoCoinsButByARequest() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, address(oracle), FEE));
        vm.prank(requester);
        oracle.withdraw(NATIVE, address(oracle));
    }
}
