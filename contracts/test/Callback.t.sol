// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {IComputeConsumer} from "../src/interfaces/IComputeConsumer.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {Outcome, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";
import {Vm} from "./utils/Test.sol";

/// @notice What a callback can do to its settlement is in Attacks.t.sol, too.
contract CallbackTest is TaskFixture {
    uint32 private constant GAS = 200_000;

    Agreement private a;
    Caller private caller;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        _register();
        caller = _caller();
        r = _callingBack(_activate(a), caller, GAS);
        taskId = caller.request(r, _anyone(), FEE);
    }

    function test_callsBackOnce() public {
        assertTrue(oracle.task(r.agreementId, taskId).callback);
        bytes memory data = abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, 1, _result(r), new bytes[](0)));
        vm.expectCall(address(caller), data, 1);
        _settles(false);
        assertEq(caller.calls(), 1);
        assertEq(caller.outcome(), Outcome.SUCCEEDED);
    }

    function test_callsBackAboutAFailure() public {
        _fulfil(a, r, _failure(r));
        assertEq(_state(r), TaskState.FAILED);
        assertEq(caller.calls(), 1);
        assertEq(caller.outcome(), Outcome.FAILED);
        assertEq(_balance(address(caller)), FEE - FAILED_FEE);
    }

    function test_callsBackWithThePublicOutputs() public {
        a = _open(1);
        r = _callingBack(_activate(a), caller, GAS);
        taskId = caller.request(r, _anyone(), FEE);
        oracle.fulfil(_settlement(a), _identity(), _told(r, _bytes(abi.encode(int256(-7)))));
        assertEq(caller.said(), abi.encode(int256(-7)));
    }

    function test_needsTheRequest() public {
        I.Fulfilment memory f = _fulfilment(r, _result(r));
        f.request = new TaskRequest[](0);
        (I.Settlement memory settlement, bytes32 id) = (_settlement(a), taskId);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_RequestMissing.selector, id));
        oracle.fulfil(settlement, _identity(), f);
    }

    /// @dev Else whoever settles could call another contract back, with another gas.
    function test_takesNoOtherRequest() public {
        I.Fulfilment memory f = _fulfilment(r, _result(r));
        f.request[0].callbackGas = 1;
        bytes32 other = oracle.taskIdOf(f.request[0]);
        I.Settlement memory settlement = _settlement(a);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongTask.selector, other, taskId));
        oracle.fulfil(settlement, _identity(), f);
    }

    function test_settlesThoughTheCallbackReverts() public {
        caller.set(Caller.Act.Revert);
        vm.expectEmit(address(oracle));
        emit I.CallbackFailed(taskId, address(caller));
        _fulfil(a, r, _result(r));
        assertTrue(oracle.task(r.agreementId, taskId).callback);
    }

    function test_failedCallbackLeavesTheResultsDigest() public {
        caller.set(Caller.Act.Revert);
        _settles(true);
        assertEq(
            bytes32(oracle.task(r.agreementId, taskId).resultDigest),
            bytes32(bytes31(oracle.resultDigestOf(_result(r))))
        );
    }

    function testFuzz_givesExactlyTheGasAskedFor(uint32 gas) public {
        r.callbackGas = uint32(bound(gas, 150_000, 1_000_000));
        r.nonce = keccak256("another");
        taskId = caller.request(r, _anyone(), FEE);
        _settles(false);
        assertLe(caller.gasGiven(), r.callbackGas);
        // Decoding the call costs a little before the callee can look.
        assertGt(caller.gasGiven(), r.callbackGas - 10_000);
    }

    /// @dev EIP-150 passes on 63/64 of what is left; 12,000 are for the call and for what follows one that failed.
    function test_saysHowMuchGasACallbackNeeds() public {
        bytes memory data = abi.encodeCall(I.fulfil, (_settlement(a), _identity(), _fulfilment(r, _result(r))));
        (bool settled, bytes memory err) = address(oracle).call{gas: 250_000}(data);
        assertFalse(settled);
        assertEq(bytes32(bytes4(err)), bytes32(I.ComputeOracle_NotEnoughGas.selector));
        uint256 needed;
        assembly ("memory-safe") {
            needed := mload(add(err, 0x44))
        }
        assertEq(needed, uint256(GAS) * 64 / 63 + 12_000);
    }

    function test_expiryCallsNobodyBack() public {
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(caller.calls(), 0);
        assertFalse(oracle.task(r.agreementId, taskId).callback);
        assertEq(_balance(address(caller)), FEE);
    }

    function test_cancelCallsNobodyBack() public {
        caller.cancel(r, _anyone());
        assertEq(caller.calls(), 0);
        assertFalse(oracle.task(r.agreementId, taskId).callback);
    }

    function _settles(bool callbackFails) private {
        Result memory result = _result(r);
        vm.recordLogs();
        _fulfil(a, r, result);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bool failed = logs[logs.length - 1].topics[0] == I.CallbackFailed.selector;
        assertEq(failed, callbackFails, "CallbackFailed");
        assertEq(oracle.task(r.agreementId, taskId).callback, callbackFails);
        assertEq(_state(r), TaskState.FULFILLED);
        assertEq(_balance(payee), FEE * 45 / 100);
    }
}
