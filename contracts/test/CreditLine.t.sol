// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC4626} from "@openzeppelin/contracts/token/ERC20/extensions/ERC4626.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {CreditLine} from "../examples/CreditLine.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Price, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {ConsumerWorld, MockWorld, RealWorld} from "./ConsumerWorld.sol";

/// @notice A token that lets whoever a test says act in the middle of a transfer.
contract Dollar is ERC20("Dollar", "USD") {
    address private _target;
    bytes private _call;
    bool public entered;
    bytes public seen;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function set(address target, bytes calldata call_) external {
        (_target, _call) = (target, call_);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (_target != address(0)) {
            address target = _target;
            _target = address(0);
            (entered, seen) = target.call(_call);
        }
        super._update(from, to, value);
    }
}

abstract contract CreditLineSuite is ConsumerWorld {
    uint256 private constant PRICE = 0.01 ether;
    uint256 private constant MIN_FEE = 0.002 ether;
    uint256 private constant FAILED_FEE = 0.003 ether;
    uint256 private constant DEPOSIT = 1_000_000e6;
    int256 private constant MIN_SCORE = 600;
    uint128 private constant MAX_LIMIT = 50_000e6;
    uint256 private constant RATE = 1000;

    Dollar private dollar;
    CreditLine private pool;
    bytes32 private agreementId;
    address private lender;
    address private borrower;

    function setUp() public virtual override {
        super.setUp();
        lender = makeAddr("lender");
        borrower = makeAddr("borrower");
        dollar = new Dollar();
        agreementId = _agreed(address(0), PRICE);
        pool = _pool(agreementId);
        dollar.mint(lender, DEPOSIT);
        dollar.mint(borrower, DEPOSIT);
        vm.deal(borrower, 1 ether);
        vm.prank(lender);
        dollar.approve(address(pool), type(uint256).max);
        vm.prank(borrower);
        dollar.approve(address(pool), type(uint256).max);
        vm.prank(lender);
        pool.deposit(DEPOSIT, lender);
    }

    // Applying

    function test_anApplicationAsksUnderTheAgreementForTheCallersSubject() public {
        TaskRequest memory r = _apply();
        assertEq(r.agreementId, agreementId);
        assertEq(r.maxFee, PRICE);
        assertEq(string(r.params), string.concat('{"subject":"', vm.toString(pool.subjectOf(borrower)), '"}'));
        assertEq(pool.openApplication(borrower), askedId);
        assertEq(borrower.balance, 1 ether - PRICE);
        assertEq(address(pool).balance, 0);
    }

    function testFuzz_aSubjectFitsADecimalAndIsOneAccounts(address account, address other) public view {
        assertLt(pool.subjectOf(account), 10 ** 31);
        if (account != other) assertNotEq(pool.subjectOf(account), pool.subjectOf(other));
    }

    function test_oneApplicationAtATime() public {
        _apply();
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_Waiting.selector, borrower, askedId));
        vm.prank(borrower);
        pool.applyForCredit{value: PRICE}(versions, _open());
    }

    function test_othersApplyMeanwhile() public {
        TaskRequest memory first = _apply();
        hoax(lender);
        pool.applyForCredit{value: PRICE}(versions, _open());
        TaskRequest memory second = _asked();
        _answer(second, abi.encode(int256(700), int256(10_000e6)));
        _answer(first, abi.encode(int256(500), int256(10_000e6)));
        assertEq(_limit(lender), 10_000e6);
        assertEq(_limit(borrower), 0);
    }

    function test_theFeeIsPaidExactly() public {
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_WrongFee.selector, PRICE - 1, PRICE));
        vm.prank(borrower);
        pool.applyForCredit{value: PRICE - 1}(versions, _open());
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_WrongFee.selector, PRICE + 1, PRICE));
        vm.prank(borrower);
        pool.applyForCredit{value: PRICE + 1}(versions, _open());
    }

    function test_theFeeCanBeInAToken() public {
        pool = _pool(_agreed(address(dollar), 5e6));
        uint256 before = dollar.balanceOf(borrower);
        vm.prank(borrower);
        dollar.approve(address(pool), 5e6);
        vm.prank(borrower);
        pool.applyForCredit(versions, _open());
        assertEq(dollar.balanceOf(borrower), before - 5e6);
        assertEq(dollar.balanceOf(address(world)), 5e6);
        _passDeadline(_asked());
    }

    function test_noCoinIsTakenWhereTheFeeIsInAToken() public {
        pool = _pool(_agreed(address(dollar), 5e6));
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_WrongFee.selector, 5e6, 0));
        vm.prank(borrower);
        pool.applyForCredit{value: 5e6}(versions, _open());
    }

    function test_aFeeInTheAssetIsNotTheLenders() public {
        pool = _pool(_agreed(address(dollar), 5e6));
        vm.prank(lender);
        dollar.approve(address(pool), type(uint256).max);
        dollar.mint(lender, 100e6);
        vm.prank(lender);
        pool.deposit(100e6, lender);
        vm.prank(borrower);
        dollar.approve(address(pool), 5e6);
        vm.prank(borrower);
        pool.applyForCredit(versions, _open());
        TaskRequest memory r = _asked();
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        _fail(r);
        pool.collect(address(dollar));
        assertEq(pool.totalAssets(), 100e6);
        uint256 before = dollar.balanceOf(borrower);
        pool.refund(askedId, pricing);
        assertEq(dollar.balanceOf(borrower), before + 5e6);
        assertEq(dollar.balanceOf(address(pool)), 100e6);
    }

    // Answers

    function test_aGoodScoreOpensALine() public {
        _apply_();
        vm.expectEmit(address(pool));
        emit CreditLine.Opened(askedId, borrower, 700, 10_000e6, vm.getBlockTimestamp() + 90 days);
        _answer(last, abi.encode(int256(700), int256(10_000e6)));
        _closed(CreditLine.Stage.Opened);
        assertEq(_limit(borrower), 10_000e6);
    }

    function test_theLeastScoreSuffices() public {
        _openLine(MIN_SCORE, 1);
        assertEq(_limit(borrower), 1);
    }

    function test_aLowerScoreDoesNot() public {
        _openLine(MIN_SCORE - 1, 10_000e6);
        _closed(CreditLine.Stage.Declined);
        assertEq(_limit(borrower), 0);
    }

    function test_aLimitThatIsNotAboveZeroOpensNothing() public {
        _openLine(700, 0);
        _closed(CreditLine.Stage.Declined);
        _openLine(700, type(int256).min);
        _closed(CreditLine.Stage.Declined);
        assertEq(_limit(borrower), 0);
    }

    function test_noLineIsAboveThePoolsLimit() public {
        _openLine(700, type(int256).max);
        assertEq(_limit(borrower), MAX_LIMIT);
    }

    function test_aWorseScoreEndsTheOlderLine() public {
        _openLine(700, 10_000e6);
        _openLine(599, 10_000e6);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_AboveLimit.selector, 1, 0));
        vm.prank(borrower);
        pool.draw(1);
    }

    function testFuzz_anAnswerOfAnyShapeEndsTheApplication(bytes calldata output) public {
        _apply_();
        _answer(last, output);
        assertEq(pool.openApplication(borrower), 0);
        assertFalse(pool.isPending(askedId));
    }

    function test_anAnswerThatIsNotTwoIntegersOpensNothing() public {
        _apply_();
        _answer(last, abi.encode(int256(700), int256(10_000e6), int256(1)));
        _closed(CreditLine.Stage.Unreadable);
        assertEq(_limit(borrower), 0);
    }

    function test_theCallbackHasGasToSpare() public {
        TaskRequest memory r = _apply();
        Result memory result;
        bytes memory call = abi.encodeCall(
            pool.onComputeResult, (askedId, 1, result, _list(abi.encode(int256(700), int256(10_000e6))))
        );
        vm.cool(address(pool));
        vm.prank(address(world));
        uint256 before = gasleft();
        (bool called,) = address(pool).call(call);
        uint256 used = before - gasleft();
        assertTrue(called);
        assertLt(used, r.callbackGas * 4 / 5);
    }

    function test_aStaleAnswerOpensNothing() public {
        _answerHeardAfter(1 days + 1);
        _closed(CreditLine.Stage.Stale);
        assertEq(_limit(borrower), 0);
    }

    function test_aLateTryThatIsStillFreshOpensALine() public {
        _answerHeardAfter(1 days);
        _closed(CreditLine.Stage.Opened);
    }

    function test_nobodyAnswersButTheOracle() public {
        _apply_();
        Result memory result;
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotOracle.selector, borrower));
        vm.prank(borrower);
        pool.onComputeResult(askedId, 1, result, _list(abi.encode(int256(700), int256(1))));
    }

    /// @dev Under an agreement of the borrower's own, whose answer the borrower makes, in the borrower's name.
    function test_anAnswerUnderAnotherAgreementOpensNothing() public {
        _apply_();
        CreditLine other = _pool(_agreed(address(0), PRICE));
        vm.prank(borrower);
        other.applyForCredit{value: PRICE}(versions, _open());
        TaskRequest memory r = _asked();
        _answer(r, abi.encode(int256(900), int256(10_000e6)));
        assertEq(_limit(borrower), 0);
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, askedId));
        Result memory result;
        vm.prank(address(world));
        pool.onComputeResult(askedId, 1, result, _list(abi.encode(int256(900), int256(10_000e6))));
    }

    // Without an answer

    function test_aFailureGivesTheFeeBackLessWhatAFailureCosts() public {
        _apply_();
        _fail(last);
        _closed(CreditLine.Stage.Failed);
        _refunds(PRICE - FAILED_FEE);
    }

    function test_anExpiryGivesTheFeeBackLessTheLeastFee() public {
        _expire();
        _closed(CreditLine.Stage.Expired);
        _refunds(PRICE - MIN_FEE);
    }

    function test_aCancelGivesTheWholeFeeBack() public {
        _apply_();
        vm.prank(borrower);
        pool.cancel(last, _open());
        _closed(CreditLine.Stage.Cancelled);
        _refunds(PRICE);
    }

    function test_onlyTheBorrowerCancels() public {
        _apply_();
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NotBorrower.selector, anyone, borrower));
        vm.prank(anyone);
        pool.cancel(last, _open());
    }

    function test_nothingIsRefundedTwice() public {
        _expire();
        _refunds(PRICE - MIN_FEE);
        _noRefund(CreditLine.Stage.Refunded);
    }

    function test_nothingIsRefundedWhileTheAnswerIsAwaited() public {
        _apply_();
        _noRefund(CreditLine.Stage.Asked);
    }

    function test_nothingIsRefundedForAnAnswer() public {
        _openLine(500, 1);
        _noRefund(CreditLine.Stage.Declined);
    }

    function test_noOtherPriceSaysWhatIsRefunded() public {
        _expire();
        I.Pricing memory pricing = _pricingOf(agreementId);
        pricing.price.minFee = 0;
        vm.expectPartialRevert(CreditLine.CreditLine_WrongPricing.selector);
        pool.refund(askedId, pricing);
    }

    function test_eachHasItsOwnRefund() public {
        TaskRequest memory first = _apply();
        bytes32 firstId = askedId;
        hoax(lender);
        pool.applyForCredit{value: PRICE}(versions, _open());
        TaskRequest memory second = _asked();
        bytes32 secondId = askedId;
        I.Pricing memory pricing = _pricingOf(agreementId);
        _fail(second);
        _passDeadline(first);
        world.expire(first, pricing);
        pool.reclaim(first, pricing);
        pool.refund(firstId, pricing);
        pool.refund(secondId, pricing);
        assertEq(borrower.balance, 1 ether - MIN_FEE);
        assertEq(lender.balance, 1 ether - FAILED_FEE);
        assertEq(address(pool).balance, 0);
    }

    function test_afterAnExpiryTheBorrowerAppliesAgain() public {
        _expire();
        _openLine(700, 10_000e6);
        assertEq(_limit(borrower), 10_000e6);
    }

    // Debt

    function test_drawsAndPaysBackWithInterest() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(5000e6);
        assertEq(dollar.balanceOf(borrower), DEPOSIT + 5000e6);
        skip(73 days);
        // A fifth of a year at a tenth.
        assertEq(pool.debtOf(borrower), 5100e6);
        assertEq(pool.totalAssets(), DEPOSIT + 100e6);
        vm.prank(borrower);
        assertEq(pool.repay(borrower, type(uint256).max), 5100e6);
        assertEq(pool.debtOf(borrower), 0);
        assertEq(pool.cash(), DEPOSIT + 100e6);
        assertEq(pool.totalAssets(), DEPOSIT + 100e6);
    }

    function test_drawsUpToTheLimitAndNoFurther() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(10_000e6);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_AboveLimit.selector, 10_000e6 + 1, 10_000e6));
        vm.prank(borrower);
        pool.draw(1);
    }

    function test_interestCountsTowardsTheLimit() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(9900e6);
        skip(73 days);
        vm.expectPartialRevert(CreditLine.CreditLine_AboveLimit.selector);
        vm.prank(borrower);
        pool.draw(1);
    }

    function test_nothingIsDrawnWithoutALine() public {
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_LineClosed.selector, anyone, 0));
        vm.prank(anyone);
        pool.draw(1);
    }

    function test_nothingIsDrawnAfterTheTerm() public {
        _openLine(700, 10_000e6);
        uint256 closesAt = vm.getBlockTimestamp() + 90 days;
        vm.warp(closesAt);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_LineClosed.selector, borrower, closesAt));
        vm.prank(borrower);
        pool.draw(1);
    }

    function test_noMoreIsDrawnThanIsThere() public {
        vm.prank(lender);
        pool.withdraw(DEPOSIT - 5e6, lender, lender);
        _openLine(700, 10_000e6);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NotEnoughCash.selector, 5e6 + 1, 5e6));
        vm.prank(borrower);
        pool.draw(5e6 + 1);
    }

    function test_anyonePaysForTheBorrowerAPart() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(5000e6);
        dollar.mint(lender, 2000e6);
        vm.prank(lender);
        pool.repay(borrower, 2000e6);
        assertEq(pool.debtOf(borrower), 3000e6);
    }

    function test_nothingIsPaidWhereNothingIsOwed() public {
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NoDebt.selector, borrower));
        pool.repay(borrower, 1);
    }

    function test_whatIsNotPaidBackIsWrittenOff() public {
        _openLine(700, 10_000e6);
        uint256 until = vm.getBlockTimestamp() + 90 days + 30 days;
        vm.prank(borrower);
        pool.draw(5000e6);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NotOverdue.selector, borrower, until));
        pool.writeOff(borrower);
        vm.warp(until + 1);
        uint256 debt = pool.debtOf(borrower);
        vm.prank(anyone);
        pool.writeOff(borrower);
        assertEq(pool.totalAssets(), DEPOSIT - 5000e6);
        assertEq(pool.debtOf(borrower), debt);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NoDebt.selector, borrower));
        pool.writeOff(borrower);

        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_InDefault.selector, borrower, debt));
        vm.prank(borrower);
        pool.applyForCredit{value: PRICE}(versions, _open());
        vm.prank(borrower);
        pool.repay(borrower, debt);
        assertEq(pool.totalAssets(), DEPOSIT - 5000e6);
        skip(15 days);
        assertEq(pool.totalAssets(), DEPOSIT - 5000e6 + debt / 2);
        skip(15 days);
        assertEq(pool.totalAssets(), DEPOSIT - 5000e6 + debt);
        _apply_();
        assertEq(pool.openApplication(borrower), askedId);
    }

    function test_whoDefaultsWhileItAppliesGetsNoLine() public {
        uint256 debt = _overdue();
        _apply_();
        pool.writeOff(borrower);
        _answer(last, abi.encode(int256(700), int256(10_000e6)));
        _closed(CreditLine.Stage.Declined);
        assertEq(_limit(borrower), 0);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_InDefault.selector, borrower, debt));
        vm.prank(borrower);
        pool.draw(1);
    }

    function test_aNewAnswerMovesNoDueDateOfWhatIsOwed() public {
        _openLine(700, 10_000e6);
        (, uint40 closesAt,,) = pool.lines(borrower);
        vm.prank(borrower);
        pool.draw(5000e6);
        skip(80 days);
        _openLine(700, 20_000e6);
        (uint128 limit, uint40 stillAt,,) = pool.lines(borrower);
        assertEq(limit, 20_000e6);
        assertEq(stillAt, closesAt);
        vm.prank(borrower);
        pool.repay(borrower, type(uint256).max);
        _openLine(700, 20_000e6);
        (, uint40 anew,,) = pool.lines(borrower);
        assertEq(anew, vm.getBlockTimestamp() + 90 days);
    }

    /// @dev In one transaction: else whoever pays late gets it back from the lenders who bore the loss.
    function test_nobodyJoinsForABlockToTakeWhatIsRecovered() public {
        _overdue();
        pool.writeOff(borrower);
        uint256 owed = pool.debtOf(borrower);
        uint256 flash = 1_000_000_000e6;
        dollar.mint(borrower, flash + owed);
        uint256 had = dollar.balanceOf(borrower);
        vm.startPrank(borrower);
        uint256 shares = pool.deposit(flash, borrower);
        pool.repay(borrower, owed);
        pool.redeem(shares, borrower, borrower);
        vm.stopPrank();
        assertGe(had - dollar.balanceOf(borrower), owed);
        skip(30 days);
        assertApproxEqAbs(pool.totalAssets(), DEPOSIT - 5000e6 + owed, 1);
    }

    /// @dev What was recovered is drawn and lost again before it is the lenders'.
    function test_aSecondLossTakesWhatWasRecovered() public {
        _overdue();
        pool.writeOff(borrower);
        uint256 shares = pool.maxRedeem(lender);
        vm.prank(lender);
        pool.redeem(shares, lender, lender);
        vm.prank(borrower);
        uint256 paid = pool.repay(borrower, type(uint256).max);
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(paid);
        // But for what rounding leaves.
        assertLe(pool.totalAssets(), 1);
        skip(121 days);
        pool.writeOff(borrower);
        assertLe(pool.totalAssets(), 1);
    }

    function _overdue() private returns (uint256 debt) {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(5000e6);
        skip(90 days + 30 days + 1);
        debt = pool.debtOf(borrower);
    }

    // Lenders

    function test_lendersShareTheInterest() public {
        address late = makeAddr("late");
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(10_000e6);
        skip(73 days);
        // What is earned until now is not the late one's, though it is not paid yet.
        dollar.mint(late, 1000e6);
        vm.prank(late);
        dollar.approve(address(pool), 1000e6);
        vm.prank(late);
        uint256 shares = pool.deposit(1000e6, late);
        vm.prank(borrower);
        pool.repay(borrower, type(uint256).max);
        assertLe(pool.previewRedeem(shares), 1000e6);
        assertApproxEqAbs(pool.maxWithdraw(lender), DEPOSIT + 200e6, 1);
    }

    function test_noLenderTakesOutWhatIsLent() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(10_000e6);
        assertEq(pool.maxWithdraw(lender), DEPOSIT - 10_000e6);
        vm.expectPartialRevert(ERC4626.ERC4626ExceededMaxWithdraw.selector);
        vm.prank(lender);
        pool.withdraw(DEPOSIT - 10_000e6 + 1, lender, lender);
        uint256 shares = pool.maxRedeem(lender);
        vm.prank(lender);
        pool.redeem(shares, lender, lender);
        assertLe(pool.cash(), 1);
    }

    function test_aGiftMovesNoShare() public {
        uint256 before = pool.previewRedeem(1e6);
        dollar.mint(address(pool), 1_000_000e6);
        assertEq(pool.previewRedeem(1e6), before);
        vm.deal(anyone, 1);
        vm.prank(anyone);
        (bool sent,) = address(pool).call{value: 1}("");
        assertFalse(sent);
    }

    /// @dev From within a transfer, when what was paid is here and the debt is not yet, or the other way round.
    function test_nothingIsEnteredInTheMiddleOfATransfer() public {
        _openLine(700, 10_000e6);
        vm.prank(borrower);
        pool.draw(5000e6);
        bytes[5] memory calls = [
            abi.encodeCall(pool.draw, (1)),
            abi.encodeCall(pool.repay, (borrower, 1)),
            abi.encodeCall(pool.writeOff, (borrower)),
            abi.encodeCall(pool.deposit, (1e6, address(dollar))),
            abi.encodeCall(pool.applyForCredit, (versions, _open()))
        ];
        for (uint256 i; i < calls.length; ++i) {
            dollar.set(address(pool), calls[i]);
            vm.prank(borrower);
            pool.repay(borrower, 1);
            assertFalse(dollar.entered());
            assertEq(
                dollar.seen(), abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
            );
        }
    }

    /// @dev Whatever is drawn and paid, by whom and when: the pool holds what it says, and lenders lose nothing to rounding.
    function testFuzz_thePoolHoldsWhatItSays(uint256[12] calldata amounts, uint256[12] calldata times) public {
        _openLine(700, int256(uint256(MAX_LIMIT)));
        uint256 value = pool.totalAssets();
        for (uint256 i; i < amounts.length; ++i) {
            uint256 amount = bound(amounts[i], 1, 10_000e6);
            uint256 debt = pool.debtOf(borrower);
            if (amounts[i] % 2 == 0 && debt + amount < MAX_LIMIT) {
                vm.prank(borrower);
                pool.draw(amount);
            } else if (debt != 0) {
                vm.prank(borrower);
                pool.repay(borrower, amount);
            }
            assertEq(dollar.balanceOf(address(pool)), pool.cash());
            // Less than one unit a move is rounded down by the sum and up for the debtor.
            assertGe(pool.totalAssets() + 1, value);
            assertLe(pool.totalAssets(), pool.cash() + pool.debtOf(borrower));
            skip(bound(times[i], 0, 7 days));
            value = pool.totalAssets();
        }
    }

    // Construction

    function test_isOfAnActiveAgreementOnly() public {
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NotActive.selector, keccak256("none")));
        _pool(keccak256("none"));
    }

    function test_refusesTermsThatMakeNoPool() public {
        bytes memory bad = abi.encodeWithSelector(CreditLine.CreditLine_BadTerms.selector);
        vm.expectRevert(bad);
        new CreditLine(world, agreementId, dollar, MIN_SCORE, 0, RATE);
        vm.expectRevert(bad);
        new CreditLine(world, agreementId, dollar, MIN_SCORE, MAX_LIMIT, 10_001);
        vm.expectRevert(bad);
        new CreditLine(world, agreementId, Dollar(anyone), MIN_SCORE, MAX_LIMIT, RATE);
    }

    // Inside

    TaskRequest internal last;

    function _pool(bytes32 id) private returns (CreditLine) {
        return CreditLine(
            payable(deploy("CreditLine.sol:CreditLine", abi.encode(world, id, dollar, MIN_SCORE, MAX_LIMIT, RATE)))
        );
    }

    function _agreed(address token, uint256 fee) private returns (bytes32) {
        Price memory price = _price(token, fee);
        if (token == address(0)) {
            (price.minFee, price.failedFee) = (MIN_FEE, FAILED_FEE);
            price.to = new address[](1);
            price.to[0] = makeAddr("hospital");
            price.bps = new uint16[](1);
            price.bps[0] = 5000;
        }
        return _agree(price, 5);
    }

    function _apply() private returns (TaskRequest memory r) {
        vm.prank(borrower);
        pool.applyForCredit{value: PRICE}(versions, _open());
        r = _asked();
    }

    function _apply_() private {
        last = _apply();
    }

    function _openLine(int256 score, int256 limit) private {
        _apply_();
        _answer(last, abi.encode(score, limit));
    }

    function _expire() private {
        _apply_();
        I.Pricing memory pricing = _pricingOf(agreementId);
        _passDeadline(last);
        vm.prank(anyone);
        pool.reclaim(last, pricing);
    }

    /// @dev Settled at once, while the callback fails; heard so much later.
    function _answerHeardAfter(uint256 time) private {
        _apply_();
        bytes memory code = address(pool).code;
        vm.etch(address(pool), hex"fe");
        _answer(last, abi.encode(int256(700), int256(10_000e6)));
        vm.etch(address(pool), code);
        assertEq(_stateOf(last), TaskState.FULFILLED);
        skip(time);
        bytes[] memory outputs = _list(abi.encode(int256(700), int256(10_000e6)));
        world.retryCallback(last, _resultOf(last, outputs), outputs);
    }

    function _refunds(uint256 amount) private {
        uint256 before = borrower.balance;
        I.Pricing memory pricing = _pricingOf(agreementId);
        vm.prank(anyone);
        assertEq(pool.refund(askedId, pricing), amount);
        assertEq(borrower.balance, before + amount);
        assertEq(address(pool).balance, 0);
    }

    function _noRefund(CreditLine.Stage stage) private {
        I.Pricing memory pricing = _pricingOf(agreementId);
        vm.expectRevert(abi.encodeWithSelector(CreditLine.CreditLine_NothingToRefund.selector, askedId, stage));
        pool.refund(askedId, pricing);
    }

    function _closed(CreditLine.Stage stage) private view {
        (,, CreditLine.Stage found) = pool.applications(askedId);
        assertEq(uint256(found), uint256(stage));
        assertEq(pool.openApplication(borrower), 0);
        assertFalse(pool.isPending(askedId));
    }

    function _limit(address account) private view returns (uint256 limit) {
        (limit,,,) = pool.lines(account);
    }

    function hoax(address account) private {
        vm.deal(account, 1 ether);
        vm.prank(account);
    }
}

contract CreditLineTest is CreditLineSuite, RealWorld {
    function setUp() public override(CreditLineSuite, RealWorld) {
        CreditLineSuite.setUp();
    }
}

contract CreditLineOnMockTest is CreditLineSuite, MockWorld {
    function setUp() public override(CreditLineSuite, ConsumerWorld) {
        CreditLineSuite.setUp();
    }
}
