// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {Outcome, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";
import {Vm} from "./utils/Test.sol";

contract FulfilManyTest is TaskFixture {
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _roomy(1000);
        id = _activate(a);
        _register();
    }

    function test_settlesEachAsOneWouldBe() public {
        TaskRequest[] memory rs = _requests(id, 3);
        I.Fulfilment[] memory list = _fulfilments(rs);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        bytes32[] memory digests = new bytes32[](3);
        for (uint256 i; i < 3; ++i) {
            digests[i] = oracle.resultDigestOf(list[i].result);
        }
        for (uint256 i; i < 3; ++i) {
            vm.expectEmit(address(oracle));
            emit I.TaskFulfilled(list[i].result.taskId, id, enclave, digests[i], list[i].result, list[i].signature);
        }
        vm.prank(stranger);
        assertEq(oracle.fulfilMany(settlement, identity, list), 3);
        for (uint256 i; i < 3; ++i) {
            I.Task memory t = oracle.task(id, list[i].result.taskId);
            assertEq(t.state, TaskState.FULFILLED);
            assertEq(bytes32(t.resultDigest), bytes32(bytes31(digests[i])));
        }
        assertEq(_balance(payee), 3 * FEE * 45 / 100);
        assertEq(oracle.poolOf(id), 3 * FEE * 55 / 100);
    }

    function test_settlesAHundred() public {
        TaskRequest[] memory rs = _requests(id, 100);
        assertEq(_many(_fulfilments(rs)), 100);
        for (uint256 i; i < 100; ++i) {
            assertEq(_state(rs[i]), TaskState.FULFILLED);
        }
        assertEq(_balance(payee), 100 * (FEE - _shared(FEE)));
        assertEq(oracle.poolOf(id), 100 * _shared(FEE));
    }

    function test_countsADuplicateOnce() public {
        I.Fulfilment[] memory list = new I.Fulfilment[](2);
        list[0] = _fulfilments(_requests(id, 1))[0];
        list[1] = list[0];
        assertEq(_many(list), 1);
        assertEq(_balance(payee), FEE - _shared(FEE));
        assertEq(oracle.poolOf(id), _shared(FEE));
    }

    /// @dev An enclave that signed twice for one task: the first in the list counts.
    function test_countsTheFirstOfTwoResultsOfATask() public {
        TaskRequest[] memory rs = _requests(id, 1);
        I.Fulfilment[] memory list = new I.Fulfilment[](2);
        list[0] = _fulfilment(rs[0], _failure(rs[0]));
        list[1] = _fulfilment(rs[0], _result(rs[0]));
        assertEq(_many(list), 1);
        assertEq(_state(rs[0]), TaskState.FAILED);
        assertEq(_balance(payee), FAILED_FEE);
        assertEq(_balance(requester), FEE - FAILED_FEE);
        assertEq(oracle.poolOf(id), 0);
    }

    function test_leavesOutWhatAFrontRunnerSettled() public {
        TaskRequest[] memory rs = _requests(id, 3);
        vm.prank(stranger);
        _fulfil(a, rs[0], _result(rs[0]));
        assertEq(_many(_fulfilments(rs)), 2);
        assertEq(_balance(payee), 3 * (FEE - _shared(FEE)));
    }

    function test_leavesOutWhatWasCancelledOrExpiredOrNeverAsked() public {
        TaskRequest[] memory rs = _requests(id, 4);
        vm.prank(requester);
        oracle.cancel(rs[0], _anyone());
        rs[1].nonce = keccak256("never asked");
        rs[2].deadline = uint64(vm.getBlockTimestamp() + 1);
        _request(rs[2]);
        skip(2);
        oracle.expire(rs[2], _pricing(a));
        assertEq(_many(_fulfilments(rs)), 1);
        assertEq(_state(rs[0]), TaskState.CANCELLED);
        assertEq(_state(rs[1]), TaskState.NONE);
        assertEq(_state(rs[2]), TaskState.EXPIRED);
        assertEq(_state(rs[3]), TaskState.FULFILLED);
    }

    function test_leavesOutWhatIsLate() public {
        TaskRequest[] memory rs = _requests(id, 2);
        rs[0].deadline = uint64(vm.getBlockTimestamp() + 10);
        _request(rs[0]);
        skip(11);
        assertEq(_many(_fulfilments(rs)), 1);
        assertEq(_state(rs[0]), TaskState.REQUESTED);
        assertEq(_state(rs[1]), TaskState.FULFILLED);
    }

    function test_takesOneAtItsDeadline() public {
        TaskRequest[] memory rs = _requests(id, 1);
        vm.warp(rs[0].deadline);
        assertEq(_many(_fulfilments(rs)), 1);
    }

    function test_refusesWhereNothingIsLeft() public {
        TaskRequest[] memory rs = _requests(id, 2);
        _many(_fulfilments(rs));
        _refuses(_fulfilments(rs), abi.encodeWithSelector(I.ComputeOracle_NothingToSettle.selector));
    }

    function test_refusesNone() public {
        _refuses(new I.Fulfilment[](0), abi.encodeWithSelector(I.ComputeOracle_NothingToSettle.selector));
    }

    function test_paysEachItsPayee() public {
        TaskRequest[] memory rs = _requests(id, 4);
        I.Fulfilment[] memory list = new I.Fulfilment[](4);
        for (uint256 i; i < 4; ++i) {
            Result memory result = i == 3 ? _failure(rs[i]) : _result(rs[i]);
            if (i % 2 == 1) result.payee = stranger;
            list[i] = _fulfilment(rs[i], result);
        }
        assertEq(_many(list), 4);
        assertEq(_balance(payee), 2 * (FEE - _shared(FEE)));
        assertEq(_balance(stranger), FEE - _shared(FEE) + FAILED_FEE);
        assertEq(_balance(requester), FEE - FAILED_FEE);
        assertEq(oracle.poolOf(id), 3 * _shared(FEE));
    }

    /// @dev Any mixture of payees, failures, repetitions and order pays what one at a time would.
    function testFuzz_paysWhatOneAtATimeWould(uint256 seed, uint16 bps, uint128 failedFee) public {
        a.price.bps[0] = uint16(bound(bps, 0, 7500));
        a.price.failedFee = bound(failedFee, 0, FEE);
        a.salt = keccak256("another");
        id = _activate(a);
        TaskRequest[] memory rs = _requests(id, 6);
        I.Fulfilment[] memory list = new I.Fulfilment[](8);
        for (uint256 i; i < 8; ++i) {
            uint256 bits = seed >> (8 * i);
            TaskRequest memory r = rs[bits % 6];
            Result memory result = bits & 0x40 != 0 ? _failure(r) : _result(r);
            if (bits & 0x80 != 0) result.payee = stranger;
            list[i] = _fulfilment(r, result);
        }
        uint256 snapshot = vm.snapshotState();
        uint256 count;
        for (uint256 i; i < 8; ++i) {
            if (oracle.task(id, list[i].result.taskId).state != TaskState.REQUESTED) continue;
            oracle.fulfil(_settlement(a), _identity(), list[i]);
            ++count;
        }
        uint256[4] memory wanted = _money();
        vm.revertToState(snapshot);
        assertEq(_many(list), count);
        uint256[4] memory got = _money();
        for (uint256 i; i < 4; ++i) {
            assertEq(got[i], wanted[i]);
        }
        assertEq(got[0] + got[1] + got[2] + got[3] + (6 - _distinct(list, rs)) * FEE, address(oracle).balance);
    }

    // Callbacks

    function test_callsEachBackOnceAllAreSettled() public {
        (Caller first, Caller second) = (_caller(), _caller());
        TaskRequest[] memory rs = new TaskRequest[](3);
        (rs[0], rs[1]) = (_callingBack(id, first, 1_000_000), _callingBack(id, second, 1_000_000));
        rs[2] = _taskRequest(id);
        first.request(rs[0], _anyone(), FEE);
        second.request(rs[1], _anyone(), FEE);
        _request(rs[2]);
        // The first callee looks at the last task: it is settled already, and paid for.
        first.enter(address(oracle), abi.encodeCall(I.task, (id, oracle.taskIdOf(rs[2]))));
        second.enter(address(oracle), abi.encodeCall(I.balanceOf, (NATIVE, payee)));
        assertEq(_many(_fulfilments(rs)), 3);
        assertEq(first.calls(), 1);
        assertEq(second.calls(), 1);
        assertEq(abi.decode(first.seen(), (I.Task)).state, TaskState.FULFILLED);
        assertEq(abi.decode(second.seen(), (uint256)), 3 * (FEE - _shared(FEE)));
    }

    function test_aDuplicateIsCalledBackOnce() public {
        Caller caller = _caller();
        TaskRequest[] memory rs = new TaskRequest[](2);
        rs[0] = _callingBack(id, caller, 200_000);
        rs[1] = rs[0];
        caller.request(rs[0], _anyone(), FEE);
        assertEq(_many(_fulfilments(rs)), 1);
        assertEq(caller.calls(), 1);
    }

    function test_failingCallbacksStopNobodyElse() public {
        Caller[4] memory callers;
        TaskRequest[] memory rs = new TaskRequest[](4);
        for (uint256 i; i < 4; ++i) {
            callers[i] = _caller();
            rs[i] = _callingBack(id, callers[i], 200_000);
            callers[i].request(rs[i], _anyone(), FEE);
        }
        callers[0].set(Caller.Act.Revert);
        callers[1].set(Caller.Act.BurnAll);
        callers[2].set(Caller.Act.ReturnMuch);
        vm.recordLogs();
        assertEq(_many(_fulfilments(rs)), 4);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 failed;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == I.CallbackFailed.selector) ++failed;
        }
        assertEq(failed, 3);
        for (uint256 i; i < 4; ++i) {
            assertEq(oracle.task(id, oracle.taskIdOf(rs[i])).callback, i < 3);
            assertEq(_state(rs[i]), TaskState.FULFILLED);
        }
        assertEq(callers[3].calls(), 1);
    }

    function test_refusesGasThatIsTooLittleForTheLastCallback() public {
        Caller[2] memory callers;
        TaskRequest[] memory rs = new TaskRequest[](2);
        for (uint256 i; i < 2; ++i) {
            callers[i] = _caller();
            callers[i].set(Caller.Act.BurnAll);
            rs[i] = _callingBack(id, callers[i], 1_000_000);
            callers[i].request(rs[i], _anyone(), FEE);
        }
        I.Fulfilment[] memory list = _fulfilments(rs);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectPartialRevert(I.ComputeOracle_NotEnoughGas.selector);
        oracle.fulfilMany{gas: 2_000_000}(settlement, identity, list);
        assertEq(oracle.fulfilMany{gas: 3_000_000}(settlement, identity, list), 2);
    }

    // All of one agreement and of one enclave

    function test_refusesAnothersAgreementAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        a.salt = keccak256("another");
        bytes32 other = _activate(a);
        rs[1] = _taskRequest(other);
        _request(rs[1]);
        _refuses(_fulfilments(rs), abi.encodeWithSelector(I.ComputeOracle_WrongAgreement.selector, other, id));
    }

    function test_refusesAnothersSignatureAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        list[1].signature = sign(operatorKey, oracle.resultDigestOf(list[1].result));
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, ANCHOR, operator));
    }

    function test_refusesAnotherAnchorAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        list[1].result.anchor = keccak256("another anchor");
        list[1].signature = _sign(list[1].result);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, list[1].result.anchor, enclave));
    }

    function test_refusesAMalformedSignatureAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        list[1].signature = "";
        bytes32 digest = oracle.resultDigestOf(list[1].result);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_BadSignature.selector, digest));
    }

    function test_refusesAChangedResultAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        list[1].result.payee = stranger;
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectPartialRevert(I.ComputeOracle_UnknownEnclave.selector);
        oracle.fulfilMany(settlement, identity, list);
    }

    /// @dev What one of them may not be, none of them may be. Each but for its place among others is in Fulfil.t.sol.
    function test_refusesOneBadResultAmongThem() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        list[1].result.outcome = 3;
        list[1].signature = _sign(list[1].result);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_BadOutcome.selector, 3));

        list[1].result.outcome = Outcome.SUCCEEDED;
        list[1].result.payee = address(0);
        list[1].signature = _sign(list[1].result);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_ZeroPayee.selector));

        list[1] = _fulfilment(rs[1], _failure(rs[1]));
        list[1].request = new TaskRequest[](0);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_RequestMissing.selector, list[1].result.taskId));
    }

    function test_refusesAnotherSettlement() public {
        TaskRequest[] memory rs = _requests(id, 2);
        I.Fulfilment[] memory list = _fulfilments(rs);
        bytes32 expected = registry.settlementHashOf(id);
        a.price.bps[0] -= 1;
        bytes32 got = hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, expected));
    }

    function test_refusesARetiredEnclave() public {
        I.Fulfilment[] memory list = _fulfilments(_requests(id, 2));
        vm.prank(enclave);
        enclaves.retire(ANCHOR, enclave, "");
        _refuses(list, abi.encodeWithSelector(I.ComputeOracle_EnclaveRetired.selector, ANCHOR, enclave));
    }

    function _many(I.Fulfilment[] memory list) private returns (uint256) {
        return oracle.fulfilMany(_settlement(a), _identity(), list);
    }

    function _refuses(I.Fulfilment[] memory list, bytes memory err) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectRevert(err);
        oracle.fulfilMany(settlement, identity, list);
    }

    function _money() private view returns (uint256[4] memory) {
        return [oracle.poolOf(id), _balance(payee), _balance(stranger), _balance(requester)];
    }

    function _distinct(I.Fulfilment[] memory list, TaskRequest[] memory rs) private view returns (uint256 count) {
        for (uint256 i; i < rs.length; ++i) {
            bytes32 taskId = oracle.taskIdOf(rs[i]);
            uint256 j;
            while (j < list.length && list[j].result.taskId != taskId) ++j;
            if (j < list.length) ++count;
        }
    }
}
