// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Agreement, Batch, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {PaymentKind, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";
import {Reentrant} from "./utils/Tokens.sol";
import {Vm} from "./utils/Test.sol";

/// @notice What a callback, a token or a receiver may try while the oracle calls it (R20).
contract AttacksFromWithinTest is TaskFixture {
    uint32 private constant GAS = 1_000_000;
    uint256 private constant ENTRIES = 10;

    Agreement private a;
    bytes32 private id;
    Agreement private free;
    Caller private caller;
    uint256 private requesterKey;

    function setUp() public override {
        super.setUp();
        (, requesterKey) = makeAddrAndKey("requester");
        a = _roomy(1000);
        id = _activate(a);
        free = _roomy(1000);
        (free.price.fee, free.price.failedFee) = (0, 0);
        _activate(free);
        _register();
        caller = _caller();
    }

    // Reentrancy: each of the ten entries that move anything would work for the attacker from outside, and does not from within

    function test_nothingIsEnteredFromACallback() public {
        bytes[ENTRIES] memory entries = _entries(address(caller));
        TaskRequest memory r = _callingBack(id, caller, GAS);
        caller.request(r, _anyone(), FEE);
        I.Fulfilment memory f = _fulfilment(r, _result(r));
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            caller.enter(address(oracle), entries[i]);
            oracle.fulfil(_settlement(a), _identity(), f);
            assertEq(caller.calls(), 1);
            _checkRefused(caller.entered(), caller.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromACallbackOfMany() public {
        bytes[ENTRIES] memory entries = _entries(address(caller));
        TaskRequest[] memory rs = new TaskRequest[](1);
        rs[0] = _callingBack(id, caller, GAS);
        caller.request(rs[0], _anyone(), FEE);
        I.Fulfilment[] memory list = _fulfilments(rs);
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            caller.enter(address(oracle), entries[i]);
            oracle.fulfilMany(_settlement(a), _identity(), list);
            assertEq(caller.calls(), 1);
            _checkRefused(caller.entered(), caller.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromARetriedCallback() public {
        bytes[ENTRIES] memory entries = _entries(address(caller));
        TaskRequest memory r = _failedCallback(caller);
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            caller.enter(address(oracle), entries[i]);
            oracle.retryCallback(r, _result(r), new bytes[](0));
            assertEq(caller.calls(), 1);
            _checkRefused(caller.entered(), caller.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromAReceiver() public {
        bytes[ENTRIES] memory entries = _entries(address(caller));
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            caller.enter(address(oracle), entries[i]);
            caller.withdraw(NATIVE, address(caller));
            _checkRefused(caller.entered(), caller.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromATokenThatIsPaidIn() public {
        Reentrant token = Reentrant(_token("Reentrant"));
        Agreement memory inToken = _inToken(address(token));
        TaskRequest memory r = _taskRequest(_activate(inToken));
        bytes[ENTRIES] memory entries = _entries(address(token));
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            token.set(address(oracle), entries[i]);
            _requestInToken(r);
            assertEq(token.calls(), 1);
            _checkRefused(token.entered(), token.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromATokenThatIsAuthorized() public {
        Reentrant token = Reentrant(_token("Reentrant"));
        Agreement memory inToken = _inToken(address(token));
        TaskRequest memory r = _taskRequest(_activate(inToken));
        bytes[ENTRIES] memory entries = _entries(address(token));
        I.Payment memory p;
        (p.kind, p.deadline) = (PaymentKind.AUTHORIZATION, vm.getBlockTimestamp() + 1);
        bytes32 taskId = oracle.taskIdOf(r);
        bytes32 digest = token.authorizationDigest(requester, address(oracle), FEE, 0, p.deadline, taskId);
        (p.v, p.r, p.s) = vm.sign(requesterKey, digest);
        bytes memory signature = sign(requesterKey, taskId);
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            token.set(address(oracle), entries[i]);
            oracle.requestFor(r, _anyone(), "", signature, p);
            assertEq(token.calls(), 1);
            _checkRefused(token.entered(), token.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    function test_nothingIsEnteredFromATokenThatIsPaidOut() public {
        Reentrant token = Reentrant(_token("Reentrant"));
        Agreement memory inToken = _inToken(address(token));
        TaskRequest memory r = _taskRequest(_activate(inToken));
        _requestInToken(r);
        _fulfil(inToken, r, _result(r));
        bytes[ENTRIES] memory entries = _entries(address(token));
        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            token.set(address(oracle), entries[i]);
            vm.prank(payee);
            oracle.withdraw(address(token), payee);
            assertEq(token.calls(), 1);
            assertEq(token.balanceOf(payee), FEE - _shared(FEE));
            _checkRefused(token.entered(), token.seen(), i);
            vm.revertToState(snapshot);
        }
    }

    // Griefing by callback

    function test_aRevertingCallbackBlocksNothing() public {
        caller.set(Caller.Act.Revert);
        _settles(true);
    }

    function test_aGasEatingCallbackEatsNoMoreThanItsCap() public {
        caller.set(Caller.Act.BurnAll);
        assertLt(_settles(true), uint256(GAS) + 400_000);
    }

    /// @dev 1 MB costs the callee more than its cap; nothing of it is copied.
    function test_aReturnBombCostsNoMoreThanItsCap() public {
        caller.set(Caller.Act.ReturnMuch);
        assertLt(_settles(true), uint256(GAS) + 400_000);
    }

    function test_aReturnBombWithinItsCapCostsTheRelayerNothingMore() public {
        caller.set(Caller.Act.ReturnMuch);
        caller.setBomb(500_000);
        assertLt(_settles(false), uint256(GAS) + 400_000);
    }

    function test_aRevertBombCostsNoMoreThanItsCap() public {
        caller.set(Caller.Act.RevertMuch);
        caller.setBomb(500_000);
        assertLt(_settles(true), uint256(GAS) + 400_000);
    }

    /// @dev A bomb costs whoever retries the callee's part of the gas, and no copy of it.
    function test_aReturnBombIsNotCopiedByARetryEither() public {
        TaskRequest memory r = _failedCallback(caller);
        caller.set(Caller.Act.ReturnMuch);
        uint256 before = gasleft();
        oracle.retryCallback(r, _result(r), new bytes[](0));
        // 1 MB of memory costs 2.2 million gas, once.
        assertLt(before - gasleft(), 2_700_000);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    /// @dev Selfdestructed, or an account that took its delegation back: nobody is there, which blocks nothing either.
    function test_aCallbackThatIsGoneBlocksNothing() public {
        TaskRequest memory r = _callingBack(id, caller, GAS);
        caller.request(r, _anyone(), FEE);
        vm.etch(address(caller), "");
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
        assertEq(_balance(payee), FEE - _shared(FEE));
    }

    /// @dev However little gas a relayer sends, either the whole settlement reverts or the callback had its full amount.
    function testFuzz_noRelayerStarvesACallback(uint256 gas) public {
        (TaskRequest memory r, bytes memory data) = _settlementOf(200_000);
        gas = bound(gas, 100_000, 800_000);
        (bool sent, bytes memory err) = address(oracle).call{gas: gas}(data);
        if (sent) {
            assertEq(caller.calls(), 1);
            // Decoding the call costs a little before the callee can look.
            assertGt(caller.gasGiven(), 200_000 - 10_000);
        } else {
            assertEq(caller.calls(), 0);
            assertEq(_state(r), TaskState.REQUESTED);
            assertTrue(err.length == 0 || bytes4(err) == I.ComputeOracle_NotEnoughGas.selector);
        }
    }

    /// @dev The least gas with which the settlement goes through: the callee still has everything, and one gas less reverts.
    function test_theLeastGasThatSettlesIsEnough() public {
        (TaskRequest memory r, bytes memory data) = _settlementOf(200_000);
        uint256 high = _leastGas(data);
        (bool starved,) = _send(data, high - 1);
        assertFalse(starved);
        (bool settled,) = _send(data, high);
        assertTrue(settled);
        assertGt(caller.gasGiven(), 200_000 - 10_000);
        assertEq(caller.calls(), 1);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    /// @dev The same where the callee burns all of it: what is left must do for the mark and the event of its failure. So what
    /// stops one gas less is the check, and never gas that runs out after it. Little gas for the callee leaves little behind.
    function test_theLeastGasThatSettlesIsEnoughForAFailure() public {
        caller.set(Caller.Act.BurnAll);
        uint32[3] memory gas = [uint32(1), 3000, 1_000_000];
        for (uint256 i; i < 3; ++i) {
            uint256 snapshot = vm.snapshotState();
            (TaskRequest memory r, bytes memory data) = _settlementOf(gas[i]);
            uint256 least = _leastGas(data);
            (bool starved, bytes memory err) = _send(data, least - 1);
            assertFalse(starved);
            assertEq(bytes32(bytes4(err)), bytes32(I.ComputeOracle_NotEnoughGas.selector));
            (bool settled,) = _send(data, least);
            assertTrue(settled);
            assertTrue(oracle.task(r.agreementId, oracle.taskIdOf(r)).callback);
            vm.revertToState(snapshot);
        }
    }

    function _leastGas(bytes memory data) private returns (uint256 high) {
        uint256 low = 100_000;
        high = 2_000_000;
        while (high - low > 1) {
            uint256 middle = (low + high) / 2;
            uint256 snapshot = vm.snapshotState();
            (bool sent,) = _send(data, middle);
            vm.revertToState(snapshot);
            if (sent) high = middle;
            else low = middle;
        }
    }

    /// @dev As a transaction of its own would find it: the callee's account costs what it costs at first.
    function _send(bytes memory data, uint256 gas) private returns (bool sent, bytes memory err) {
        vm.cool(address(caller));
        vm.cool(address(oracle));
        return address(oracle).call{gas: gas}(data);
    }

    /// @dev Every state-changing function, with everything there that it needs to work for `attacker`. That it would is tried.
    function _entries(address attacker) private returns (bytes[ENTRIES] memory entries) {
        bytes32 freeId = registry.agreementIdOf(free);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(free), _identity());
        TaskRequest[7] memory rs;
        for (uint256 i; i < 7; ++i) {
            rs[i] = _taskRequest(freeId);
            (rs[i].requester, rs[i].nonce, rs[i].maxFee) = (attacker, keccak256(abi.encode("entry", i)), 0);
            if (i == 1) rs[i].requester = requester;
            if (i == 6) rs[i].deadline = uint64(vm.getBlockTimestamp() + 1);
            if (i < 2) continue;
            vm.prank(attacker);
            oracle.request(rs[i], _anyone(), "");
        }
        skip(2);
        TaskRequest[] memory alone = new TaskRequest[](1);
        I.Payment memory payment;
        entries[0] = abi.encodeCall(I.request, (rs[0], _anyone(), ""));
        bytes memory signature = sign(requesterKey, oracle.taskIdOf(rs[1]));
        entries[1] = abi.encodeCall(I.requestFor, (rs[1], _anyone(), "", signature, payment));
        entries[2] = abi.encodeCall(I.cancel, (rs[2], _anyone()));
        entries[3] = abi.encodeCall(I.fulfil, (settlement, identity, _fulfilment(rs[3], _result(rs[3]))));
        alone[0] = rs[4];
        entries[4] = abi.encodeCall(I.fulfilMany, (settlement, identity, _fulfilments(alone)));
        alone[0] = rs[5];
        Batch memory b = _batch(alone);
        entries[5] = abi.encodeCall(I.fulfilBatch, (settlement, identity, b, _signBatch(b)));
        entries[6] = abi.encodeCall(I.expire, (rs[6], _pricing(free)));
        TaskRequest memory failed = _failedCallback(_caller());
        entries[7] = abi.encodeCall(I.retryCallback, (failed, _result(failed), new bytes[](0)));
        entries[8] = abi.encodeCall(I.distribute, (id, _pricing(a)));
        TaskRequest memory paid = _taskRequest(id);
        (paid.requester, paid.nonce) = (attacker, keccak256("paid"));
        vm.deal(attacker, attacker.balance + FEE);
        vm.prank(attacker);
        oracle.request{value: FEE}(paid, _anyone(), "");
        vm.prank(attacker);
        oracle.cancel(paid, _anyone());
        entries[9] = abi.encodeCall(I.withdraw, (NATIVE, stranger));

        for (uint256 i; i < ENTRIES; ++i) {
            uint256 snapshot = vm.snapshotState();
            vm.prank(attacker);
            (bool done,) = address(oracle).call(entries[i]);
            assertTrue(done, "would work from outside");
            vm.revertToState(snapshot);
        }
    }

    function _checkRefused(bool entered, bytes memory seen, uint256 entry) private pure {
        string memory where = string(abi.encodePacked("entry ", uint8(0x30 + entry)));
        assertFalse(entered, where);
        assertEq(seen, abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector), where);
    }

    /// @dev A task whose callback failed, and would not fail again.
    function _failedCallback(Caller whose) private returns (TaskRequest memory r) {
        r = _callingBack(id, whose, 100_000);
        r.nonce = keccak256(abi.encode("failed", whose));
        whose.request(r, _anyone(), FEE);
        whose.set(Caller.Act.Revert);
        _fulfil(a, r, _result(r));
        whose.set(Caller.Act.Accept);
    }

    function _settlementOf(uint32 callbackGas) private returns (TaskRequest memory r, bytes memory data) {
        r = _callingBack(id, caller, callbackGas);
        caller.request(r, _anyone(), FEE);
        data = abi.encodeCall(I.fulfil, (_settlement(a), _identity(), _fulfilment(r, _result(r))));
    }

    function _settles(bool callbackFails) private returns (uint256 gasUsed) {
        (TaskRequest memory r, bytes memory data) = _settlementOf(GAS);
        vm.recordLogs();
        uint256 before = gasleft();
        (bool done,) = address(oracle).call(data);
        gasUsed = before - gasleft();
        assertTrue(done);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bool failed = logs[logs.length - 1].topics[0] == I.CallbackFailed.selector;
        assertEq(failed, callbackFails, "CallbackFailed");
        assertEq(oracle.task(id, oracle.taskIdOf(r)).callback, callbackFails);
        assertEq(_state(r), TaskState.FULFILLED);
        assertEq(_balance(payee), FEE - _shared(FEE));
    }
}
