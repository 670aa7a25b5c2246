// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ComputeOracle} from "../src/ComputeOracle.sol";
import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as R} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

contract RequestTest is Fixture {
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = _activate(a);
    }

    function test_keepsTheTaskAndItsFee() public {
        TaskRequest memory r = _taskRequest(id);
        bytes32 taskId = oracle.taskIdOf(r);
        vm.expectEmit(address(oracle));
        emit I.TaskRequested(taskId, id, requester, r, "ipfs://inputs");
        vm.prank(requester);
        assertEq(oracle.request{value: FEE}(r, _noProof(), "ipfs://inputs"), taskId);

        I.Task memory t = oracle.task(taskId);
        assertEq(t.state, TaskState.REQUESTED);
        assertEq(t.requestBlock, vm.getBlockNumber());
        assertEq(t.deadline, r.deadline);
        assertEq(t.cancelUntil, vm.getBlockNumber() + RELEASE_DELAY);
        assertEq(t.escrow, FEE);
        assertEq(bytes32(t.resultDigest), bytes32(0));
        assertEq(address(oracle).balance, FEE);
        assertEq(registry.agreement(id).used, 1);
    }

    function test_taskIdIsTheDigestInTheOraclesDomain() public view {
        TaskRequest memory r = _taskRequest(id);
        assertEq(oracle.taskIdOf(r), MessageHashUtils.toTypedDataHash(oracle.domainSeparator(), hashing.taskRequest(r)));
        assertNotEq(oracle.domainSeparator(), registry.domainSeparator());
    }

    function test_takesAFreeTask() public {
        a.price.fee = 0;
        a.price.failedFee = 0;
        TaskRequest memory r = _taskRequest(_activate(a));
        r.maxFee = 0;
        vm.prank(requester);
        bytes32 taskId = oracle.request(r, _noProof(), "");
        assertEq(oracle.task(taskId).escrow, 0);
        assertEq(_state(taskId), TaskState.REQUESTED);
    }

    function test_refusesRequestForAnother() public {
        TaskRequest memory r = _taskRequest(id);
        vm.deal(stranger, FEE);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequester.selector, stranger, requester));
        vm.prank(stranger);
        oracle.request{value: FEE}(r, _noProof(), "");
    }

    function test_refusesTwice() public {
        TaskRequest memory r = _taskRequest(id);
        bytes32 taskId = _request(r);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, taskId, TaskState.REQUESTED));
    }

    function test_refusesWhatLaterVersionsDo() public {
        TaskRequest memory r = _taskRequest(id);
        r.inputsId = keccak256("inputs");
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotYetSupported.selector, "inputsId"));
        r = _taskRequest(id);
        r.inputShares = keccak256("shares");
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotYetSupported.selector, "inputShares"));
        r = _taskRequest(id);
        r.spend = 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotYetSupported.selector, "spend"));
    }

    // Times

    function testFuzz_takesAsOfWithinTheLastHour(uint64 asOf) public {
        uint256 time = vm.getBlockTimestamp();
        TaskRequest memory r = _taskRequest(id);
        r.asOf = uint64(bound(asOf, time - 2 hours, time + 1 hours));
        if (r.asOf <= time && r.asOf >= time - 1 hours) _request(r);
        else _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadAsOf.selector, r.asOf, time, 1 hours));
    }

    function test_takesBothEndsOfAsOf() public {
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp()));
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() - 1 hours));
    }

    function test_refusesAnAsOfOneSecondOff() public {
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() + 1));
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() - 1 hours - 1));
    }

    function testFuzz_takesDeadlinesWithinThirtyDays(uint64 deadline) public {
        uint256 time = vm.getBlockTimestamp();
        TaskRequest memory r = _taskRequest(id);
        r.deadline = uint64(bound(deadline, time - 1 hours, time + 60 days));
        if (r.deadline > time && r.deadline <= time + 30 days) _request(r);
        else _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadDeadline.selector, r.deadline, time, 30 days));
    }

    function test_refusesADeadlineThatIsNow() public {
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp()));
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp() + 30 days + 1));
    }

    // Money and size

    function test_refusesFeeAboveMax() public {
        TaskRequest memory r = _taskRequest(id);
        r.maxFee = FEE - 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_FeeAboveMax.selector, FEE, FEE - 1));
    }

    function testFuzz_refusesAnyOtherPayment(uint256 value) public {
        value = bound(value, 0, 1 ether);
        vm.assume(value != FEE);
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, value, FEE));
        vm.prank(requester);
        oracle.request{value: value}(r, _noProof(), "");
    }

    function test_refusesLongParams() public {
        TaskRequest memory r = _taskRequest(id);
        r.params = new bytes(4097);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_ParamsTooLong.selector, 4097, 4096));
        r.params = new bytes(4096);
        _request(r);
    }

    function test_refusesLongUri() public {
        TaskRequest memory r = _taskRequest(id);
        string memory uri = string(new bytes(2049));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_UriTooLong.selector, 2049, 2048));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _noProof(), uri);
    }

    // Callback

    function test_refusesGasWithoutCallback() public {
        TaskRequest memory r = _taskRequest(id);
        r.callbackGas = 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 1, 0, 0));
    }

    function test_refusesCallbackOfAnother() public {
        TaskRequest memory r = _taskRequest(id);
        r.callback = address(registry);
        r.callbackGas = 100_000;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallback.selector, address(registry), requester));
    }

    function test_refusesCallbackWithoutCode() public {
        TaskRequest memory r = _taskRequest(id);
        r.callback = requester;
        r.callbackGas = 100_000;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallback.selector, requester, requester));
    }

    function test_refusesBadCallbackGas() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(requester));
        vm.deal(r.requester, FEE);
        r.callback = r.requester;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 0, 1, 1_000_000));
        r.callbackGas = 1_000_001;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 1_000_001, 1, 1_000_000));
        r.callbackGas = 1_000_000;
        _request(r);
    }

    // The agreement

    function test_refusesUnknownAgreement() public {
        TaskRequest memory r = _taskRequest(keccak256("unknown"));
        _refuses(r, abi.encodeWithSelector(R.AgreementRegistry_NotActive.selector, r.agreementId, R.Status.None));
    }

    function test_refusesOracleOfAnotherAgreement() public {
        ComputeOracle another = _deployOracle(registry);
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(
            abi.encodeWithSelector(R.AgreementRegistry_NotOracle.selector, address(another), address(oracle))
        );
        vm.prank(requester);
        another.request{value: FEE}(r, _noProof(), "");
    }

    function test_onlyTheOracleSpendsAndUnspends() public {
        bytes memory notOracle =
            abi.encodeWithSelector(R.AgreementRegistry_NotOracle.selector, stranger, address(oracle));
        vm.startPrank(stranger);
        vm.expectRevert(notOracle);
        registry.spend(id, stranger, 0, _noProof());
        vm.expectRevert(notOracle);
        registry.unspend(id, stranger);
    }

    function test_refusesBeforeTheWindow() public {
        a.notBefore = uint64(vm.getBlockTimestamp() + 1);
        TaskRequest memory r = _taskRequest(_activate(a));
        _refuses(
            r,
            abi.encodeWithSelector(
                R.AgreementRegistry_OutsideWindow.selector, vm.getBlockTimestamp(), a.notBefore, a.notAfter
            )
        );
        skip(1);
        _request(r);
    }

    function test_refusesAfterTheWindow() public {
        vm.warp(a.notAfter);
        TaskRequest memory r = _taskRequest(id);
        _refuses(
            r, abi.encodeWithSelector(R.AgreementRegistry_OutsideWindow.selector, a.notAfter, a.notBefore, a.notAfter)
        );
    }

    function test_refusesOtherVersions() public {
        TaskRequest memory r = _taskRequest(id);
        r.versions[1] = keccak256("another dataset");
        _refuses(
            r,
            abi.encodeWithSelector(
                R.AgreementRegistry_WrongVersions.selector,
                keccak256(abi.encodePacked(r.versions)),
                keccak256(bytes.concat(DATASET_A, DATASET_B))
            )
        );
    }

    function test_takesListedRequestersOnly() public {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(requester))));
        bytes32 other = keccak256(bytes.concat(keccak256(abi.encode(hospitalA))));
        a.access.requesters = leaf < other ? keccak256(bytes.concat(leaf, other)) : keccak256(bytes.concat(other, leaf));
        TaskRequest memory r = _taskRequest(_activate(a));
        _refuses(
            r, abi.encodeWithSelector(R.AgreementRegistry_RequesterNotAllowed.selector, requester, a.access.requesters)
        );

        TaskRequest memory unlisted = _taskRequest(r.agreementId);
        unlisted.requester = stranger;
        vm.deal(stranger, FEE);
        vm.expectRevert(
            abi.encodeWithSelector(R.AgreementRegistry_RequesterNotAllowed.selector, stranger, a.access.requesters)
        );
        vm.prank(stranger);
        oracle.request{value: FEE}(unlisted, _one(other), "");

        vm.prank(requester);
        oracle.request{value: FEE}(r, _one(other), "");
    }

    // Quota (R9)

    function test_refusesPastTheQuota() public {
        TaskRequest memory r = _taskRequest(id);
        for (uint256 i; i < a.access.quota; ++i) {
            r.nonce = bytes32(i);
            _request(r);
        }
        r.nonce = keccak256("one more");
        _refuses(r, abi.encodeWithSelector(R.AgreementRegistry_QuotaSpent.selector, id, 10));
        assertEq(registry.usedBy(id, requester), 0);
    }

    function test_refusesPastTheRequestersQuota() public {
        a.access.quotaPerRequester = 2;
        TaskRequest memory r = _taskRequest(_activate(a));
        _request(r);
        r.nonce = keccak256("second");
        _request(r);
        assertEq(registry.usedBy(r.agreementId, requester), 2);
        r.nonce = keccak256("third");
        _refuses(
            r, abi.encodeWithSelector(R.AgreementRegistry_RequesterQuotaSpent.selector, r.agreementId, requester, 2)
        );

        r.requester = stranger;
        vm.deal(stranger, FEE);
        _request(r);
        assertEq(registry.usedBy(r.agreementId, stranger), 1);
    }

    function test_refusesRegistryWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotAContract.selector, stranger));
        _deployOracle(R(stranger));
    }

    function _refuses(TaskRequest memory r, bytes memory err) private {
        vm.expectRevert(err);
        vm.prank(r.requester);
        oracle.request{value: FEE}(r, _noProof(), "");
    }
}
