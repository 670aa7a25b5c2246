// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Agreement, Batch, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";
import {Vm} from "./utils/Test.sol";

contract FulfilBatchTest is TaskFixture {
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _roomy(1000);
        id = _activate(a);
        _register();
    }

    function test_settlesAllByOneSignature() public {
        TaskRequest[] memory rs = _requests(id, 3);
        Batch memory b = _batch(rs);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        bytes memory signature = _signBatch(b);
        for (uint256 i; i < 3; ++i) {
            vm.expectEmit(address(oracle));
            emit I.TaskFulfilledInBatch(b.tasks[i], b.results[i]);
        }
        vm.expectEmit(address(oracle));
        emit I.BatchFulfilled(id, enclave, payee, ANCHOR, 3, signature);
        vm.prank(stranger);
        assertEq(oracle.fulfilBatch(settlement, identity, b, signature), 3);
        for (uint256 i; i < 3; ++i) {
            I.Task memory t = oracle.task(id, b.tasks[i]);
            assertEq(t.state, TaskState.FULFILLED);
            assertEq(bytes32(t.resultDigest), bytes32(bytes31(b.results[i])));
            assertFalse(t.callback);
        }
        assertEq(_balance(payee), 3 * (FEE - _shared(FEE)));
        assertEq(oracle.poolOf(id), 3 * _shared(FEE));
    }

    /// @dev A receipt of one result looks the same, however it was settled.
    function test_keepsTheDigestThatAloneWouldBeKept() public {
        TaskRequest[] memory rs = _requests(id, 1);
        uint256 snapshot = vm.snapshotState();
        _fulfil(a, rs[0], _result(rs[0]));
        bytes31 alone = oracle.task(id, oracle.taskIdOf(rs[0])).resultDigest;
        vm.revertToState(snapshot);
        _settle(_batch(rs));
        assertEq(bytes32(oracle.task(id, oracle.taskIdOf(rs[0])).resultDigest), bytes32(alone));
    }

    function testFuzz_paysWhatOneAtATimeWould(uint128 fee, uint16 bps, uint8 count) public {
        a.price.fee = bound(fee, 0, 1 ether);
        a.price.failedFee = 0;
        a.price.bps[0] = uint16(bound(bps, 0, 7500));
        a.salt = keccak256("another");
        id = _activate(a);
        TaskRequest[] memory rs = new TaskRequest[](bound(count, 1, 12));
        for (uint256 i; i < rs.length; ++i) {
            rs[i] = _taskRequest(id);
            rs[i].nonce = bytes32(i);
            rs[i].maxFee = a.price.fee;
            vm.prank(requester);
            oracle.request{value: a.price.fee}(rs[i], _anyone(), "");
        }
        assertEq(_settle(_batch(rs)), rs.length);
        uint256 shared = a.price.fee * (uint256(a.price.bps[0]) + 2500) / 10_000;
        assertEq(oracle.poolOf(id), rs.length * shared);
        assertEq(_balance(payee), rs.length * (a.price.fee - shared));
        assertEq(address(oracle).balance, rs.length * a.price.fee);
    }

    function test_countsATaskThatIsInItTwiceOnce() public {
        TaskRequest[] memory rs = _requests(id, 2);
        TaskRequest[] memory twice = new TaskRequest[](3);
        (twice[0], twice[1], twice[2]) = (rs[0], rs[1], rs[0]);
        Batch memory b = _batch(twice);
        b.results[2] = keccak256("another result");
        assertEq(_settle(b), 2);
        assertEq(_balance(payee), 2 * (FEE - _shared(FEE)));
        assertEq(oracle.poolOf(id), 2 * _shared(FEE));
        assertEq(bytes32(oracle.task(id, b.tasks[0]).resultDigest), bytes32(bytes31(b.results[0])));
    }

    function test_leavesOutWhatEndedBeforeOrNeverWas() public {
        TaskRequest[] memory rs = _requests(id, 6);
        _fulfil(a, rs[0], _result(rs[0]));
        _fulfil(a, rs[1], _failure(rs[1]));
        vm.prank(requester);
        oracle.cancel(rs[2], _anyone());
        rs[3].deadline = uint64(vm.getBlockTimestamp() + 1);
        _request(rs[3]);
        rs[4].nonce = keccak256("never asked");
        skip(2);
        oracle.expire(rs[3], _pricing(a));
        uint256 before = _balance(payee);
        assertEq(_settle(_batch(rs)), 1);
        assertEq(_balance(payee) - before, FEE - _shared(FEE));
        assertEq(_state(rs[1]), TaskState.FAILED);
        assertEq(_state(rs[2]), TaskState.CANCELLED);
        assertEq(_state(rs[3]), TaskState.EXPIRED);
        assertEq(_state(rs[4]), TaskState.NONE);
        assertEq(_state(rs[5]), TaskState.FULFILLED);
    }

    /// @dev Its event tells how many it settled, not how many are in it.
    function test_countsOnlyWhatItSettles() public {
        TaskRequest[] memory rs = _requests(id, 2);
        _fulfil(a, rs[1], _result(rs[1]));
        Batch memory b = _batch(rs);
        bytes memory signature = _signBatch(b);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.recordLogs();
        oracle.fulfilBatch(settlement, identity, b, signature);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 2);
        assertEq(logs[0].topics[1], b.tasks[0]);
        assertEq(logs[1].data, abi.encode(payee, ANCHOR, 1, signature));
    }

    /// @dev Where the last ones are left out, too: what was settled is paid for.
    function test_paysForTheFirstWhereTheLastIsLeftOut() public {
        TaskRequest[] memory rs = _requests(id, 2);
        rs[1].nonce = keccak256("never asked");
        assertEq(_settle(_batch(rs)), 1);
        assertEq(_balance(payee), FEE - _shared(FEE));
        assertEq(oracle.poolOf(id), _shared(FEE));
    }

    function test_leavesOutWhatIsLate() public {
        TaskRequest[] memory rs = _requests(id, 2);
        rs[0].deadline = uint64(vm.getBlockTimestamp() + 10);
        _request(rs[0]);
        skip(11);
        assertEq(_settle(_batch(rs)), 1);
        assertEq(_state(rs[0]), TaskState.REQUESTED);
    }

    function test_takesOneAtItsDeadline() public {
        TaskRequest[] memory rs = _requests(id, 1);
        vm.warp(rs[0].deadline);
        assertEq(_settle(_batch(rs)), 1);
    }

    function test_refusesTheSameBatchAgain() public {
        Batch memory b = _batch(_requests(id, 2));
        _settle(b);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_NothingToSettle.selector));
        assertEq(_balance(payee), 2 * (FEE - _shared(FEE)));
    }

    function test_refusesAnEmptyOne() public {
        Batch memory b = _batch(_requests(id, 1));
        (b.tasks, b.results) = (new bytes32[](0), new bytes32[](0));
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_NothingToSettle.selector));
    }

    function test_refusesAsManyTasksAsThereAreNoResultsFor() public {
        Batch memory b = _batch(_requests(id, 2));
        b.results = _one(b.results[0]);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_WrongBatch.selector, 2, 1));
        b = _batch(_requestsFrom(2, 2));
        b.tasks = _one(b.tasks[0]);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_WrongBatch.selector, 1, 2));
    }

    function test_refusesATaskThatCallsBack() public {
        Caller caller = _caller();
        TaskRequest[] memory rs = _requests(id, 2);
        rs[1] = _callingBack(id, caller, 100_000);
        caller.request(rs[1], _anyone(), FEE);
        Batch memory b = _batch(rs);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_CallsBack.selector, b.tasks[1]));
    }

    function test_refusesZeroPayee() public {
        Batch memory b = _batch(_requests(id, 1));
        b.payee = address(0);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_ZeroPayee.selector));
    }

    function test_refusesAnotherEnclavesSignature() public {
        Batch memory b = _batch(_requests(id, 1));
        enclaveKey = operatorKey;
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, ANCHOR, operator));
    }

    function test_refusesAnotherAnchor() public {
        Batch memory b = _batch(_requests(id, 1));
        b.anchor = keccak256("another anchor");
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, b.anchor, enclave));
    }

    function test_refusesAMalformedSignature() public {
        Batch memory b = _batch(_requests(id, 1));
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        bytes32 digest = oracle.batchDigestOf(b);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_BadSignature.selector, digest));
        oracle.fulfilBatch(settlement, identity, b, "");
    }

    /// @dev One thing each changed after signing: the signature is nobody's that is registered.
    function test_refusesABatchChangedAfterSigning() public {
        TaskRequest[] memory rs = _requests(id, 2);
        bytes memory signature = _signBatch(_batch(rs));
        Batch memory b = _batch(rs);
        b.payee = stranger;
        _refusesChanged(b, signature);
        b = _batch(rs);
        b.results[1] = keccak256("another result");
        _refusesChanged(b, signature);
        b = _batch(rs);
        (b.tasks[0], b.tasks[1]) = (b.tasks[1], b.tasks[0]);
        _refusesChanged(b, signature);
        b = _batch(rs);
        (b.tasks, b.results) = (_one(b.tasks[0]), _one(b.results[0]));
        _refusesChanged(b, signature);
    }

    /// @dev A task is kept by its agreement: the batch of one never reaches another's.
    function test_leavesOutAnothersAgreementsTasks() public {
        TaskRequest[] memory rs = _requests(id, 2);
        Agreement memory other = _roomy(1000);
        other.salt = keccak256("another");
        rs[1] = _taskRequest(_activate(other));
        _request(rs[1]);
        assertEq(_settle(_batch(rs)), 1);
        assertEq(_state(rs[1]), TaskState.REQUESTED);
    }

    function test_refusesAnotherSettlement() public {
        Batch memory b = _batch(_requests(id, 1));
        bytes32 expected = registry.settlementHashOf(id);
        a.tee.evalFloor -= 1;
        bytes32 got = hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, expected));
    }

    function test_refusesAnEnclaveThatIsNoLongerValid() public {
        Batch memory b = _batch(_requests(id, 1));
        vm.prank(enclave);
        enclaves.retire(ANCHOR, enclave, "");
        _refuses(b, abi.encodeWithSelector(I.ComputeOracle_EnclaveRetired.selector, ANCHOR, enclave));
    }

    function test_digestIsInTheOraclesDomain() public view {
        Batch memory b;
        (b.agreementId, b.payee, b.anchor) = (id, payee, ANCHOR);
        (b.tasks, b.results) = (_one(keccak256("task")), _one(keccak256("result")));
        assertEq(oracle.batchDigestOf(b), MessageHashUtils.toTypedDataHash(oracle.domainSeparator(), hashing.batch(b)));
    }

    function test_settlesInTheAgreementsToken() public {
        address coin = _token("Coin");
        a = _inToken(coin);
        id = _activate(a);
        TaskRequest[] memory rs = new TaskRequest[](1);
        rs[0] = _taskRequest(id);
        _requestInToken(rs[0]);
        _settle(_batch(rs));
        assertEq(oracle.balanceOf(coin, payee), FEE - _shared(FEE));
        assertEq(_balance(payee), 0);
    }

    function test_settlesAThousand() public {
        TaskRequest[] memory rs = _requests(id, 1000);
        assertEq(_settle(_batch(rs)), 1000);
        for (uint256 i; i < 1000; ++i) {
            assertEq(_state(rs[i]), TaskState.FULFILLED);
        }
        assertEq(_balance(payee), 1000 * (FEE - _shared(FEE)));
    }

    function _requestsFrom(uint256 first, uint256 count) private returns (TaskRequest[] memory rs) {
        rs = new TaskRequest[](count);
        for (uint256 i; i < count; ++i) {
            rs[i] = _taskRequest(id);
            rs[i].nonce = bytes32(first + i);
            _request(rs[i]);
        }
    }

    function _settle(Batch memory b) private returns (uint256) {
        return oracle.fulfilBatch(_settlement(a), _identity(), b, _signBatch(b));
    }

    function _refuses(Batch memory b, bytes memory err) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        bytes memory signature = _signBatch(b);
        vm.expectRevert(err);
        oracle.fulfilBatch(settlement, identity, b, signature);
    }

    function _refusesChanged(Batch memory b, bytes memory signature) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectPartialRevert(I.ComputeOracle_UnknownEnclave.selector);
        oracle.fulfilBatch(settlement, identity, b, signature);
    }
}
