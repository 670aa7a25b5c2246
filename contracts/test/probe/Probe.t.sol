// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Batch, Result, TaskRequest} from "../../src/Types.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../../src/libraries/Constants.sol";
import {Fixture} from "../Fixture.sol";

contract ProbeTest is Fixture {
    event Gas(string what, uint256 execution, uint256 total);

    function cost(bytes memory data, uint256 execution) private pure returns (uint256) {
        uint256 tokens;
        for (uint256 i; i < data.length; ++i) tokens += data[i] == 0 ? 1 : 4;
        uint256 standard = 21_000 + 4 * tokens + execution;
        uint256 least = 21_000 + 10 * tokens;
        return standard > least ? standard : least;
    }

    function send(string memory what, address from, uint256 value, bytes memory data) private {
        vm.prank(from);
        uint256 before = gasleft();
        (bool ok, bytes memory why) = address(oracle).call{value: value}(data);
        uint256 used = before - gasleft();
        if (!ok) assembly { revert(add(why, 0x20), mload(why)) }
        emit Gas(what, used, cost(data, used));
    }

    function test_probe() public {
        Agreement memory a = _agreement();
        a.access.quota = a.access.quotaPerRequester = 10_000;
        bytes32 id = _activate(a);
        _register();
        vm.deal(requester, 10_000 ether);
        TaskRequest memory r = _taskRequest(id);
        _request(r);
        vm.cool(address(oracle));
        vm.cool(address(registry));
        vm.cool(address(enclaves));
        r.nonce = keccak256("2");
        send("request", requester, FEE, abi.encodeCall(IComputeOracle.request, (r, _anyone(), "")));
        TaskRequest memory first = _taskRequest(id);
        _fulfil(a, first, _result(first));
        vm.cool(address(oracle));
        vm.cool(address(registry));
        vm.cool(address(enclaves));
        send("fulfil", operator, 0, abi.encodeCall(IComputeOracle.fulfil, (_settlement(a), _identity(), _fulfilment(r, _result(r)))));
        uint256[2] memory counts = [uint256(10), 100];
        for (uint256 k; k < 2; ++k) {
            IComputeOracle.Fulfilment[] memory items = new IComputeOracle.Fulfilment[](counts[k]);
            for (uint256 i; i < counts[k]; ++i) {
                r.nonce = keccak256(abi.encode(k, i));
                _request(r);
                items[i] = _fulfilment(r, _result(r));
            }
            vm.cool(address(oracle));
            vm.cool(address(registry));
            vm.cool(address(enclaves));
            send("many", operator, 0, abi.encodeCall(IComputeOracle.fulfilMany, (_settlement(a), _identity(), items)));
        }
        uint256[3] memory sizes = [uint256(10), 100, 1000];
        for (uint256 k; k < 3; ++k) {
            Batch memory b;
            b.agreementId = id;
            b.payee = payee;
            b.anchor = ANCHOR;
            b.tasks = new bytes32[](sizes[k]);
            b.results = new bytes32[](sizes[k]);
            for (uint256 i; i < sizes[k]; ++i) {
                r.nonce = keccak256(abi.encode("batch", k, i));
                b.tasks[i] = _request(r);
                b.results[i] = oracle.resultDigestOf(_result(r));
            }
            bytes memory signature = sign(enclaveKey, oracle.batchDigestOf(b));
            vm.cool(address(oracle));
            vm.cool(address(registry));
            vm.cool(address(enclaves));
            send("batch", operator, 0, abi.encodeCall(IComputeOracle.fulfilBatch, (_settlement(a), _identity(), b, signature)));
            assertEq(_state(r), TaskState.FULFILLED);
        }
    }
}
