// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {StatisticsDao} from "../examples/StatisticsDao.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Price, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {ConsumerWorld, MockWorld, RealWorld} from "./ConsumerWorld.sol";

/// @notice A recipient that does not take its money at first, and tries to take it twice.
contract Recipient {
    bool public willing;
    bool public entered;

    function set(bool willing_) external {
        willing = willing_;
    }

    receive() external payable {
        require(willing, "not now");
        (entered,) = msg.sender.call(abi.encodeCall(StatisticsDao.claim, (address(this))));
    }
}

abstract contract StatisticsDaoSuite is ConsumerWorld {
    uint256 private constant PRICE = 0.01 ether;
    uint256 private constant MIN_FEE = 0.002 ether;
    uint256 private constant FAILED_FEE = 0.003 ether;
    uint128 private constant AMOUNT = 3 ether;
    uint256 private constant FUNDS = 10 ether;
    int256 private constant AT_LEAST = 1000;

    StatisticsDao private dao;
    StatisticsDao.Terms private terms;
    address[] private members;
    address private recipient;
    bytes32 private id;
    TaskRequest private r;

    function setUp() public virtual override {
        super.setUp();
        recipient = makeAddr("recipient");
        for (uint256 i; i < 4; ++i) {
            members.push(makeAddr(string.concat("member ", vm.toString(i))));
        }
        dao = _dao(members);
        vm.deal(address(dao), FUNDS);
        Price memory price = _price(address(0), PRICE);
        (price.minFee, price.failedFee) = (MIN_FEE, FAILED_FEE);
        price.to = new address[](1);
        price.to[0] = makeAddr("hospital");
        price.bps = new uint16[](1);
        price.bps[0] = 5000;
        terms.recipient = recipient;
        terms.amount = AMOUNT;
        terms.agreementId = _agree(price, 0);
        terms.fee = PRICE;
        terms.params = '{"year":2026}';
        terms.versions = versions;
        terms.atLeast = AT_LEAST;
        vm.prank(members[0]);
        id = dao.propose(terms);
    }

    // Voting

    function test_passesWithMoreThanHalf() public {
        _vote(0);
        _vote(1);
        _is(StatisticsDao.Stage.Voting);
        _vote(2);
        _is(StatisticsDao.Stage.Passed);
    }

    function test_halfOfAnOddNumberIsNotMoreThanHalf() public {
        members.pop();
        StatisticsDao odd = _dao(members);
        vm.prank(members[0]);
        id = odd.propose(terms);
        vm.prank(members[0]);
        odd.vote(id);
        assertEq(uint256(odd.proposalAt(id).stage), uint256(StatisticsDao.Stage.Voting));
        vm.prank(members[1]);
        odd.vote(id);
        assertEq(uint256(odd.proposalAt(id).stage), uint256(StatisticsDao.Stage.Passed));
    }

    function test_nobodyVotesTwice() public {
        _vote(0);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_AlreadyVoted.selector, id, members[0]));
        _vote(0);
    }

    function test_onlyMembersProposeVoteAndAsk() public {
        bytes memory refused = abi.encodeWithSelector(StatisticsDao.StatisticsDao_NotMember.selector, anyone);
        terms.salt = keccak256("another");
        vm.startPrank(anyone);
        vm.expectRevert(refused);
        dao.propose(terms);
        vm.expectRevert(refused);
        dao.vote(id);
        vm.expectRevert(refused);
        dao.ask(terms, versions, _open());
        vm.stopPrank();
    }

    function test_nobodyVotesTooLate() public {
        uint256 until = vm.getBlockTimestamp() + 7 days;
        vm.warp(until);
        _vote(0);
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_TooLate.selector, id, until));
        _vote(1);
    }

    function test_nothingIsProposedTwice() public {
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongStage.selector, id, StatisticsDao.Stage.Voting)
        );
        vm.prank(members[0]);
        dao.propose(terms);
    }

    function test_anIdIsOfAllTermsAndOfThisDao() public {
        assertNotEq(_dao(members).proposalIdOf(terms), id);
        terms.atLeast = 1;
        assertNotEq(dao.proposalIdOf(terms), id);
        vm.chainId(5);
        terms.atLeast = AT_LEAST;
        assertNotEq(dao.proposalIdOf(terms), id);
    }

    function test_nothingIsProposedForNobodyOrForNothing() public {
        terms.recipient = address(0);
        vm.expectRevert(StatisticsDao.StatisticsDao_BadTerms.selector);
        vm.prank(members[0]);
        dao.propose(terms);
        (terms.recipient, terms.amount) = (recipient, 0);
        vm.expectRevert(StatisticsDao.StatisticsDao_BadTerms.selector);
        vm.prank(members[0]);
        dao.propose(terms);
    }

    // Asking

    function test_asksWhatWasVotedOn() public {
        _ask();
        assertEq(r.agreementId, terms.agreementId);
        assertEq(r.params, terms.params);
        assertEq(r.versions, versions);
        assertEq(r.maxFee, PRICE);
        assertEq(dao.proposalOf(askedId), id);
        assertEq(dao.reserved(), AMOUNT);
        assertEq(dao.free(), FUNDS - PRICE - AMOUNT);
    }

    /// @dev The one answer counts: a member who is against it must not ask while the number is still low.
    function test_nobodyAsksBeforeTheAgreedTime() public {
        terms.askFrom = uint40(vm.getBlockTimestamp() + 100 days);
        vm.prank(members[0]);
        id = dao.propose(terms);
        _pass();
        vm.warp(terms.askFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_TooEarly.selector, id, terms.askFrom));
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
        vm.warp(terms.askFrom);
        _askOnceMore();
        _is(StatisticsDao.Stage.Asked);
        assertEq(dao.proposalAt(id).until, terms.askFrom + 30 days);
    }

    function test_nothingIsProposedForLaterThanAYear() public {
        terms.askFrom = uint40(vm.getBlockTimestamp() + 365 days + 1);
        vm.expectRevert(StatisticsDao.StatisticsDao_BadTerms.selector);
        vm.prank(members[0]);
        dao.propose(terms);
        --terms.askFrom;
        vm.prank(members[0]);
        dao.propose(terms);
    }

    function test_asksNothingThatDidNotPass() public {
        _vote(0);
        _vote(1);
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongStage.selector, id, StatisticsDao.Stage.Voting)
        );
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_asksNothingElse() public {
        _pass();
        terms.atLeast = 1;
        bytes32 other = dao.proposalIdOf(terms);
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongStage.selector, other, StatisticsDao.Stage.None)
        );
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_asksOfNoOtherVersions() public {
        _pass();
        versions[0] = keccak256("a version that says more");
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongVersions.selector, id));
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_asksOfTheVersionsOfTheDayWhereNoneAreVotedOn() public {
        delete terms.versions;
        vm.prank(members[0]);
        id = dao.propose(terms);
        _ask();
        assertEq(r.versions, versions);
    }

    function test_asksOnceAtATime() public {
        _ask();
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongStage.selector, id, StatisticsDao.Stage.Asked)
        );
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_asksNothingTooLate() public {
        _pass();
        uint256 until = vm.getBlockTimestamp() + 30 days;
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_TooLate.selector, id, until));
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_asksOnlyWhereTheAmountIsThere() public {
        _pass();
        vm.deal(address(dao), AMOUNT + PRICE - 1);
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_NotEnough.selector, AMOUNT + PRICE - 1, AMOUNT + PRICE)
        );
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
        vm.deal(address(dao), AMOUNT + PRICE);
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
        assertEq(dao.free(), 0);
    }

    function test_whatIsReservedOrOwedIsNotSpentAgain() public {
        _ask();
        _answer(r, abi.encode(AT_LEAST));
        assertEq(dao.free(), FUNDS - PRICE - AMOUNT);
        terms.amount = uint128(FUNDS - PRICE - AMOUNT - PRICE + 1);
        vm.prank(members[0]);
        id = dao.propose(terms);
        _pass();
        vm.expectPartialRevert(StatisticsDao.StatisticsDao_NotEnough.selector);
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    // Answers

    function test_paysWhatReachesTheThreshold() public {
        _ask();
        vm.expectEmit(address(dao));
        emit StatisticsDao.Answered(id, AT_LEAST, StatisticsDao.Stage.Paid);
        _answer(r, abi.encode(AT_LEAST));
        _is(StatisticsDao.Stage.Paid);
        assertEq(dao.reserved(), 0);
        assertEq(dao.owed(), AMOUNT);
        vm.prank(anyone);
        assertEq(dao.claim(recipient), AMOUNT);
        assertEq(recipient.balance, AMOUNT);
        assertEq(dao.free(), FUNDS - PRICE - AMOUNT);
    }

    function test_paysNothingBelowTheThreshold() public {
        _ask();
        _answer(r, abi.encode(AT_LEAST - 1));
        _is(StatisticsDao.Stage.Missed);
        _nothingIsOwed(FUNDS - PRICE);
    }

    function testFuzz_paysAsTheNumberSays(int256 value) public {
        _ask();
        _answer(r, abi.encode(value));
        _is(value >= AT_LEAST ? StatisticsDao.Stage.Paid : StatisticsDao.Stage.Missed);
        assertEq(dao.owedTo(recipient), value >= AT_LEAST ? AMOUNT : 0);
    }

    function testFuzz_anAnswerOfAnyShapeEndsTheQuestion(bytes calldata output) public {
        _ask();
        _answer(r, output);
        assertFalse(dao.isPending(askedId));
        assertEq(dao.reserved(), 0);
        if (output.length != 32) _is(StatisticsDao.Stage.Failed);
    }

    function test_aFailureIsFinal() public {
        _ask();
        _fail(r);
        _is(StatisticsDao.Stage.Failed);
        dao.collect(address(0));
        _nothingIsOwed(FUNDS - FAILED_FEE);
        vm.expectRevert(
            abi.encodeWithSelector(StatisticsDao.StatisticsDao_WrongStage.selector, id, StatisticsDao.Stage.Failed)
        );
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
    }

    function test_nobodyAnswersButTheOracle() public {
        _ask();
        Result memory result;
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotOracle.selector, recipient));
        vm.prank(recipient);
        dao.onComputeResult(askedId, 1, result, _list(abi.encode(AT_LEAST)));
    }

    function test_nothingIsPaidTwice() public {
        _ask();
        _answer(r, abi.encode(AT_LEAST));
        dao.claim(recipient);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_NothingOwed.selector, recipient));
        dao.claim(recipient);
    }

    function test_aRecipientThatDoesNotTakeItsMoneyHoldsNothingUp() public {
        Recipient hostile = new Recipient();
        terms.recipient = address(hostile);
        vm.prank(members[0]);
        id = dao.propose(terms);
        _ask();
        _answer(r, abi.encode(AT_LEAST));
        _is(StatisticsDao.Stage.Paid);
        vm.expectRevert(bytes("not now"));
        dao.claim(address(hostile));
        hostile.set(true);
        dao.claim(address(hostile));
        assertFalse(hostile.entered());
        assertEq(address(hostile).balance, AMOUNT);
    }

    function test_theCallbackHasGasToSpare() public {
        _ask();
        Result memory result;
        bytes memory call = abi.encodeCall(dao.onComputeResult, (askedId, 1, result, _list(abi.encode(AT_LEAST))));
        vm.cool(address(dao));
        vm.prank(address(world));
        uint256 before = gasleft();
        (bool called,) = address(dao).call(call);
        uint256 used = before - gasleft();
        assertTrue(called);
        assertLt(used, r.callbackGas * 4 / 5);
    }

    function test_anAnswerThatTheContractMissedIsHeardLater() public {
        _ask();
        bytes memory code = address(dao).code;
        vm.etch(address(dao), hex"fe");
        _answer(r, abi.encode(AT_LEAST));
        vm.etch(address(dao), code);
        _is(StatisticsDao.Stage.Asked);
        assertEq(dao.reserved(), AMOUNT);
        bytes[] memory outputs = _list(abi.encode(AT_LEAST));
        Result memory result = _resultOf(r, outputs);
        vm.prank(anyone);
        world.retryCallback(r, result, outputs);
        _is(StatisticsDao.Stage.Paid);
    }

    // Without an answer

    function test_whatNobodyAnsweredIsAskedAgain() public {
        _ask();
        bytes32 first = askedId;
        _unanswered();
        _is(StatisticsDao.Stage.Passed);
        _nothingIsOwed(FUNDS - MIN_FEE);
        _askOnceMore();
        assertNotEq(askedId, first);
        _answer(r, abi.encode(AT_LEAST));
        _is(StatisticsDao.Stage.Paid);
    }

    function test_isNotAskedForEver() public {
        _ask();
        _unanswered();
        for (uint256 i = 1; i < dao.MAX_ASKED(); ++i) {
            _askOnceMore();
            _unanswered();
        }
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_AskedTooOften.selector, id));
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
        _nothingIsOwed(FUNDS - 3 * MIN_FEE);
    }

    // Construction

    function test_takesNoMemberTwiceAndNotNobody() public {
        members.push(members[0]);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_BadMember.selector, members[0]));
        _dao(members);
        members[4] = address(0);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_BadMember.selector, address(0)));
        _dao(members);
        vm.expectRevert(abi.encodeWithSelector(StatisticsDao.StatisticsDao_BadMembers.selector, 0));
        _dao(new address[](0));
    }

    function test_anyoneFunds() public {
        vm.deal(anyone, 1 ether);
        vm.expectEmit(address(dao));
        emit StatisticsDao.Funded(anyone, 1 ether);
        vm.prank(anyone);
        (bool sent,) = address(dao).call{value: 1 ether}("");
        assertTrue(sent);
        assertEq(dao.free(), FUNDS + 1 ether);
    }

    // Inside

    function _dao(address[] memory list) private returns (StatisticsDao) {
        return StatisticsDao(payable(deploy("StatisticsDao.sol:StatisticsDao", abi.encode(world, list))));
    }

    function _vote(uint256 member) private {
        vm.prank(members[member]);
        dao.vote(id);
    }

    function _pass() private {
        _vote(0);
        _vote(1);
        _vote(2);
    }

    function _ask() private {
        _pass();
        _askOnceMore();
    }

    function _askOnceMore() private {
        vm.prank(members[0]);
        dao.ask(terms, versions, _open());
        r = _asked();
    }

    function _unanswered() private {
        I.Pricing memory pricing = _pricingOf(r.agreementId);
        _passDeadline(r);
        vm.prank(anyone);
        dao.reclaim(r, pricing);
        dao.collect(address(0));
        assertEq(_stateOf(r), TaskState.EXPIRED);
    }

    function _is(StatisticsDao.Stage stage) private view {
        assertEq(uint256(dao.proposalAt(id).stage), uint256(stage));
    }

    function _nothingIsOwed(uint256 free) private view {
        assertEq(dao.reserved(), 0);
        assertEq(dao.owed(), 0);
        assertEq(dao.free(), free);
    }
}

contract StatisticsDaoTest is StatisticsDaoSuite, RealWorld {
    function setUp() public override(StatisticsDaoSuite, RealWorld) {
        StatisticsDaoSuite.setUp();
    }
}

contract StatisticsDaoOnMockTest is StatisticsDaoSuite, MockWorld {
    function setUp() public override(StatisticsDaoSuite, ConsumerWorld) {
        StatisticsDaoSuite.setUp();
    }
}
