// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Agreement, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Blacklisting, Coin, FalseReturning, FeeOnTransfer, LyingBalance, Rebasing, Reverting} from "./utils/Tokens.sol";

/// @notice Money through a task's whole life, and tokens that are not as they should be.
contract PaymentsTest is TaskFixture {
    Agreement private a;
    bytes32 private id;
    address private token;
    TaskRequest[] private _asked;
    uint256 private _nonce;

    function setUp() public override {
        super.setUp();
        _register();
    }

    // To the wei, after each move

    function test_coinsInAreCoinsOutAndWhatIsLeft() public {
        a = _roomy(100);
        _walk();
    }

    function test_tokensInAreTokensOutAndWhatIsLeft() public {
        a = _inToken(_token("Coin"));
        (a.access.quota, a.access.quotaPerRequester) = (100, 100);
        _walk();
    }

    function test_tokensWithoutReturnValuesAreAsGood() public {
        a = _inToken(_token("NoReturnValue"));
        (a.access.quota, a.access.quotaPerRequester) = (100, 100);
        _walk();
    }

    function testFuzz_feeSharesConserveMoney(uint128 fee, uint16 shareA, uint16 shareB, uint128 failedFee, bool success)
        public
    {
        a = _agreement();
        a.price.fee = fee;
        a.price.failedFee = bound(failedFee, 0, fee);
        a.price.bps[0] = uint16(bound(shareA, 0, 10_000));
        a.price.bps[1] = uint16(bound(shareB, 0, 10_000 - a.price.bps[0]));
        id = _activate(a);
        TaskRequest memory r = _ask();
        _fulfil(a, r, success ? _result(r) : _failure(r));
        if (success) {
            uint256 shared = uint256(fee) * (uint256(a.price.bps[0]) + a.price.bps[1]) / 10_000;
            assertEq(oracle.poolOf(id), shared);
            assertEq(_balance(payee), fee - shared);
            assertEq(_balance(requester), 0);
        } else {
            assertEq(oracle.poolOf(id), 0);
            assertEq(_balance(payee), a.price.failedFee);
            assertEq(_balance(requester), fee - a.price.failedFee);
        }
        _checkSums();
    }

    function test_aFreeTaskMovesNothing() public {
        a = _agreement();
        (a.price.fee, a.price.failedFee) = (0, 0);
        id = _activate(a);
        TaskRequest memory r = _ask();
        _fulfil(a, r, _result(r));
        r = _ask();
        _fulfil(a, r, _failure(r));
        r = _ask();
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        r = _ask();
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(_balance(payee) + _balance(requester) + oracle.poolOf(id), 0);
        assertEq(address(oracle).balance, 0);
    }

    function test_allToTheSharesOrAllToThePayee() public {
        a = _agreement();
        (a.price.bps[0], a.price.bps[1]) = (10_000, 0);
        id = _activate(a);
        TaskRequest memory r = _ask();
        _fulfil(a, r, _result(r));
        assertEq(oracle.poolOf(id), FEE);
        assertEq(_balance(payee), 0);

        (a.price.bps[0], a.price.bps[1]) = (0, 0);
        id = _activate(a);
        r = _ask();
        _fulfil(a, r, _result(r));
        assertEq(oracle.poolOf(id), 0);
        assertEq(_balance(payee), FEE);
    }

    function test_aFailureMayCostAllOrNothing() public {
        a = _agreement();
        a.price.failedFee = FEE;
        id = _activate(a);
        TaskRequest memory r = _ask();
        _fulfil(a, r, _failure(r));
        assertEq(_balance(payee), FEE);
        assertEq(_balance(requester), 0);

        a.price.failedFee = 0;
        id = _activate(a);
        r = _ask();
        _fulfil(a, r, _failure(r));
        assertEq(_balance(payee), FEE);
        assertEq(_balance(requester), FEE);
    }

    // Payees

    function test_aPayeeThatCannotReceiveWithdrawsElsewhere() public {
        a = _agreement();
        id = _activate(a);
        // A contract that takes no ether, but can call.
        payee = address(verifier);
        TaskRequest memory r = _ask();
        _fulfil(a, r, _result(r));
        uint256 due = FEE - _shared(FEE);
        vm.startPrank(payee);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WithdrawalFailed.selector, payee, due));
        oracle.withdraw(NATIVE, payee);
        oracle.withdraw(NATIVE, stranger);
        assertEq(stranger.balance, due);
    }

    function test_aPayeeThatATokenBlacklistsWithdrawsElsewhere() public {
        _settledIn("Blacklisting");
        Blacklisting(token).set(payee, true);
        vm.startPrank(payee);
        vm.expectRevert(abi.encodeWithSelector(Blacklisting.Blacklisted.selector, payee));
        oracle.withdraw(token, payee);
        oracle.withdraw(token, stranger);
        assertEq(Coin(token).balanceOf(stranger), FEE - _shared(FEE));
    }

    // Tokens that take less than they say

    function test_refusesATokenThatTakesAFee() public {
        _askedUnder("FeeOnTransfer");
        FeeOnTransfer(token).set(100);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongReceived.selector, token, FEE * 99 / 100, FEE));
    }

    function testFuzz_refusesAnyFeeOfAToken(uint16 bps) public {
        _askedUnder("FeeOnTransfer");
        bps = uint16(bound(bps, 1, 10_000));
        FeeOnTransfer(token).set(bps);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongReceived.selector, token, FEE - FEE * bps / 10_000, FEE));
    }

    /// @dev A fee that starts later is paid by whoever withdraws, and by nobody else.
    function test_aFeeThatStartsLaterIsTheWithdrawers() public {
        _settledIn("FeeOnTransfer");
        oracle.distribute(id, _pricing(a));
        FeeOnTransfer(token).set(1000);
        vm.prank(payee);
        assertEq(oracle.withdraw(token, payee), FEE * 45 / 100);
        assertEq(Coin(token).balanceOf(payee), FEE * 45 / 100 * 9 / 10);
        FeeOnTransfer(token).set(0);
        vm.prank(hospitalA);
        oracle.withdraw(token, hospitalA);
        vm.prank(hospitalB);
        oracle.withdraw(token, hospitalB);
        assertEq(Coin(token).balanceOf(address(oracle)), 0);
    }

    function test_refusesATokenThatSaysFalse() public {
        _askedUnder("FalseReturning");
        FalseReturning(token).set(true);
        _refuses(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token));
    }

    function test_keepsTheBalanceWhenATokenSaysFalse() public {
        _settledIn("FalseReturning");
        FalseReturning(token).set(true);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token));
        vm.prank(payee);
        oracle.withdraw(token, payee);
        assertEq(oracle.balanceOf(token, payee), FEE - _shared(FEE));
    }

    function test_refusesATokenThatReverts() public {
        _askedUnder("Reverting");
        Reverting(token).set(true);
        _refuses(abi.encodeWithSelector(Reverting.Stopped.selector));
    }

    /// @dev A token that stops stops withdrawals in it, and nothing else: every task still ends.
    function test_aTokenThatStopsStopsNoTask() public {
        _askedUnder("Reverting");
        TaskRequest[4] memory rs;
        for (uint256 i; i < 4; ++i) {
            rs[i] = _ask();
        }
        Reverting(token).set(true);
        _fulfil(a, rs[0], _result(rs[0]));
        _fulfil(a, rs[1], _failure(rs[1]));
        vm.prank(requester);
        oracle.cancel(rs[2], _anyone());
        vm.warp(uint256(rs[3].deadline) + 1);
        oracle.expire(rs[3], _pricing(a));
        oracle.distribute(id, _pricing(a));
        vm.expectRevert(abi.encodeWithSelector(Reverting.Stopped.selector));
        vm.prank(payee);
        oracle.withdraw(token, payee);
        Reverting(token).set(false);
        vm.prank(payee);
        oracle.withdraw(token, payee);
        assertEq(Coin(token).balanceOf(payee), FEE - _shared(FEE) + FAILED_FEE);
    }

    // Tokens that lie

    function test_refusesATokenThatMovesNothing() public {
        _askedUnder("LyingBalance");
        LyingBalance(token).set(0);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongReceived.selector, token, 0, FEE));
    }

    function test_refusesATokenThatGivesTooMuch() public {
        _askedUnder("LyingBalance");
        LyingBalance(token).set(int256(FEE + 1));
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongReceived.selector, token, FEE + 1, FEE));
    }

    function test_refusesATokenWhoseBalanceShrinks() public {
        _askedUnder("LyingBalance");
        _ask();
        LyingBalance(token).set(-1);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongReceived.selector, token, 0, FEE));
    }

    /// @dev Whoever signs an agreement in a token of nothing is paid nothing; the coins and tokens of others do not answer for it.
    function test_aTokenOfNothingIsPaidByNobodyElse() public {
        a = _roomy(10);
        id = _activate(a);
        _ask();
        _askedUnder("LyingBalance");
        LyingBalance(token).set(int256(FEE));
        TaskRequest memory r = _ask();
        _fulfil(a, r, _result(r));
        LyingBalance(token).set(0);
        vm.startPrank(payee);
        oracle.withdraw(token, payee);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, payee, NATIVE));
        oracle.withdraw(NATIVE, payee);
        assertEq(address(oracle).balance, FEE);
    }

    /// @dev What a token takes from everybody it takes from the last to withdraw. Nothing else can be done about it here, so the
    /// parties have to know their token; other tokens and the coins stay whole.
    function test_aTokenThatShrinksIsShortForTheLastOnly() public {
        a = _roomy(10);
        TaskRequest memory r = _taskRequest(_activate(a));
        _request(r);
        _fulfil(a, r, _result(r));
        _settledIn("Rebasing");
        oracle.distribute(id, _pricing(a));
        Rebasing(token).set(1000);
        vm.prank(payee);
        oracle.withdraw(token, payee);
        vm.prank(hospitalA);
        oracle.withdraw(token, hospitalA);
        uint256 left = Coin(token).balanceOf(address(oracle));
        assertLt(left, FEE * 25 / 100);
        vm.expectPartialRevert(IERC20Errors.ERC20InsufficientBalance.selector);
        vm.prank(hospitalB);
        oracle.withdraw(token, hospitalB);
        assertEq(oracle.balanceOf(token, hospitalB), FEE * 25 / 100);
        vm.prank(payee);
        assertEq(oracle.withdraw(NATIVE, payee), FEE - _shared(FEE));
    }

    function test_aBlacklistedRequesterIsRefusedAndOneLaterIsRefunded() public {
        _askedUnder("Blacklisting");
        TaskRequest memory r = _ask();
        Blacklisting(token).set(requester, true);
        _refuses(abi.encodeWithSelector(Blacklisting.Blacklisted.selector, requester));
        _fulfil(a, r, _failure(r));
        vm.prank(requester);
        oracle.withdraw(token, stranger);
        assertEq(Coin(token).balanceOf(stranger), FEE - FAILED_FEE);
    }

    /// @dev What an issuer can do to everyone at once: this token is stuck, nothing else is.
    function test_aTokenThatBlacklistsTheOracleIsStuckAlone() public {
        a = _roomy(10);
        TaskRequest memory r = _taskRequest(_activate(a));
        _request(r);
        _fulfil(a, r, _result(r));
        _settledIn("Blacklisting");
        Blacklisting(token).set(address(oracle), true);
        vm.startPrank(payee);
        vm.expectRevert(abi.encodeWithSelector(Blacklisting.Blacklisted.selector, address(oracle)));
        oracle.withdraw(token, payee);
        oracle.withdraw(NATIVE, payee);
        assertEq(payee.balance, FEE - _shared(FEE));
    }

    // Every move there is, and the sums after each

    function _walk() private {
        a.price.minFee = FEE / 3;
        id = _activate(a);
        token = a.price.token;
        TaskRequest[6] memory rs;
        for (uint256 i; i < 6; ++i) {
            rs[i] = _ask();
            _checkSums();
        }
        _fulfil(a, rs[0], _result(rs[0]));
        _checkSums();
        _fulfil(a, rs[1], _failure(rs[1]));
        _checkSums();
        vm.prank(requester);
        oracle.cancel(rs[2], _anyone());
        _checkSums();
        oracle.distribute(id, _pricing(a));
        _checkSums();
        TaskRequest[] memory alone = new TaskRequest[](1);
        alone[0] = rs[3];
        oracle.fulfilMany(_settlement(a), _identity(), _fulfilments(alone));
        _checkSums();
        alone[0] = rs[4];
        oracle.fulfilBatch(_settlement(a), _identity(), _batch(alone), _signBatch(_batch(alone)));
        _checkSums();
        vm.warp(uint256(rs[5].deadline) + 1);
        oracle.expire(rs[5], _pricing(a));
        _checkSums();
        address[4] memory all = [requester, payee, hospitalA, hospitalB];
        for (uint256 i; i < 4; ++i) {
            vm.prank(all[i]);
            oracle.withdraw(token, all[i]);
            _checkSums();
        }
        assertEq(_held(all[1]), 3 * (FEE - _shared(FEE)) + FAILED_FEE);
        assertEq(_held(all[2]), FEE * 30 / 100);
        assertEq(_held(all[3]), FEE * 25 / 100);
        assertEq(oracle.poolOf(id), 2 * _shared(FEE) + FEE / 3);
        assertEq(_held(address(oracle)), oracle.poolOf(id));
        oracle.distribute(id, _pricing(a));
        for (uint256 i = 2; i < 4; ++i) {
            vm.prank(all[i]);
            oracle.withdraw(token, all[i]);
        }
        assertLt(_held(address(oracle)), 2);
        assertEq(_held(address(oracle)), oracle.poolOf(id));
    }

    /// @dev What the oracle holds is what it owes: escrows, the pool, balances.
    function _checkSums() private view {
        uint256 owed = oracle.poolOf(id);
        for (uint256 i; i < _asked.length; ++i) {
            owed += oracle.task(id, oracle.taskIdOf(_asked[i])).escrow;
        }
        address[4] memory all = [requester, payee, hospitalA, hospitalB];
        for (uint256 i; i < 4; ++i) {
            owed += oracle.balanceOf(token, all[i]);
        }
        assertEq(_held(address(oracle)), owed);
    }

    function _held(address account) private view returns (uint256) {
        return token == NATIVE ? account.balance : Coin(token).balanceOf(account);
    }

    /// @dev Asks once more under the agreement as it stands.
    function _ask() private returns (TaskRequest memory r) {
        r = _taskRequest(id);
        r.nonce = bytes32(++_nonce);
        r.maxFee = a.price.fee;
        uint256 value = a.price.token == NATIVE ? a.price.fee : 0;
        if (requester.balance < value) vm.deal(requester, value);
        vm.prank(requester);
        oracle.request{value: value}(r, _anyone(), "");
        _asked.push(r);
    }

    function _askedUnder(string memory name) private {
        token = _token(name);
        a = _inToken(token);
        id = _activate(a);
    }

    function _settledIn(string memory name) private {
        _askedUnder(name);
        TaskRequest memory r = _ask();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function _refuses(bytes memory err) private {
        TaskRequest memory r = _taskRequest(id);
        r.nonce = keccak256("refused");
        vm.expectRevert(err);
        _requestInToken(r);
        assertEq(_state(r), TaskState.NONE);
    }
}
