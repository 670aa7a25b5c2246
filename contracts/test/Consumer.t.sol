// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {RiskDesk} from "../examples/RiskDesk.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Agreement, Price, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {ANYONE, Outcome, TaskState} from "../src/libraries/Constants.sol";
import {ConsumerWorld, MockWorld, RealWorld} from "./ConsumerWorld.sol";
import {Fixture} from "./Fixture.sol";

/// @notice A consumer that does in its callback what a test tells it.
contract Probe is ComputeConsumer {
    enum Act {
        Keep,
        Revert,
        BurnAll,
        AskAgain
    }

    Act public act;
    uint256 public fulfilled;
    uint256 public unanswered;
    uint8 public outcome;
    uint8 public endedAs;
    bool public found;
    int256 public value;
    bytes public seen;

    constructor(I oracle) payable ComputeConsumer(oracle) {}

    function set(Act act_) external {
        act = act_;
    }

    function ask(TaskRequest calldata r, address token) external returns (bytes32) {
        IAgreementRegistry.Admission memory admission;
        admission.requesters = ANYONE;
        return _request(r, admission, "", token);
    }

    function cancel(TaskRequest calldata r) external {
        IAgreementRegistry.Admission memory admission;
        admission.requesters = ANYONE;
        this.cancelAs(r, admission);
    }

    function cancelAs(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external {
        _cancel(r, admission);
    }

    function cancelAtTheOracleOnly(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external {
        computeOracle.cancel(r, admission);
    }

    function _fulfilled(bytes32, uint8 outcome_, Result calldata result, bytes[] calldata publicOutputs)
        internal
        override
    {
        if (act == Act.Revert) revert("no");
        if (act == Act.BurnAll) {
            assembly {
                invalid()
            }
        }
        if (act == Act.AskAgain) {
            TaskRequest memory r;
            r.agreementId = result.agreementId;
            (bool entered, bytes memory error_) = address(this).call(abi.encodeCall(this.ask, (r, address(0))));
            seen = entered ? bytes("entered") : error_;
        }
        ++fulfilled;
        outcome = outcome_;
        bytes calldata output;
        (found, output) = _publicOutput(publicOutputs, 32);
        if (found) value = abi.decode(output, (int256));
    }

    function _unanswered(bytes32, uint8 state) internal override {
        ++unanswered;
        endedAs = state;
    }
}

contract Coin is ERC20("Coin", "COIN") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// @dev As USDT: an allowance is set to zero before it is set to anything else.
contract StrictCoin is Coin {
    function approve(address spender, uint256 amount) public override returns (bool) {
        require(amount == 0 || allowance(msg.sender, spender) == 0, "not zero before");
        return super.approve(spender, amount);
    }
}

abstract contract ConsumerSuite is ConsumerWorld {
    uint256 private constant PRICE = 0.01 ether;
    uint256 private constant KEPT = 0.001 ether;
    uint32 private constant DELAY = 5;

    Probe internal probe;
    TaskRequest internal r;
    bytes32 internal taskId;

    function setUp() public virtual override {
        super.setUp();
        probe = new Probe(world);
        vm.deal(address(probe), 1 ether);
        Price memory price = _price(address(0), PRICE);
        price.failedFee = KEPT;
        r = _requestUnder(_agree(price, DELAY));
        taskId = probe.ask(r, address(0));
        r = _asked();
    }

    function test_asksInItsOwnName() public view {
        assertEq(taskId, askedId);
        assertEq(r.requester, address(probe));
        assertEq(r.callback, address(probe));
        assertEq(r.asOf, vm.getBlockTimestamp());
        assertTrue(probe.isPending(taskId));
        assertEq(address(probe).balance, 1 ether - PRICE);
    }

    function test_getsItsAnswer() public {
        _answer(r, abi.encode(int256(-42)));
        assertEq(_stateOf(r), TaskState.FULFILLED);
        assertEq(probe.outcome(), Outcome.SUCCEEDED);
        assertEq(probe.value(), -42);
        _endedOnce();
    }

    function test_hearsOfAFailure() public {
        _fail(r);
        assertEq(_stateOf(r), TaskState.FAILED);
        assertEq(probe.outcome(), Outcome.FAILED);
        assertFalse(probe.found());
        _endedOnce();
        probe.collect(address(0));
        assertEq(address(probe).balance, 1 ether - KEPT);
    }

    function test_anOutputOfAnotherSizeIsNotFound() public {
        _answer(r, abi.encode(int256(42), int256(43)));
        assertFalse(probe.found());
        _endedOnce();
    }

    function test_oneOfTwoOutputsIsNotFound() public {
        bytes[] memory outputs = new bytes[](2);
        outputs[0] = abi.encode(int256(42));
        outputs[1] = abi.encode(int256(43));
        _settle(r, outputs);
        assertFalse(probe.found());
        _endedOnce();
    }

    function test_refusesAnswersFromAnyoneElse() public {
        Result memory result;
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotOracle.selector, anyone));
        vm.prank(anyone);
        probe.onComputeResult(taskId, 1, result, _list(abi.encode(int256(42))));
    }

    function test_refusesAnswersItDidNotAskFor() public {
        Result memory result;
        bytes32 another = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, another));
        vm.prank(address(world));
        probe.onComputeResult(another, 1, result, _list(abi.encode(int256(42))));
    }

    function test_refusesASecondAnswer() public {
        _answer(r, abi.encode(int256(42)));
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        vm.prank(address(world));
        probe.onComputeResult(taskId, 1, result, _list(abi.encode(int256(42))));
    }

    function test_anAnswerAfterTheDeadlineIsNotTaken() public {
        _passDeadline(r);
        vm.expectPartialRevert(I.ComputeOracle_DeadlinePassed.selector);
        this.answer(abi.encode(int256(42)));
        assertTrue(probe.isPending(taskId));
    }

    function test_anyoneReclaimsWhatNobodyAnswered() public {
        _passDeadline(r);
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        vm.prank(anyone);
        probe.reclaim(r, pricing);
        assertEq(_stateOf(r), TaskState.EXPIRED);
        assertEq(probe.endedAs(), TaskState.EXPIRED);
        _endedOnce();
        vm.prank(anyone);
        probe.collect(address(0));
        assertEq(address(probe).balance, 1 ether);
    }

    function test_reclaimsWhatAnotherExpired() public {
        _passDeadline(r);
        world.expire(r, _pricingOf(r.agreementId));
        I.Pricing memory none;
        probe.reclaim(r, none);
        assertEq(probe.endedAs(), TaskState.EXPIRED);
        _endedOnce();
    }

    function test_refusesToReclaimBeforeTheDeadline() public {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        vm.warp(r.deadline);
        vm.expectRevert(
            abi.encodeWithSelector(I.ComputeOracle_DeadlineNotPassed.selector, uint256(r.deadline), r.deadline)
        );
        probe.reclaim(r, pricing);
        assertTrue(probe.isPending(taskId));
    }

    function test_refusesToReclaimByAnotherPrice() public {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        pricing.price.minFee = PRICE;
        _passDeadline(r);
        vm.expectPartialRevert(I.ComputeOracle_WrongSettlement.selector);
        probe.reclaim(r, pricing);
    }

    function test_refusesToReclaimTwice() public {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        _passDeadline(r);
        probe.reclaim(r, pricing);
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        probe.reclaim(r, pricing);
    }

    function test_refusesToReclaimARequestOfAnother() public {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        Probe other = new Probe(world);
        _passDeadline(r);
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        other.reclaim(r, pricing);
    }

    function test_refusesToReclaimWhatIsSettled() public {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        _passDeadline(r);
        vm.expectRevert(
            abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotEnded.selector, taskId, TaskState.FULFILLED)
        );
        probe.reclaim(r, pricing);
    }

    function test_cancelsWithinTheDelay() public {
        vm.roll(vm.getBlockNumber() + DELAY);
        probe.cancel(r);
        assertEq(_stateOf(r), TaskState.CANCELLED);
        assertEq(probe.endedAs(), TaskState.CANCELLED);
        _endedOnce();
        probe.collect(address(0));
        assertEq(address(probe).balance, 1 ether);
    }

    function test_doesNotCancelAfterTheDelay() public {
        uint256 until = vm.getBlockNumber() + DELAY;
        vm.roll(until + 1);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_CancelClosed.selector, until + 1, until));
        probe.cancel(r);
        assertTrue(probe.isPending(taskId));
    }

    function test_doesNotCancelWhatEnded() public {
        _answer(r, abi.encode(int256(42)));
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        probe.cancel(r);
    }

    function test_doesNotCancelWhatIsSettledButNotHeard() public {
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.FULFILLED));
        probe.cancel(r);
        assertTrue(probe.isPending(taskId));
    }

    function test_reclaimsWhatWasCancelledAtTheOracle() public {
        probe.cancelAtTheOracleOnly(r, _open());
        assertTrue(probe.isPending(taskId));
        I.Pricing memory none;
        probe.reclaim(r, none);
        assertEq(probe.endedAs(), TaskState.CANCELLED);
        _endedOnce();
    }

    function test_hearsTheAnswerInAnotherTryAfterARevert() public {
        _retries(Probe.Act.Revert);
    }

    function test_hearsTheAnswerInAnotherTryAfterItRanOutOfGas() public {
        _retries(Probe.Act.BurnAll);
    }

    function test_anotherTryThatFailsChangesNothing() public {
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        probe.set(Probe.Act.Revert);
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_CallbackFailedAgain.selector, taskId));
        world.retryCallback(r, result, _list(abi.encode(int256(42))));
        assertTrue(probe.isPending(taskId));
        assertTrue(world.task(r.agreementId, taskId).callback);
    }

    function test_anotherTryHasAtLeastTheAgreedGas() public {
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        bytes[] memory outputs = _list(abi.encode(int256(42)));
        Result memory result = _resultOf(r, outputs);
        vm.expectPartialRevert(I.ComputeOracle_NotEnoughGas.selector);
        world.retryCallback{gas: r.callbackGas}(r, result, outputs);
        assertTrue(probe.isPending(taskId));
    }

    function test_anotherTryTakesNoOtherResult() public {
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        result.outcome = Outcome.FAILED;
        vm.expectPartialRevert(I.ComputeOracle_WrongResult.selector);
        world.retryCallback(r, result, _list(abi.encode(int256(42))));
    }

    function test_anotherTryTakesNoOtherOutput() public {
        _settleThoughTheCallbackFails(Probe.Act.Revert);
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        vm.expectPartialRevert(I.ComputeOracle_WrongPublicOutput.selector);
        world.retryCallback(r, result, _list(abi.encode(int256(43))));
    }

    function test_noOtherTryIsNeededWhereTheCallbackWorked() public {
        _answer(r, abi.encode(int256(42)));
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, taskId));
        world.retryCallback(r, result, _list(abi.encode(int256(42))));
    }

    function test_cannotAskFromWithinACallback() public {
        probe.set(Probe.Act.AskAgain);
        _answer(r, abi.encode(int256(42)));
        assertEq(probe.seen(), abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector));
        _endedOnce();
    }

    /// @dev However little gas the settlement is sent with: it reverts, or the callback had what it was promised.
    function test_isNotStarvedByWhoSettles() public {
        (uint256 low, uint256 high) = (50_000, 3_000_000);
        while (high - low > 100) {
            uint256 middle = (low + high) / 2;
            uint256 snapshot = vm.snapshotState();
            try this.answer{gas: middle}(abi.encode(int256(42))) {
                assertEq(probe.fulfilled(), 1);
                high = middle;
            } catch {
                low = middle;
            }
            vm.revertToState(snapshot);
        }
        this.answer{gas: high}(abi.encode(int256(42)));
        assertEq(probe.fulfilled(), 1);
    }

    function test_paysATokenAndLeavesNothingAllowed() public {
        _paysInToken(new Coin(), 5e6);
    }

    function test_paysATokenThatWantsZeroBefore() public {
        _paysInToken(new StrictCoin(), 5e6);
    }

    function test_doesNotLeaveAllowedWhatIsAboveTheFee() public {
        _paysInToken(new StrictCoin(), 6e6);
    }

    function test_whatComesBackInATokenIsCollected() public {
        Coin coin = new Coin();
        TaskRequest memory paid = _paysInToken(coin, 5e6);
        I.Pricing memory pricing = _pricingOf(paid.agreementId);
        _passDeadline(paid);
        probe.reclaim(paid, pricing);
        probe.collect(address(coin));
        assertEq(coin.balanceOf(address(probe)), 10e6);
    }

    function test_doesNotPayTheCoinUnderAnAgreementInAToken() public {
        TaskRequest memory next = _requestUnder(_agree(_price(address(new Coin()), 5e6), 0));
        next.maxFee = 5e6;
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, 5e6, 0));
        probe.ask(next, address(0));
    }

    function test_doesNotPayATokenUnderAnAgreementInTheCoin() public {
        Coin coin = new Coin();
        coin.mint(address(probe), 1 ether);
        r.nonce = keccak256("next");
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, 0, PRICE));
        probe.ask(r, address(coin));
    }

    function test_doesNotPayMoreThanAgreed() public {
        r.nonce = keccak256("next");
        r.maxFee = PRICE + 1;
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, PRICE + 1, PRICE));
        probe.ask(r, address(0));
    }

    function test_asksNothingTwice() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, taskId, TaskState.REQUESTED));
        probe.ask(r, address(0));
    }

    function test_collectsNothingWhereNothingIs() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToWithdraw.selector, address(probe), address(0)));
        probe.collect(address(0));
    }

    function test_takesTheCoinFromTheOracleOnly() public {
        vm.deal(anyone, 1);
        vm.prank(anyone);
        (bool sent, bytes memory error_) = address(probe).call{value: 1}("");
        assertFalse(sent);
        assertEq(error_, abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotOracle.selector, anyone));
    }

    function test_refusesAnOracleWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotAContract.selector, anyone));
        new Probe(I(anyone));
    }

    /// @dev From outside, so that what it reverts with can be caught, and its gas limited.
    function answer(bytes memory output) external {
        _answer(r, output);
    }

    function _requestUnder(bytes32 agreementId) internal view returns (TaskRequest memory request) {
        request.agreementId = agreementId;
        request.nonce = keccak256("nonce");
        request.versions = versions;
        request.maxFee = PRICE;
        request.deadline = uint64(vm.getBlockTimestamp() + 1 hours);
        request.callbackGas = 300_000;
    }

    function _endedOnce() private view {
        assertFalse(probe.isPending(taskId));
        assertEq(probe.fulfilled() + probe.unanswered(), 1);
    }

    function _settleThoughTheCallbackFails(Probe.Act act) private {
        probe.set(act);
        vm.expectEmit(address(world));
        emit I.CallbackFailed(taskId, address(probe));
        _answer(r, abi.encode(int256(42)));
        probe.set(Probe.Act.Keep);
        assertEq(_stateOf(r), TaskState.FULFILLED);
        assertTrue(probe.isPending(taskId));
        assertEq(probe.fulfilled(), 0);
    }

    function _retries(Probe.Act act) private {
        _settleThoughTheCallbackFails(act);
        Result memory result = _resultOf(r, _list(abi.encode(int256(42))));
        vm.expectEmit(address(world));
        emit I.CallbackDelivered(taskId, address(probe));
        vm.prank(anyone);
        world.retryCallback(r, result, _list(abi.encode(int256(42))));
        assertEq(probe.value(), 42);
        _endedOnce();
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, taskId));
        world.retryCallback(r, result, _list(abi.encode(int256(42))));
    }

    function _paysInToken(Coin coin, uint256 maxFee) private returns (TaskRequest memory next) {
        coin.mint(address(probe), 10e6);
        next = _requestUnder(_agree(_price(address(coin), 5e6), 0));
        next.maxFee = maxFee;
        bytes32 id = probe.ask(next, address(coin));
        next = _asked();
        assertTrue(probe.isPending(id));
        assertEq(coin.balanceOf(address(probe)), 5e6);
        assertEq(coin.balanceOf(address(world)), 5e6);
        assertEq(coin.allowance(address(probe), address(world)), 0);
    }
}

contract ConsumerTest is ConsumerSuite, RealWorld {
    function setUp() public override(ConsumerSuite, RealWorld) {
        ConsumerSuite.setUp();
    }
}

contract ConsumerOnMockTest is ConsumerSuite, MockWorld {
    function setUp() public override(ConsumerSuite, ConsumerWorld) {
        ConsumerSuite.setUp();
    }
}

/// @notice The example whose answers are sealed to a recipient: it learns digests only.
contract RiskDeskTest is Fixture {
    Agreement private a;
    RiskDesk private desk;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        bytes32 id = _activate(a);
        _register();
        desk = RiskDesk(payable(deploy("RiskDesk.sol:RiskDesk", abi.encode(oracle, id, keccak256("result key")))));
        vm.deal(address(desk), 1 ether);
        r = _taskRequest(id);
        r.requester = address(desk);
        r.nonce = bytes32(uint256(1));
        r.deadline = uint64(vm.getBlockTimestamp() + 1 days);
        r.callback = address(desk);
        r.callbackGas = 100_000;
        taskId = desk.ask(r.versions, "", FEE);
    }

    function test_asks() public view {
        assertEq(taskId, oracle.taskIdOf(r));
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function test_theOwnerTakesWhatIsLeft() public {
        address payable to = payable(makeAddr("treasury"));
        vm.expectRevert(abi.encodeWithSelector(RiskDesk.RiskDesk_NotOwner.selector, stranger));
        vm.prank(stranger);
        desk.withdraw(to);
        desk.withdraw(to);
        assertEq(to.balance, 1 ether - FEE);
    }

    function test_onlyTheOwnerAsks() public {
        vm.expectRevert(abi.encodeWithSelector(RiskDesk.RiskDesk_NotOwner.selector, stranger));
        vm.prank(stranger);
        desk.ask(r.versions, "", FEE);
    }

    function test_keepsTheDigestOfTheAnswer() public {
        vm.expectEmit(address(desk));
        emit RiskDesk.Answered(taskId, keccak256("output"));
        _fulfil(a, r, _result(r));
        assertEq(desk.answers(taskId), keccak256("output"));
    }

    function test_hearsOfAFailure() public {
        vm.expectEmit(address(desk));
        emit RiskDesk.Unanswered(taskId);
        _fulfil(a, r, _failure(r));
        assertEq(desk.answers(taskId), 0);
    }

    function test_hearsThatNobodyAnswered() public {
        vm.warp(uint256(r.deadline) + 1);
        vm.expectEmit(address(desk));
        emit RiskDesk.Unanswered(taskId);
        desk.reclaim(r, _pricing(a));
        desk.collect(address(0));
        assertEq(address(desk).balance, 1 ether);
    }
}
