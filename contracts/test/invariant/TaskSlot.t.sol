// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TaskState} from "../../src/libraries/Constants.sol";
import {TaskSlot, TaskSlots} from "../../src/libraries/TaskSlot.sol";
import {Test} from "../utils/Test.sol";

/// @notice What goes into a task's one word comes out again, and nothing of one part shows in another.
contract TaskSlotTest is Test {
    function testFuzz_aRequestedTaskKeepsItsParts(
        uint40 atBlock,
        uint40 deadline,
        uint40 cancelUntil,
        uint128 escrow,
        bool callsBack
    ) public pure {
        TaskSlot slot = TaskSlots.requested(atBlock, deadline, cancelUntil, escrow, callsBack);
        assertEq(slot.state(), TaskState.REQUESTED);
        assertEq(slot.requestBlock(), atBlock);
        assertEq(slot.deadline(), deadline);
        assertEq(slot.cancelUntil(), cancelUntil);
        assertEq(slot.escrow(), escrow);
        assertEq(slot.callback(), callsBack);
    }

    function testFuzz_aSettledTaskKeepsItsResult(bytes32 digest, bool succeeded) public pure {
        uint8 state = succeeded ? TaskState.FULFILLED : TaskState.FAILED;
        TaskSlot slot = TaskSlots.settled(state, digest);
        assertEq(slot.state(), state);
        assertEq(bytes32(slot.resultDigest()), bytes32(bytes31(digest)));
        assertFalse(slot.callback());
        TaskSlot marked = slot.withFailedCallback();
        assertTrue(marked.callback());
        assertEq(marked.state(), state);
        assertEq(bytes32(marked.resultDigest()), bytes32(bytes31(digest)));
        assertEq(TaskSlot.unwrap(marked.withoutCallback()), TaskSlot.unwrap(slot));
    }

    function testFuzz_aClosedTaskKeepsItsStateOnly(bool cancelled) public pure {
        uint8 state = cancelled ? TaskState.CANCELLED : TaskState.EXPIRED;
        TaskSlot slot = TaskSlots.closed(state);
        assertEq(slot.state(), state);
        assertEq(bytes32(slot.resultDigest()), bytes32(0));
        assertFalse(slot.callback());
    }
}
