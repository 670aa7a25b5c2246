// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Out, Result, TaskRequest} from "../src/Types.sol";
import {IComputeConsumer} from "../src/interfaces/IComputeConsumer.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {Outcome, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Caller} from "./utils/Caller.sol";

contract RetryCallbackTest is TaskFixture {
    uint32 private constant GAS = 400_000;

    Agreement private a;
    Caller private caller;
    TaskRequest private r;
    bytes32 private taskId;
    bytes[] private outputs;
    Result private result;

    function setUp() public override {
        super.setUp();
        a = _open(1);
        _register();
        caller = _caller();
        r = _callingBack(_activate(a), caller, GAS);
        taskId = caller.request(r, _anyone(), FEE);
        outputs = _bytes(abi.encode(uint256(7)));
        caller.set(Caller.Act.Revert);
        I.Fulfilment memory f = _told(r, outputs);
        result = f.result;
        oracle.fulfil(_settlement(a), _identity(), f);
    }

    function test_anyoneMakesTheCallbackThatFailed() public {
        caller.set(Caller.Act.Accept);
        bytes memory data = abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, 1, result, outputs));
        vm.expectEmit(address(oracle));
        emit I.CallbackDelivered(taskId, address(caller));
        vm.expectCall(address(caller), data, 1);
        vm.prank(stranger);
        oracle.retryCallback(r, result, outputs);
        assertEq(caller.calls(), 1);
        assertEq(caller.said(), abi.encode(uint256(7)));
        I.Task memory t = oracle.task(r.agreementId, taskId);
        assertFalse(t.callback);
        assertEq(t.state, TaskState.FULFILLED);
        assertEq(bytes32(t.resultDigest), bytes32(bytes31(oracle.resultDigestOf(result))));
    }

    function test_movesNoMoney() public {
        caller.set(Caller.Act.Accept);
        oracle.retryCallback(r, result, outputs);
        assertEq(_balance(payee), FEE * 45 / 100);
        assertEq(oracle.poolOf(r.agreementId), FEE * 55 / 100);
        assertEq(_balance(address(caller)), 0);
    }

    function test_makesTheCallbackAboutAFailure() public {
        r.nonce = keccak256("another");
        taskId = caller.request(r, _anyone(), FEE);
        _fulfil(a, r, _failure(r));
        caller.set(Caller.Act.Accept);
        oracle.retryCallback(r, _failure(r), new bytes[](0));
        assertEq(caller.outcome(), Outcome.FAILED);
        assertEq(_state(r), TaskState.FAILED);
    }

    function test_refusesWhereItFailsAgain() public {
        _refuses(abi.encodeWithSelector(I.ComputeOracle_CallbackFailedAgain.selector, taskId));
        assertTrue(oracle.task(r.agreementId, taskId).callback);
    }

    function test_refusesTwice() public {
        caller.set(Caller.Act.Accept);
        oracle.retryCallback(r, result, outputs);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, taskId));
        assertEq(caller.calls(), 1);
    }

    function test_refusesWhatWasDelivered() public {
        caller.set(Caller.Act.Accept);
        r.nonce = keccak256("another");
        taskId = caller.request(r, _anyone(), FEE);
        I.Fulfilment memory f = _told(r, outputs);
        oracle.fulfil(_settlement(a), _identity(), f);
        result = f.result;
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, taskId));
    }

    function test_refusesWhatIsNotSettled() public {
        r.nonce = keccak256("another");
        taskId = caller.request(r, _anyone(), FEE);
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, taskId));
    }

    function test_refusesAnotherRequest() public {
        r.callbackGas = 1;
        _refuses(abi.encodeWithSelector(I.ComputeOracle_NoFailedCallback.selector, oracle.taskIdOf(r)));
    }

    function test_refusesAnotherResult() public {
        bytes31 expected = bytes31(oracle.resultDigestOf(result));
        result.payee = stranger;
        _refuses(
            abi.encodeWithSelector(
                I.ComputeOracle_WrongResult.selector, bytes31(oracle.resultDigestOf(result)), expected
            )
        );
    }

    function test_refusesOtherPublicOutputs() public {
        outputs[0] = abi.encode(uint256(8));
        _refuses(
            abi.encodeWithSelector(
                I.ComputeOracle_WrongPublicOutput.selector, 0, sha256(outputs[0]), result.outputs[0].digest
            )
        );
        outputs.pop();
        _refuses(abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutputCount.selector, 0, 1));
    }

    /// @dev What it has to have at least is what the request named; what it has more is the caller's gift.
    function test_givesMoreThanTheFirstTime() public {
        caller.set(Caller.Act.Accept);
        oracle.retryCallback{gas: 3_000_000}(r, result, outputs);
        assertGt(caller.gasGiven(), 2_500_000);
    }

    function test_refusesLessGasThanTheFirstTime() public {
        caller.set(Caller.Act.Accept);
        vm.expectPartialRevert(I.ComputeOracle_NotEnoughGas.selector);
        oracle.retryCallback{gas: GAS}(r, result, outputs);
    }

    /// @dev A callee that survives its own call running out of gas would be told once, with nothing done.
    function testFuzz_nobodySpendsTheRetryOnTooLittleGas(uint256 gas) public {
        caller.set(Caller.Act.Survive);
        gas = bound(gas, 50_000, 900_000);
        bytes memory data = abi.encodeCall(I.retryCallback, (r, result, outputs));
        vm.prank(stranger);
        (bool sent,) = address(oracle).call{gas: gas}(data);
        assertEq(caller.worked(), sent ? 1 : 0);
        assertEq(oracle.task(r.agreementId, taskId).callback, !sent);
    }

    function _refuses(bytes memory err) private {
        (TaskRequest memory request, Result memory told, bytes[] memory contents) = (r, result, outputs);
        vm.expectRevert(err);
        oracle.retryCallback(request, told, contents);
    }
}
