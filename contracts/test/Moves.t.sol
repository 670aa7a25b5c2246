// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Batch, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";

/// @notice The table of IComputeOracle: every move in every state, at every time that matters.
contract MovesTest is TaskFixture {
    enum Verb {
        Request,
        RequestFor,
        Cancel,
        Succeed,
        Fail,
        SucceedMany,
        FailMany,
        Batch,
        Expire,
        Retry
    }

    /// @dev When, seen from the request: at once; past the release delay; at the deadline; past it.
    enum When {
        Early,
        Late,
        Deadline,
        Past
    }

    uint8 private constant STATES = 6;
    bytes4 private constant MOVES = 0;

    Agreement private a;
    bytes32 private id;
    TaskRequest private r;
    bytes32 private taskId;
    uint256 private from;
    uint256 private since;

    function setUp() public override {
        super.setUp();
        a = _roomy(1000);
        id = _activate(a);
        _register();
        r = _taskRequest(id);
        r.deadline = uint64(vm.getBlockTimestamp() + 30 minutes);
        taskId = oracle.taskIdOf(r);
        from = vm.getBlockNumber();
        since = vm.getBlockTimestamp();
    }

    /// @dev Six states, ten verbs, four times; what each must answer is written down in `_expected` and `_next`.
    function test_everyMoveInEveryState() public {
        uint256 moved;
        for (uint8 state; state < STATES; ++state) {
            for (uint8 verb; verb <= uint8(Verb.Retry); ++verb) {
                for (uint8 time; time <= uint8(When.Past); ++time) {
                    uint256 snapshot = vm.snapshotState();
                    _bring(state);
                    assertEq(_state(r), state, "brought");
                    _wait(When(time));
                    if (_try(state, Verb(verb), When(time))) ++moved;
                    vm.revertToState(snapshot);
                }
            }
        }
        // None: 2 verbs × 2 times (a request at or past its deadline is refused). Requested: cancel × 1, settlement by five verbs × 3,
        // expire × 1.
        assertEq(moved, 4 + 1 + 15 + 1);
    }

    /// @dev As above, where the agreement has no cancel.
    function test_withoutADelayNothingIsCancelled() public {
        a.keys.releaseDelay = 0;
        id = _activate(a);
        r.agreementId = id;
        _request(r);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_CancelClosed.selector, from, 0));
        vm.prank(requester);
        oracle.cancel(r, _anyone());
    }

    /// @dev Of tasks that call back, too: a retry leaves the state as it was, and there is one.
    function test_onlyARetryTouchesASettledTask() public {
        Caller caller = _caller();
        r = _callingBack(id, caller, 100_000);
        caller.request(r, _anyone(), FEE);
        caller.set(Caller.Act.Revert);
        _fulfil(a, r, _failure(r));
        caller.set(Caller.Act.Accept);
        oracle.retryCallback(r, _failure(r), new bytes[](0));
        assertEq(_state(r), TaskState.FAILED);
        Result memory failure = _failure(r);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, failure.taskId));
        oracle.retryCallback(r, failure, new bytes[](0));
    }

    function _bring(uint8 state) private {
        if (state == TaskState.NONE) return;
        _request(r);
        if (state == TaskState.FULFILLED) _fulfil(a, r, _result(r));
        if (state == TaskState.FAILED) _fulfil(a, r, _failure(r));
        if (state == TaskState.CANCELLED) {
            vm.prank(requester);
            oracle.cancel(r, _anyone());
        }
        if (state == TaskState.EXPIRED) {
            vm.warp(uint256(r.deadline) + 1);
            oracle.expire(r, _pricing(a));
            vm.warp(since);
        }
    }

    function _wait(When time) private {
        if (time == When.Late) vm.roll(from + RELEASE_DELAY + 1);
        if (time == When.Deadline) vm.roll(from + 300);
        if (time == When.Past) vm.roll(from + 301);
        if (time == When.Deadline) vm.warp(r.deadline);
        if (time == When.Past) vm.warp(uint256(r.deadline) + 1);
    }

    function _try(uint8 state, Verb verb, When time) private returns (bool) {
        bytes memory data = _call(verb);
        uint256 value = verb <= Verb.RequestFor ? FEE : 0;
        vm.prank(requester);
        (bool done, bytes memory answer) = address(oracle).call{value: value}(data);
        bytes4 expected = _expected(state, verb, time);
        string memory where = string(abi.encodePacked("state ", state + 0x30, " verb ", uint8(verb) + 0x30));
        assertEq(done, expected == MOVES, where);
        if (!done) assertEq(bytes32(bytes4(answer)), bytes32(expected), where);
        assertEq(_state(r), done ? _next(verb) : state, where);
        return done;
    }

    function _expected(uint8 state, Verb verb, When time) private pure returns (bytes4) {
        bool past = time == When.Past;
        if (verb <= Verb.RequestFor) {
            // Now is no deadline.
            if (past || time == When.Deadline) return I.ComputeOracle_BadDeadline.selector;
            return state == TaskState.NONE ? MOVES : I.ComputeOracle_TaskExists.selector;
        }
        if (verb == Verb.Retry) return I.ComputeOracle_NoFailedCallback.selector;
        bool leavesOut = verb == Verb.SucceedMany || verb == Verb.FailMany || verb == Verb.Batch;
        if (state != TaskState.REQUESTED) {
            return leavesOut ? I.ComputeOracle_NothingToSettle.selector : I.ComputeOracle_NotRequested.selector;
        }
        if (verb == Verb.Cancel) return time == When.Early ? MOVES : I.ComputeOracle_CancelClosed.selector;
        if (verb == Verb.Expire) return past ? MOVES : I.ComputeOracle_DeadlineNotPassed.selector;
        if (!past) return MOVES;
        return leavesOut ? I.ComputeOracle_NothingToSettle.selector : I.ComputeOracle_DeadlinePassed.selector;
    }

    function _next(Verb verb) private pure returns (uint8) {
        if (verb <= Verb.RequestFor) return TaskState.REQUESTED;
        if (verb == Verb.Cancel) return TaskState.CANCELLED;
        if (verb == Verb.Expire) return TaskState.EXPIRED;
        if (verb == Verb.Fail || verb == Verb.FailMany) return TaskState.FAILED;
        return TaskState.FULFILLED;
    }

    function _call(Verb verb) private view returns (bytes memory) {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        if (verb == Verb.Request) return abi.encodeCall(I.request, (r, _anyone(), ""));
        if (verb == Verb.RequestFor) {
            I.Payment memory payment;
            return abi.encodeCall(I.requestFor, (r, _anyone(), "", "", payment));
        }
        if (verb == Verb.Cancel) return abi.encodeCall(I.cancel, (r, _anyone()));
        if (verb == Verb.Expire) return abi.encodeCall(I.expire, (r, _pricing(a)));
        if (verb == Verb.Retry) return abi.encodeCall(I.retryCallback, (r, _result(r), new bytes[](0)));
        if (verb == Verb.Batch) {
            TaskRequest[] memory rs = new TaskRequest[](1);
            rs[0] = r;
            Batch memory batch = _batch(rs);
            return abi.encodeCall(I.fulfilBatch, (settlement, identity, batch, _signBatch(batch)));
        }
        bool failure = verb == Verb.Fail || verb == Verb.FailMany;
        I.Fulfilment[] memory list = new I.Fulfilment[](1);
        list[0] = _fulfilment(r, failure ? _failure(r) : _result(r));
        if (verb <= Verb.Fail) return abi.encodeCall(I.fulfil, (settlement, identity, list[0]));
        return abi.encodeCall(I.fulfilMany, (settlement, identity, list));
    }
}
