// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Out, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";

contract PublicOutputsTest is TaskFixture {
    Agreement private a;
    TaskRequest private r;
    bytes32 private taskId;

    function setUp() public override {
        super.setUp();
        a = _open(2);
        r = _taskRequest(_activate(a));
        taskId = _request(r);
        _register();
    }

    function test_tellsWhatTheyAre() public {
        bytes[] memory contents = _two(abi.encode(uint256(7)), abi.encode("text", true));
        I.Fulfilment memory f = _told(r, contents);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectEmit(address(oracle));
        emit I.PublicOutputs(taskId, contents);
        oracle.fulfil(settlement, identity, f);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function testFuzz_takesAnyContentWithItsDigest(bytes memory first, bytes memory second) public {
        oracle.fulfil(_settlement(a), _identity(), _told(r, _two(first, second)));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesOtherContent() public {
        I.Fulfilment memory f = _told(r, _two("one", "two"));
        f.publicOutputs[1] = "twp";
        _refuses(f, _wrong(1, "twp", "two"));
    }

    function test_refusesContentInAnotherOrder() public {
        I.Fulfilment memory f = _told(r, _two("one", "two"));
        (f.publicOutputs[0], f.publicOutputs[1]) = (f.publicOutputs[1], f.publicOutputs[0]);
        _refuses(f, _wrong(0, "two", "one"));
    }

    function test_refusesTooFew() public {
        I.Fulfilment memory f = _told(r, _two("one", "two"));
        f.publicOutputs = _bytes("one");
        _refuses(f, abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutputCount.selector, 1, 2));
    }

    function test_refusesTooMany() public {
        I.Fulfilment memory f = _told(r, _two("one", "two"));
        f.publicOutputs = new bytes[](3);
        (f.publicOutputs[0], f.publicOutputs[1], f.publicOutputs[2]) = ("one", "two", "three");
        _refuses(f, abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutputCount.selector, 3, 2));
    }

    function test_refusesThemWhereAllAreSealed() public {
        I.Fulfilment memory f = _fulfilment(r, _result(r));
        f.publicOutputs = _bytes("one");
        _refuses(f, abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutputCount.selector, 1, 0));
    }

    function test_refusesThemWithAFailure() public {
        I.Fulfilment memory f = _fulfilment(r, _failure(r));
        f.publicOutputs = _bytes("one");
        _refuses(f, abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutputCount.selector, 1, 0));
    }

    /// @dev Sealed and public ones may alternate; the index in an error is the output's, not the public one's.
    function test_findsThemBetweenSealedOnes() public {
        Result memory result = _result(r);
        Out memory sealed_ = result.outputs[0];
        result.outputs = new Out[](4);
        (result.outputs[0], result.outputs[1]) = (sealed_, _publicOut("one"));
        (result.outputs[2], result.outputs[3]) = (sealed_, _publicOut("two"));
        I.Fulfilment memory f = _fulfilment(r, result);
        f.publicOutputs = _two("one", "twp");
        _refuses(f, _wrong(3, "twp", "two"));
        f.publicOutputs = _two("one", "two");
        oracle.fulfil(_settlement(a), _identity(), f);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_tellsNothingWhereThereAreNone() public {
        vm.recordLogs();
        _fulfil(a, r, _result(r));
        assertEq(vm.getRecordedLogs().length, 1);
    }

    function test_eachOfManyHasItsOwn() public {
        TaskRequest memory other = r;
        other.nonce = keccak256("another");
        _request(other);
        I.Fulfilment[] memory list = new I.Fulfilment[](2);
        list[0] = _told(r, _two("one", "two"));
        list[1] = _told(other, _two("three", "four"));
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectEmit(address(oracle));
        emit I.PublicOutputs(taskId, list[0].publicOutputs);
        vm.expectEmit(address(oracle));
        emit I.PublicOutputs(list[1].result.taskId, list[1].publicOutputs);
        oracle.fulfilMany(settlement, identity, list);
    }

    function test_refusesAnothersAmongMany() public {
        TaskRequest memory other = r;
        other.nonce = keccak256("another");
        _request(other);
        I.Fulfilment[] memory list = new I.Fulfilment[](2);
        list[0] = _told(r, _two("one", "two"));
        list[1] = _told(other, _two("three", "four"));
        list[1].publicOutputs = list[0].publicOutputs;
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectRevert(_wrong(0, "one", "three"));
        oracle.fulfilMany(settlement, identity, list);
    }

    function _two(bytes memory first, bytes memory second) private pure returns (bytes[] memory list) {
        list = new bytes[](2);
        (list[0], list[1]) = (first, second);
    }

    function _wrong(uint256 index, bytes memory got, bytes memory expected) private pure returns (bytes memory) {
        return abi.encodeWithSelector(I.ComputeOracle_WrongPublicOutput.selector, index, sha256(got), sha256(expected));
    }

    function _refuses(I.Fulfilment memory f, bytes memory err) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectRevert(err);
        oracle.fulfil(settlement, identity, f);
    }
}
