// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {IComputeConsumer} from "../src/interfaces/IComputeConsumer.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./utils/Test.sol";

/// @notice A requester whose callback does whatever a test tells it.
contract Caller is IComputeConsumer {
    enum Act {
        Accept,
        Revert,
        BurnAll,
        ReturnMuch,
        Enter
    }

    I private immutable oracle;
    Act public act;
    bytes public entry;
    bytes public seen;
    uint256 public calls;
    uint256 public gasGiven;

    constructor(I oracle_) payable {
        oracle = oracle_;
    }

    function request(TaskRequest calldata r, uint256 fee) external returns (bytes32) {
        return oracle.request{value: fee}(r, new bytes32[](0), "");
    }

    function set(Act act_, bytes calldata entry_) external {
        act = act_;
        entry = entry_;
    }

    function onComputeResult(bytes32, uint8, Result calldata) external {
        uint256 given = gasleft();
        if (act == Act.Revert) revert("no");
        if (act == Act.BurnAll) {
            assembly {
                invalid()
            }
        }
        if (act == Act.ReturnMuch) {
            assembly {
                return(0, 100000)
            }
        }
        if (act == Act.Enter) {
            bool entered;
            (entered, seen) = address(oracle).call(entry);
            if (entered) seen = "entered";
        }
        ++calls;
        gasGiven = given;
    }
}

contract CallbackTest is Fixture {
    uint32 private constant GAS = 200_000;

    Agreement private a;
    Caller private caller;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        r = _taskRequest(_activate(a));
        _register();
        caller = new Caller(oracle);
        vm.deal(address(caller), 1 ether);
        r.requester = address(caller);
        r.callback = address(caller);
        r.callbackGas = GAS;
        taskId = caller.request(r, FEE);
    }

    function test_callsBackOnce() public {
        vm.expectCall(address(caller), abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, 1, _result(r))), 1);
        _settles(false);
        assertEq(caller.calls(), 1);
    }

    function test_settlesThoughTheCallbackReverts() public {
        caller.set(Caller.Act.Revert, "");
        _settles(true);
    }

    function test_settlesThoughTheCallbackBurnsAllItsGas() public {
        caller.set(Caller.Act.BurnAll, "");
        uint256 before = gasleft();
        _settles(true);
        assertLt(before - gasleft(), uint256(GAS) + 400_000);
    }

    function test_settlesThoughTheCallbackReturnsMuch() public {
        caller.set(Caller.Act.ReturnMuch, "");
        _settles(false);
    }

    function test_settlesThoughTheContractIsGone() public {
        vm.etch(address(caller), "");
        _settles(false);
    }

    /// @dev R20. One entry per state-changing function of the oracle.
    function test_nothingIsEnteredFromACallback() public {
        TaskRequest memory another = r;
        another.nonce = keccak256("another");
        another.callbackGas = 100_000;
        caller.request(another, FEE);
        bytes[5] memory entries = [
            abi.encodeCall(I.request, (another, _noProof(), "")),
            abi.encodeCall(I.cancel, (another)),
            abi.encodeCall(I.fulfil, (another, a.tee, a.price, _result(another), _identity(), _sign(_result(another)))),
            abi.encodeCall(I.expire, (another)),
            abi.encodeCall(I.withdraw, (payable(address(caller))))
        ];
        for (uint256 i; i < entries.length; ++i) {
            uint256 snapshot = vm.snapshotState();
            // A whole call in storage costs more than a plain callback.
            r.callbackGas = 1_000_000;
            r.nonce = bytes32(i);
            taskId = caller.request(r, FEE);
            caller.set(Caller.Act.Enter, entries[i]);
            _settles(false);
            assertEq(
                caller.seen(), abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
            );
            vm.revertToState(snapshot);
        }
    }

    /// @dev However little gas a relayer sends, either the whole settlement reverts or the callback had its full amount.
    function testFuzz_relayerCannotStarveTheCallback(uint256 gas) public {
        gas = bound(gas, 100_000, 800_000);
        Result memory result = _result(r);
        bytes memory data = abi.encodeCall(I.fulfil, (r, a.tee, a.price, result, _identity(), _sign(result)));
        (bool sent, bytes memory err) = address(oracle).call{gas: gas}(data);
        if (sent) {
            assertEq(caller.calls(), 1);
            // Decoding the call costs a little before the callee can look.
            assertGt(caller.gasGiven(), GAS - 5000);
        } else {
            assertEq(caller.calls(), 0);
            assertEq(_state(taskId), TaskState.REQUESTED);
            assertTrue(err.length == 0 || bytes4(err) == I.ComputeOracle_NotEnoughGas.selector);
        }
    }

    /// @dev The least gas with which the settlement goes through: the callback still gets everything.
    function test_theLeastGasThatSettlesIsEnough() public {
        Result memory result = _result(r);
        bytes memory data = abi.encodeCall(I.fulfil, (r, a.tee, a.price, result, _identity(), _sign(result)));
        (uint256 low, uint256 high) = (100_000, 800_000);
        while (high - low > 1) {
            uint256 middle = (low + high) / 2;
            uint256 snapshot = vm.snapshotState();
            (bool sent,) = address(oracle).call{gas: middle}(data);
            vm.revertToState(snapshot);
            if (sent) high = middle;
            else low = middle;
        }
        caller.set(Caller.Act.Accept, "");
        (bool settled,) = address(oracle).call{gas: high}(data);
        assertTrue(settled);
        assertGt(caller.gasGiven(), GAS - 5000);
        assertEq(caller.calls(), 1);
    }

    function _settles(bool callbackFails) private {
        Result memory result = _result(r);
        bytes memory signature = _sign(result);
        vm.recordLogs();
        oracle.fulfil(r, a.tee, a.price, result, _identity(), signature);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bool failed = logs[logs.length - 1].topics[0] == I.CallbackFailed.selector;
        assertEq(failed, callbackFails, "CallbackFailed");
        assertEq(_state(taskId), TaskState.FULFILLED);
        assertEq(oracle.balanceOf(payee), FEE * 45 / 100);
    }
}
