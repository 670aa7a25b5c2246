// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ComputeOracle} from "../src/ComputeOracle.sol";
import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Deploy} from "./utils/Deploy.sol";
import {Invariant} from "./utils/Invariant.sol";

/// @notice Everyone at once, at random: requesters, settlers, cancellers, withdrawers, and time.
contract Crowd is Fixture {
    struct Known {
        TaskRequest r;
        bytes32 taskId;
        uint8 state;
    }

    Agreement private a;
    bytes32 private id;
    Known[] private _tasks;
    uint256[6] public moves;
    bool public leftTerminalState;

    constructor() {
        Fixture.setUp();
        a = _agreement();
        a.access.quota = 1000;
        a.access.quotaPerRequester = 1000;
        a.tee.maxEvidenceAge = 365 days;
        id = _activate(a);
        _register();
    }

    function computeOracle() external view returns (ComputeOracle) {
        return oracle;
    }

    function request() public {
        TaskRequest memory r = _taskRequest(id);
        r.nonce = bytes32(_tasks.length);
        r.deadline = uint64(vm.getBlockTimestamp() + 3 hours);
        _tasks.push(Known({r: r, taskId: _request(r), state: TaskState.REQUESTED}));
        ++moves[TaskState.REQUESTED];
    }

    function fulfil(uint256 which, bool success) external {
        Known storage known = _pick(which);
        Result memory result = success ? _result(known.r) : _failure(known.r);
        bytes memory signature = _sign(result);
        try oracle.fulfil(known.r, a.tee, a.price, result, _identity(), signature) {
            _moved(known, success ? TaskState.FULFILLED : TaskState.FAILED);
        } catch {}
    }

    function cancel(uint256 which) external {
        Known storage known = _pick(which);
        vm.prank(requester);
        try oracle.cancel(known.r) {
            _moved(known, TaskState.CANCELLED);
        } catch {}
    }

    function expire(uint256 which) external {
        Known storage known = _pick(which);
        try oracle.expire(known.r) {
            _moved(known, TaskState.EXPIRED);
        } catch {}
    }

    function withdraw(uint256 who) external {
        address account = _accounts()[who % 4];
        vm.prank(account);
        try oracle.withdraw(payable(account)) {} catch {}
    }

    function wait(uint256 blocks) external {
        blocks = bound(blocks, 1, 10);
        vm.roll(vm.getBlockNumber() + blocks);
        skip(blocks * 5 minutes);
    }

    /// @return total balances, and the escrow of open tasks
    function owed() external view returns (uint256 total) {
        for (uint256 i; i < 4; ++i) {
            total += oracle.balanceOf(_accounts()[i]);
        }
        for (uint256 i; i < _tasks.length; ++i) {
            total += oracle.task(_tasks[i].taskId).escrow;
        }
    }

    function statesAgree() external view returns (bool) {
        for (uint256 i; i < _tasks.length; ++i) {
            if (_state(_tasks[i].taskId) != _tasks[i].state) return false;
        }
        return true;
    }

    function tasks() external view returns (uint256) {
        return _tasks.length;
    }

    function quotaUsed() external view returns (uint64) {
        return registry.agreement(id).used;
    }

    function _moved(Known storage known, uint8 to) private {
        if (known.state != TaskState.REQUESTED) leftTerminalState = true;
        known.state = to;
        ++moves[to];
    }

    function _pick(uint256 which) private returns (Known storage) {
        if (_tasks.length == 0) request();
        return _tasks[which % _tasks.length];
    }

    function _accounts() private view returns (address[4] memory) {
        return [requester, payee, hospitalA, hospitalB];
    }
}

/// @notice 1. The oracle's ether is exactly what it owes: balances and escrows.
///         2. Nothing leaves a final state.
///         3. Quota used is the tasks requested less those cancelled (R9).
contract SolvencyTest is Invariant, Deploy {
    Crowd private crowd;

    function setUp() public {
        crowd = Crowd(deploy("Solvency.t.sol:Crowd", ""));
        bytes4[] memory selectors = new bytes4[](6);
        selectors[0] = Crowd.request.selector;
        selectors[1] = Crowd.fulfil.selector;
        selectors[2] = Crowd.cancel.selector;
        selectors[3] = Crowd.expire.selector;
        selectors[4] = Crowd.withdraw.selector;
        selectors[5] = Crowd.wait.selector;
        targetContract(address(crowd));
        targetSelector(address(crowd), selectors);
    }

    function invariant_oracleHoldsExactlyWhatItOwes() public view {
        assertEq(address(crowd.computeOracle()).balance, crowd.owed());
    }

    function invariant_nothingLeavesAFinalState() public view {
        assertFalse(crowd.leftTerminalState());
        assertTrue(crowd.statesAgree());
    }

    function invariant_quotaComesBackByCancelOnly() public view {
        assertEq(crowd.quotaUsed(), crowd.tasks() - crowd.moves(TaskState.CANCELLED));
    }

    /// @dev A crowd that never got anywhere would satisfy all of the above.
    function test_theCrowdReachesEveryState() public {
        for (uint256 i; i < 4; ++i) {
            crowd.request();
        }
        crowd.fulfil(0, true);
        crowd.fulfil(1, false);
        crowd.cancel(2);
        for (uint256 i; i < 4; ++i) {
            crowd.wait(10);
        }
        crowd.expire(3);
        for (uint8 state = TaskState.REQUESTED; state <= TaskState.EXPIRED; ++state) {
            assertGt(crowd.moves(state), 0, vm.toString(state));
        }
        assertGt(crowd.owed(), 0);
        for (uint256 i; i < 4; ++i) {
            crowd.withdraw(i);
        }
        assertEq(crowd.owed(), 0);
    }
}
