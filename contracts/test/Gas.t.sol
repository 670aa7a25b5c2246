// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AgreementRegistry} from "../src/AgreementRegistry.sol";
import {ComputeOracle} from "../src/ComputeOracle.sol";
import {DatasetStreams} from "../src/DatasetStreams.sol";
import {EnclaveRegistry} from "../src/EnclaveRegistry.sol";
import {FunctionAudits} from "../src/FunctionAudits.sol";
import {Agreement, Batch, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {TaskFixture} from "./TaskFixture.sol";

/// @notice What agreements and tasks cost, of the bytecode that is shipped (`oracle/abi`). `scripts/test` fails where a cost is not
/// the one in `contracts/snapshots/tasks.json`; CONTRIBUTING.md says how to write that anew.
/// @dev Each call is a transaction of its own, its base and calldata included. One task was settled before, as in steady use. No
/// contract of the tests takes part: how those are compiled would show. `scripts/bench gas` measures on a chain, with tokens, too.
/// forge-config: default.isolate = true
/// forge-config: ci.isolate = true
contract GasTest is TaskFixture {
    string private constant GROUP = "tasks";

    Agreement private a;
    bytes32 private agreementId;

    function setUp() public override {
        super.setUp();
        streams = DatasetStreams(_shipped("DatasetStreams", ""));
        audits = FunctionAudits(_shipped("FunctionAudits", ""));
        registry = AgreementRegistry(_shipped("AgreementRegistry", abi.encode(streams, audits)));
        address[] memory verifiers = new address[](1);
        verifiers[0] = address(verifier);
        enclaves = EnclaveRegistry(_shipped("EnclaveRegistry", abi.encode(verifiers)));
        oracle = ComputeOracle(_shipped("ComputeOracle", abi.encode(registry)));
        _register();
        a = _roomy(10_000);
        agreementId = _activate(a);
        TaskRequest memory r = _taskRequest(agreementId);
        r.nonce = keccak256("first");
        _request(r);
        _fulfil(a, r, _result(r));
    }

    function test_agreement() public {
        Agreement memory another = a;
        another.salt = keccak256("another");
        bytes[] memory signatures = _signatures(another);
        IAgreementRegistry.Auditors memory nobody = _noAuditors();
        bytes32 id = registry.activate(another, signatures, nobody);
        vm.snapshotGasLastCall(GROUP, "activate, 3 parties");
        vm.prank(hospitalA);
        registry.suspend(id);
        vm.snapshotGasLastCall(GROUP, "suspend");
        vm.prank(hospitalA);
        registry.resume(id);
        vm.snapshotGasLastCall(GROUP, "resume");
        vm.prank(hospitalB);
        registry.revoke(id);
        vm.snapshotGasLastCall(GROUP, "revoke");
    }

    function test_task() public {
        TaskRequest memory r = _taskRequest(agreementId);
        _request(r);
        vm.snapshotGasLastCall(GROUP, "request");
        _fulfil(a, r, _result(r));
        vm.snapshotGasLastCall(GROUP, "fulfil");
        vm.prank(payee);
        oracle.withdraw(NATIVE, payee);
        vm.snapshotGasLastCall(GROUP, "withdraw");
        IComputeOracle.Pricing memory pricing = _pricing(a);
        oracle.distribute(agreementId, pricing);
        vm.snapshotGasLastCall(GROUP, "distribute to 2");
    }

    function test_aFailure() public {
        TaskRequest memory r = _taskRequest(agreementId);
        _request(r);
        _fulfil(a, r, _failure(r));
        vm.snapshotGasLastCall(GROUP, "fulfil, failed");
    }

    function test_aPublicOutputWithItsCallback() public {
        Agreement memory open = _open(1);
        bytes32 id = _activate(open);
        TaskRequest memory r = _taskRequest(id);
        // A contract that takes any call and does nothing.
        vm.etch(requester, hex"00");
        (r.callback, r.callbackGas) = (requester, 100_000);
        _request(r);
        IComputeOracle.Fulfilment memory told = _told(r, _bytes(abi.encode(uint256(720))));
        IComputeOracle.Settlement memory settlement = _settlement(open);
        oracle.fulfil(settlement, _identity(), told);
        vm.snapshotGasLastCall(GROUP, "fulfil, public, with callback");
    }

    function test_cancelAndExpiry() public {
        TaskRequest memory r = _taskRequest(agreementId);
        _request(r);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        vm.snapshotGasLastCall(GROUP, "cancel");
        r.nonce = keccak256("late");
        _request(r);
        skip(2 hours);
        IComputeOracle.Pricing memory pricing = _pricing(a);
        oracle.expire(r, pricing);
        vm.snapshotGasLastCall(GROUP, "expire");
    }

    function test_many() public {
        IComputeOracle.Fulfilment[] memory list = _fulfilments(_requests(agreementId, 20));
        IComputeOracle.Settlement memory settlement = _settlement(a);
        oracle.fulfilMany(settlement, _identity(), list);
        vm.snapshotGasLastCall(GROUP, "fulfilMany of 20");
    }

    function test_batch() public {
        Batch memory batch = _batch(_requests(agreementId, 50));
        bytes memory signature = _signBatch(batch);
        IComputeOracle.Settlement memory settlement = _settlement(a);
        oracle.fulfilBatch(settlement, _identity(), batch, signature);
        vm.snapshotGasLastCall(GROUP, "fulfilBatch of 50");
    }

    function _shipped(string memory name, bytes memory arguments) private returns (address deployed) {
        string memory artifact = vm.readFile(string.concat("oracle/abi/", name, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(artifact, ".bytecode"), arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
        }
        assertTrue(deployed != address(0), name);
    }
}
