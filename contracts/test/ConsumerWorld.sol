// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Out, Price, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {ANYONE, Confirmation, Outcome, OutputKind, TaskState} from "../src/libraries/Constants.sol";
import {MockComputeOracle} from "../testing/MockComputeOracle.sol";
import {Fixture} from "./Fixture.sol";
import {Deploy} from "./utils/Deploy.sol";
import {Vm} from "./utils/Vm.sol";

/// @title What a consumer's test needs of the world, whether the oracle in it is the real one or the mock
/// @notice A suite that is written against this runs on both, so the mock cannot come to differ from what it stands for.
abstract contract ConsumerWorld is Deploy {
    IComputeOracle internal world;
    address internal anyone;
    bytes32[] internal versions;
    bytes32 internal askedId;

    function setUp() public virtual {
        anyone = makeAddr("anyone");
        versions.push(keccak256("dataset A"));
        versions.push(keccak256("dataset B"));
        _openWorld();
        vm.recordLogs();
    }

    function _openWorld() internal virtual;

    /// @dev An agreement that anyone asks under, with public outputs.
    function _agree(Price memory price, uint32 releaseDelay) internal virtual returns (bytes32 agreementId);

    function _pricingOf(bytes32 agreementId) internal view virtual returns (IComputeOracle.Pricing memory);

    /// @dev Settles a task: it succeeded with these public outputs, or where there are none, it failed.
    function _settle(TaskRequest memory r, bytes[] memory outputs) internal virtual;

    /// @dev The result that `_settle` settles with.
    function _resultOf(TaskRequest memory r, bytes[] memory outputs) internal view virtual returns (Result memory);

    function _answer(TaskRequest memory r, bytes memory output) internal {
        _settle(r, _list(output));
    }

    function _fail(TaskRequest memory r) internal {
        _settle(r, new bytes[](0));
    }

    function _list(bytes memory output) internal pure returns (bytes[] memory outputs) {
        outputs = new bytes[](1);
        outputs[0] = output;
    }

    function _price(address token, uint256 fee) internal pure returns (Price memory p) {
        p.token = token;
        p.fee = fee;
    }

    function _open() internal pure returns (IAgreementRegistry.Admission memory admission) {
        admission.requesters = ANYONE;
    }

    /// @dev The request that was made since this was last called.
    function _asked() internal returns (TaskRequest memory r) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter != address(world)) continue;
            if (logs[i].topics[0] != IComputeOracle.TaskRequested.selector) continue;
            (r,) = abi.decode(logs[i].data, (TaskRequest, string));
            askedId = logs[i].topics[1];
        }
        assertEq(askedId, world.taskIdOf(r));
    }

    function _stateOf(TaskRequest memory r) internal view returns (uint8) {
        return world.task(r.agreementId, world.taskIdOf(r)).state;
    }

    function _passDeadline(TaskRequest memory r) internal {
        vm.warp(uint256(r.deadline) + 1);
    }
}

/// @notice The real contracts: the parties sign, an enclave is registered and signs results.
abstract contract RealWorld is ConsumerWorld, Fixture {
    mapping(bytes32 agreementId => Agreement) private _agreements;
    uint256 private _count;

    function setUp() public virtual override(ConsumerWorld, Fixture) {
        ConsumerWorld.setUp();
    }

    function _openWorld() internal override {
        Fixture.setUp();
        _register();
        world = oracle;
    }

    function _agree(Price memory price, uint32 releaseDelay) internal override returns (bytes32 agreementId) {
        Agreement memory a = _agreement();
        a.price = price;
        a.outputs[0].kind = OutputKind.ABI_VALUES;
        a.outputs[0].recipients = new bytes32[](0);
        a.keys.confirmation = Confirmation.FINALIZED;
        a.keys.confirmBlocks = 0;
        a.keys.releaseDelay = releaseDelay;
        // A suite lets days pass between a question and its answer.
        a.tee.maxEvidenceAge = 365 days;
        a.salt = keccak256(abi.encode("salt", ++_count));
        agreementId = _activate(a);
        _agreements[agreementId] = a;
    }

    function _pricingOf(bytes32 agreementId) internal view override returns (IComputeOracle.Pricing memory) {
        return _pricing(_agreements[agreementId]);
    }

    function _settle(TaskRequest memory r, bytes[] memory outputs) internal override {
        _renewed();
        IComputeOracle.Fulfilment memory f = _fulfilment(r, _resultOf(r, outputs));
        f.publicOutputs = outputs;
        oracle.fulfil(_settlement(_agreements[r.agreementId]), _identity(), f);
    }

    /// @dev A registration lasts for a week, and a suite lets months pass.
    function _renewed() private {
        if (enclaves.isValid(ANCHOR, enclave)) return;
        uint256 number = vm.getBlockNumber();
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(abi.encode("block", number)));
        _register();
    }

    function _resultOf(TaskRequest memory r, bytes[] memory outputs)
        internal
        view
        override
        returns (Result memory result)
    {
        result = _failure(r);
        if (outputs.length == 0) return result;
        result.outcome = Outcome.SUCCEEDED;
        result.outputs = new Out[](outputs.length);
        for (uint256 i; i < outputs.length; ++i) {
            result.outputs[i] = Out({
                name: "output",
                kind: OutputKind.ABI_VALUES,
                recipientsDigest: 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d,
                length: uint64(outputs[i].length),
                digest: sha256(outputs[i])
            });
        }
    }
}

/// @notice The mock that others test with.
abstract contract MockWorld is ConsumerWorld {
    MockComputeOracle internal mock;
    uint256 private _count;

    function _openWorld() internal override {
        vm.warp(1_800_000_000);
        vm.roll(1000);
        mock = MockComputeOracle(deploy("MockComputeOracle.sol:MockComputeOracle", ""));
        world = mock;
    }

    function _agree(Price memory price, uint32 releaseDelay) internal override returns (bytes32 agreementId) {
        agreementId = keccak256(abi.encode("agreement", ++_count));
        IComputeOracle.Pricing memory pricing;
        pricing.price = price;
        mock.addAgreement(agreementId, pricing, releaseDelay);
    }

    function _pricingOf(bytes32 agreementId) internal view override returns (IComputeOracle.Pricing memory) {
        return mock.pricingOf(agreementId);
    }

    function _settle(TaskRequest memory r, bytes[] memory outputs) internal override {
        bytes32 taskId = mock.taskIdOf(r);
        if (outputs.length == 0) mock.fail(taskId);
        else mock.answer(taskId, outputs);
    }

    function _resultOf(TaskRequest memory r, bytes[] memory) internal view override returns (Result memory result) {
        (result,) = mock.resultOf(mock.taskIdOf(r));
    }
}
