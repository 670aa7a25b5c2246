// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {RiskDesk} from "../examples/RiskDesk.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @notice ComputeConsumer, by way of the example contract.
contract ConsumerTest is Fixture {
    Agreement private a;
    RiskDesk private desk;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        bytes32 id = _activate(a);
        _register();
        desk = new RiskDesk{value: 0}(oracle, id, keccak256("result key"));
        vm.deal(address(desk), 1 ether);
        r = _taskRequest(id);
        r.requester = address(desk);
        r.nonce = bytes32(uint256(1));
        r.deadline = uint64(vm.getBlockTimestamp() + 1 days);
        r.callback = address(desk);
        r.callbackGas = 100_000;
        taskId = desk.ask(r.versions, "", FEE);
    }

    function test_asksInItsOwnName() public view {
        assertEq(taskId, oracle.taskIdOf(r));
        assertEq(_state(taskId), TaskState.REQUESTED);
        assertTrue(desk.isPending(taskId));
    }

    function test_getsItsAnswer() public {
        vm.expectEmit(address(desk));
        emit RiskDesk.Answered(taskId, keccak256("output"));
        _fulfil(a, r, _result(r));
        assertEq(desk.answers(taskId), keccak256("output"));
        assertFalse(desk.isPending(taskId));
    }

    function test_hearsOfAFailure() public {
        vm.expectEmit(address(desk));
        emit RiskDesk.Unanswered(taskId);
        _fulfil(a, r, _failure(r));
        assertEq(desk.answers(taskId), 0);
        assertFalse(desk.isPending(taskId));
    }

    function test_refusesAnswersFromAnyoneElse() public {
        Result memory result = _result(r);
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotOracle.selector, stranger));
        vm.prank(stranger);
        desk.onComputeResult(taskId, 1, result);
    }

    function test_refusesAnswersItDidNotAskFor() public {
        Result memory result = _result(r);
        bytes32 another = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, another));
        vm.prank(address(oracle));
        desk.onComputeResult(another, 1, result);
    }

    function test_reclaimsWhatNobodyAnswered() public {
        vm.warp(uint256(r.deadline) + 1);
        vm.expectEmit(address(desk));
        emit RiskDesk.Unanswered(taskId);
        vm.prank(stranger);
        desk.reclaim(r);
        assertEq(_state(taskId), TaskState.EXPIRED);
        assertFalse(desk.isPending(taskId));
        desk.collect();
        assertEq(address(desk).balance, 1 ether);
    }

    function test_reclaimsWhatAnotherExpired() public {
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r);
        desk.reclaim(r);
        assertFalse(desk.isPending(taskId));
    }

    function test_refusesToReclaimBeforeTheDeadline() public {
        vm.expectRevert(
            abi.encodeWithSelector(I.ComputeOracle_DeadlineNotPassed.selector, vm.getBlockTimestamp(), r.deadline)
        );
        desk.reclaim(r);
        assertTrue(desk.isPending(taskId));
    }

    function test_refusesToReclaimTwice() public {
        vm.warp(uint256(r.deadline) + 1);
        desk.reclaim(r);
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        desk.reclaim(r);
    }

    function test_redeliversWhereTheCallbackFailed() public {
        Result memory result = _settleWithFailingCallback();
        assertTrue(desk.isPending(taskId));
        vm.prank(stranger);
        desk.redeliver(taskId, result);
        assertEq(desk.answers(taskId), keccak256("output"));
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotPending.selector, taskId));
        desk.redeliver(taskId, result);
    }

    function test_refusesToRedeliverAnotherResult() public {
        Result memory result = _settleWithFailingCallback();
        bytes31 expected = bytes31(oracle.resultDigestOf(result));
        result.outputs[0].digest = keccak256("another output");
        bytes31 got = bytes31(oracle.resultDigestOf(result));
        vm.expectRevert(
            abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_WrongResult.selector, taskId, got, expected)
        );
        desk.redeliver(taskId, result);
    }

    function test_refusesToRedeliverWhatIsNotSettled() public {
        Result memory result = _result(r);
        vm.expectRevert(
            abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotEnded.selector, taskId, TaskState.REQUESTED)
        );
        desk.redeliver(taskId, result);
    }

    function test_refusesToReclaimWhatIsSettled() public {
        _settleWithFailingCallback();
        vm.expectRevert(
            abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotEnded.selector, taskId, TaskState.FULFILLED)
        );
        desk.reclaim(r);
    }

    function test_refusesOracleWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(ComputeConsumer.ComputeConsumer_NotAContract.selector, stranger));
        new RiskDesk(I(stranger), 0, 0);
    }

    /// @dev While the settlement takes place, the contract is one whose every call fails.
    function _settleWithFailingCallback() private returns (Result memory result) {
        result = _result(r);
        bytes memory code = address(desk).code;
        vm.etch(address(desk), hex"fe");
        vm.expectEmit(address(oracle));
        emit I.CallbackFailed(taskId, address(desk));
        _fulfil(a, r, result);
        vm.etch(address(desk), code);
    }
}
