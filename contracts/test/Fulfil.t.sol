// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Out, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {Outcome, TaskState, TcbStatus} from "../src/libraries/Constants.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {TaskFixture} from "./TaskFixture.sol";

contract FulfilTest is TaskFixture {
    Agreement private a;
    bytes32 private anchor;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        anchor = _register();
    }

    // Success and failure

    function test_anyoneSettlesASuccess() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        Result memory result = _result(r);
        bytes32 digest = oracle.resultDigestOf(result);
        bytes memory signature = _sign(result);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        I.Fulfilment memory f = _with(r, result, signature);
        vm.expectEmit(address(oracle));
        emit I.TaskFulfilled(taskId, r.agreementId, enclave, digest, result, signature);
        vm.prank(stranger);
        oracle.fulfil(settlement, identity, f);

        I.Task memory t = oracle.task(r.agreementId, taskId);
        assertEq(t.state, TaskState.FULFILLED);
        assertEq(bytes32(t.resultDigest), bytes32(bytes31(digest)));
        assertEq(t.escrow, 0);
        assertEq(t.requestBlock, 0);
        assertEq(t.deadline, 0);
        assertEq(t.cancelUntil, 0);
        assertFalse(t.callback);
        assertEq(oracle.poolOf(r.agreementId), FEE * 55 / 100);
        assertEq(_balance(payee), FEE * 45 / 100);
        assertEq(_balance(requester), 0);
        assertEq(_balance(hospitalA), 0);
    }

    function test_aSignedFailureGivesTheRestBack() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        Result memory failure = _failure(r);
        bytes32 digest = oracle.resultDigestOf(failure);
        bytes memory signature = _sign(failure);
        vm.expectEmit(address(oracle));
        emit I.TaskFulfilled(taskId, r.agreementId, enclave, digest, failure, signature);
        _fulfil(a, r, failure);
        assertEq(_state(r), TaskState.FAILED);
        assertEq(bytes32(oracle.task(r.agreementId, taskId).resultDigest), bytes32(bytes31(digest)));
        assertEq(_balance(payee), FAILED_FEE);
        assertEq(_balance(requester), FEE - FAILED_FEE);
        assertEq(oracle.poolOf(r.agreementId), 0);
        // R9: no quota comes back.
        assertEq(registry.agreement(r.agreementId).used, 1);
    }

    function test_aFailureNeedsItsRequest() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        I.Fulfilment memory f = _fulfilment(r, _failure(r));
        f.request = new TaskRequest[](0);
        _refusesFulfilment(f, abi.encodeWithSelector(I.ComputeOracle_RequestMissing.selector, taskId));
        f.request = new TaskRequest[](2);
        (f.request[0], f.request[1]) = (r, r);
        _refusesFulfilment(f, abi.encodeWithSelector(I.ComputeOracle_RequestMissing.selector, taskId));
    }

    /// @dev Else whoever settles could name another to be refunded.
    function test_aFailureTakesNoOtherRequest() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        I.Fulfilment memory f = _fulfilment(r, _failure(r));
        f.request[0].requester = stranger;
        bytes32 other = oracle.taskIdOf(f.request[0]);
        _refusesFulfilment(f, abi.encodeWithSelector(I.ComputeOracle_WrongTask.selector, other, taskId));
    }

    function test_settlesInTheAgreementsToken() public {
        address coin = _token("Coin");
        a = _inToken(coin);
        TaskRequest memory r = _taskRequest(_activate(a));
        _requestInToken(r);
        _fulfil(a, r, _result(r));
        assertEq(oracle.balanceOf(coin, payee), FEE * 45 / 100);
        assertEq(_balance(payee), 0);
    }

    function test_settlesUntilTheDeadline() public {
        (TaskRequest memory r,) = _requested();
        vm.warp(r.deadline);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesPastTheDeadline() public {
        (TaskRequest memory r,) = _requested();
        vm.warp(uint256(r.deadline) + 1);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_DeadlinePassed.selector, r.deadline + 1, r.deadline));
    }

    function test_refusesTwice() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        _fulfil(a, r, _result(r));
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.FULFILLED));
    }

    function test_refusesUnknownTask() public {
        TaskRequest memory r = _taskRequest(_activate(a));
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, oracle.taskIdOf(r), TaskState.NONE));
    }

    function test_refusesExpiredTask() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.EXPIRED));
    }

    function test_refusesCancelledTask() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.CANCELLED));
    }

    // The result

    function test_digestIsInTheOraclesDomain() public view {
        Result memory result = _result(_taskRequest(keccak256("agreement")));
        assertEq(
            oracle.resultDigestOf(result),
            MessageHashUtils.toTypedDataHash(oracle.domainSeparator(), hashing.result(result))
        );
    }

    /// @dev A task is kept by its agreement, which its id commits to.
    function test_refusesResultOfAnotherAgreement() public {
        (TaskRequest memory r, bytes32 taskId) = _requested();
        Result memory result = _result(r);
        result.agreementId = keccak256("another");
        _refuses(r, result, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, taskId, TaskState.NONE));
    }

    function test_refusesResultOfAnotherTask() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.taskId = keccak256("another");
        _refuses(
            r, result, abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, result.taskId, TaskState.NONE)
        );
    }

    function testFuzz_refusesUnknownOutcomes(uint8 outcome) public {
        vm.assume(outcome != Outcome.SUCCEEDED && outcome != Outcome.FAILED);
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.outcome = outcome;
        _refuses(r, result, abi.encodeWithSelector(I.ComputeOracle_BadOutcome.selector, outcome));
    }

    function test_refusesSuccessWithoutOutputs() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.outputs = new Out[](0);
        _refuses(r, result, abi.encodeWithSelector(I.ComputeOracle_WrongOutputs.selector, 1, 0));
    }

    function test_refusesFailureWithOutputs() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.outcome = Outcome.FAILED;
        _refusesFulfilment(_fulfilment(r, result), abi.encodeWithSelector(I.ComputeOracle_WrongOutputs.selector, 2, 1));
    }

    function test_refusesZeroPayee() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.payee = address(0);
        _refuses(r, result, abi.encodeWithSelector(I.ComputeOracle_ZeroPayee.selector));
    }

    // The signature

    function test_refusesAResultChangedAfterSigning() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        bytes memory signature = _sign(result);
        result.payee = stranger;
        I.Fulfilment memory f = _with(r, result, signature);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectPartialRevert(I.ComputeOracle_UnknownEnclave.selector);
        oracle.fulfil(settlement, identity, f);
    }

    function test_refusesSignatureByAnother() public {
        (TaskRequest memory r,) = _requested();
        enclaveKey = operatorKey;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, anchor, operator));
    }

    function test_refusesMalformedAndMalleatedSignatures() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        bytes32 digest = oracle.resultDigestOf(result);
        bytes memory bad = abi.encodeWithSelector(I.ComputeOracle_BadSignature.selector, digest);
        _refusesFulfilment(_with(r, result, ""), bad);
        (uint8 v, bytes32 x, bytes32 y) = vm.sign(enclaveKey, digest);
        uint256 n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        _refusesFulfilment(_with(r, result, abi.encodePacked(x, n - uint256(y), v == 27 ? uint8(28) : uint8(27))), bad);
        _refusesFulfilment(_with(r, result, abi.encodePacked(x, y, v, uint8(0))), bad);
        _refusesFulfilment(_with(r, result, abi.encodePacked(x, y, v - 27)), bad);
    }

    // What the caller supplies again

    function test_refusesAnotherEnclavePolicy() public {
        (TaskRequest memory r,) = _requested();
        bytes32 expected = _settlementHash();
        a.tee.evalFloor -= 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, _settlementHash(), expected));
    }

    function test_refusesAnotherPrice() public {
        (TaskRequest memory r,) = _requested();
        bytes32 expected = _settlementHash();
        a.price.to[0] = stranger;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, _settlementHash(), expected));
    }

    function test_refusesAnotherEnclaveRegistry() public {
        (TaskRequest memory r,) = _requested();
        bytes32 expected = _settlementHash();
        a.enclaveRegistry = address(verifier);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, _settlementHash(), expected));
    }

    // The enclave, as the agreement wants it

    function test_refusesAnchorUnderWhichNobodyRegistered() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        result.anchor = keccak256("another anchor");
        _refuses(r, result, abi.encodeWithSelector(I.ComputeOracle_UnknownEnclave.selector, result.anchor, enclave));
    }

    function test_refusesAnchorThatIsNotAgreed() public {
        a.tee.anchors = _one(keccak256("another anchor"));
        (TaskRequest memory r,) = _requested();
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_AnchorNotAgreed.selector, anchor));
    }

    function test_refusesMeasurementThatIsNotAgreed() public {
        a.tee.measurements = _one(keccak256("another measurement"));
        (TaskRequest memory r,) = _requested();
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_MeasurementNotAgreed.selector, MEASUREMENT));
    }

    function test_takesAnyOfTheListedMeasurementsAndAnchors() public {
        a.tee.measurements = new bytes32[](2);
        a.tee.measurements[0] = keccak256("another measurement");
        a.tee.measurements[1] = MEASUREMENT;
        a.tee.anchors = new bytes32[](2);
        a.tee.anchors[0] = keccak256("another anchor");
        a.tee.anchors[1] = anchor;
        (TaskRequest memory r,) = _requested();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function testFuzz_takesExactlyTheAgreedStatuses(uint8 status, uint32 mask) public {
        status = uint8(bound(status, 1, 9));
        mask = uint32(bound(mask, 1, 0x3FF)) & TcbStatus.ACCEPTABLE_MASK;
        vm.assume(status != TcbStatus.REVOKED && mask != 0);
        a.tee.statusMask = mask;
        (TaskRequest memory r,) = _requested();
        _renew(status, 17);
        if (mask & (1 << status) != 0) {
            _fulfil(a, r, _result(r));
            assertEq(_state(r), TaskState.FULFILLED);
        } else {
            _refuses(r, abi.encodeWithSelector(I.ComputeOracle_TcbStatusNotAgreed.selector, status, mask));
        }
    }

    function test_refusesAnEvaluationBelowTheFloor() public {
        a.tee.evalFloor = 18;
        (TaskRequest memory r,) = _requested();
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_EvaluationTooLow.selector, 17, 18));
    }

    function test_refusesOldEvidence() public {
        a.tee.maxEvidenceAge = 600;
        (TaskRequest memory r,) = _requested();
        skip(601);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_EvidenceTooOld.selector, 601, 600));
    }

    function test_takesEvidenceOfTheOldestAge() public {
        a.tee.maxEvidenceAge = 600;
        (TaskRequest memory r,) = _requested();
        skip(600);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_takesAnEnclaveInItsLastSecond() public {
        a.tee.maxEvidenceAge = 30 days;
        uint64 validUntil = _standing().validUntil;
        TaskRequest memory r = _taskRequest(_activate(a));
        r.deadline = uint64(vm.getBlockTimestamp() + 30 days);
        _request(r);
        vm.warp(validUntil);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesAnExpiredEnclave() public {
        a.tee.maxEvidenceAge = 30 days;
        uint64 validUntil = _standing().validUntil;
        TaskRequest memory r = _taskRequest(_activate(a));
        r.deadline = uint64(vm.getBlockTimestamp() + 30 days);
        _request(r);
        vm.warp(uint256(validUntil) + 1);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_EnclaveExpired.selector, validUntil, validUntil + 1));
    }

    function test_refusesARetiredEnclave() public {
        (TaskRequest memory r,) = _requested();
        vm.prank(enclave);
        enclaves.retire(anchor, enclave, "");
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_EnclaveRetired.selector, anchor, enclave));
    }

    // Grace: fine under the evaluation before

    function test_takesWhatWasFineUntilItsGraceEnds() public {
        a.tee.graceDays = 10;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.changedAt = uint40(vm.getBlockTimestamp() - 10 days);
        _renew(j);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesWhatWasFineWhenTheGraceIsOver() public {
        a.tee.graceDays = 10;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.changedAt = uint40(vm.getBlockTimestamp() - 10 days - 1);
        _renew(j);
        _refusesStatus(r);
    }

    function test_refusesWhatWasFineWhereThereIsNoGrace() public {
        (TaskRequest memory r,) = _requested();
        _renew(_outOfDate());
        _refusesStatus(r);
    }

    function test_refusesWhatWasNotFineEither() public {
        a.tee.graceDays = 10;
        a.tee.evalFloor = 16;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        (j.evaluation, j.earlierStatus, j.earlierEvaluation) = (17, TcbStatus.CONFIGURATION_NEEDED, 16);
        _renew(j);
        _refusesStatus(r);
    }

    function test_refusesWhatNobodyShowedToHaveBeenFine() public {
        a.tee.graceDays = 10;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        (j.evaluation, j.earlierStatus) = (17, 0);
        _renew(j);
        _refusesStatus(r);
    }

    function test_refusesWhatWasFineBelowTheFloor() public {
        a.tee.graceDays = 10;
        a.tee.evalFloor = 18;
        (TaskRequest memory r,) = _requested();
        _renew(_outOfDate());
        _refusesStatus(r);
    }

    /// @dev A challenge under a newer evaluation starts the grace, too; one that tells of a revocation does not.
    function test_whatAChallengeLoweredHasItsGrace() public {
        a.tee.graceDays = 10;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.earlierStatus = 0;
        enclaves.challenge(
            ANCHOR, enclave, _identity(), address(verifier), abi.encode(ANCHOR, _identity().svnDigest, j)
        );
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesWhatAChallengeRevoked() public {
        a.tee.graceDays = 10;
        (TaskRequest memory r,) = _requested();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.tcbStatus = TcbStatus.REVOKED;
        enclaves.challenge(
            ANCHOR, enclave, _identity(), address(verifier), abi.encode(ANCHOR, _identity().svnDigest, j)
        );
        _refusesStatus(r);
    }

    function test_refusesAnotherIdentityThanTheRegistered() public {
        (TaskRequest memory r,) = _requested();
        Result memory result = _result(r);
        bytes memory signature = _sign(result);
        IEnclaveRegistry.Identity memory other = _identity();
        other.operator = stranger;
        I.Fulfilment memory f = _with(r, result, signature);
        I.Settlement memory settlement = _settlement(a);
        bytes memory wrong = abi.encodeWithSelector(
            IEnclaveRegistry.EnclaveRegistry_WrongIdentity.selector,
            enclaves.digestOf(other),
            enclaves.digestOf(_identity())
        );
        vm.expectRevert(wrong);
        oracle.fulfil(settlement, other, f);
    }

    // Hosts (R5)

    function test_refusesAHostThatIsNotNamed() public {
        a.tee.operators[0] = stranger;
        (TaskRequest memory r,) = _requested();
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_HostNotAgreed.selector, operator, PLATFORM));
    }

    function test_takesANamedPlatform() public {
        a.tee.operators = new address[](0);
        a.tee.platforms = _one(PLATFORM);
        (TaskRequest memory r,) = _requested();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_refusesAPlatformThatIsNotNamed() public {
        a.tee.operators = new address[](0);
        a.tee.platforms = _one(keccak256("another platform"));
        (TaskRequest memory r,) = _requested();
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_HostNotAgreed.selector, operator, PLATFORM));
    }

    function test_takesAnyHostWhereThatIsWrittenOut() public {
        a.tee.operators = new address[](0);
        a.tee.anyHost = true;
        (TaskRequest memory r,) = _requested();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    // R8: nobody censors by outcome

    function test_settlesWhateverWasNarrowedSinceTheRequest() public {
        (TaskRequest memory r,) = _requested();
        vm.startPrank(hospitalA);
        registry.dropMeasurement(r.agreementId, MEASUREMENT);
        registry.dropHost(r.agreementId, bytes32(uint256(uint160(operator))));
        registry.suspend(r.agreementId);
        registry.revoke(r.agreementId);
        vm.stopPrank();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_settlesAfterTheAgreementsWindow() public {
        vm.warp(uint256(a.notAfter) - 1);
        a.activateBefore = a.notAfter;
        _nextBlockKeepingTime();
        _renew(TcbStatus.UP_TO_DATE, 17);
        (TaskRequest memory r,) = _requested();
        skip(60);
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function _requested() private returns (TaskRequest memory r, bytes32 taskId) {
        r = _taskRequest(_activate(a));
        taskId = _request(r);
    }

    function _renew(uint8 status, uint32 evaluation) private {
        _renew(_judgement(status, evaluation));
    }

    function _renew(IEvidenceVerifier.Judgement memory judgement) private {
        _nextBlockKeepingTime();
        IEnclaveRegistry.Registration memory registration = _registration();
        IEvidenceVerifier.Claims memory c = _claims(registration.blockHash);
        c.judgement = judgement;
        registration.evidence = abi.encode(c);
        enclaves.register(registration);
    }

    /// @dev Out of date since five days, and fine under the evaluation before.
    function _outOfDate() private view returns (IEvidenceVerifier.Judgement memory j) {
        j = _judgement(TcbStatus.OUT_OF_DATE, 18);
        j.earlierStatus = TcbStatus.UP_TO_DATE;
        j.earlierEvaluation = 17;
        j.changedAt = uint40(vm.getBlockTimestamp() - 5 days);
    }

    function _refusesStatus(TaskRequest memory r) private {
        _refuses(
            r,
            abi.encodeWithSelector(I.ComputeOracle_TcbStatusNotAgreed.selector, _standing().tcbStatus, a.tee.statusMask)
        );
    }

    function _nextBlockKeepingTime() private {
        uint256 time = vm.getBlockTimestamp();
        _nextBlock();
        vm.warp(time);
    }

    function _refuses(TaskRequest memory r, bytes memory err) private {
        _refuses(r, _result(r), err);
    }

    function _refuses(TaskRequest memory r, Result memory result, bytes memory err) private {
        _refusesFulfilment(_fulfilment(r, result), err);
    }

    function _refusesFulfilment(I.Fulfilment memory f, bytes memory err) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectRevert(err);
        oracle.fulfil(settlement, identity, f);
    }

    function _with(TaskRequest memory r, Result memory result, bytes memory signature)
        private
        view
        returns (I.Fulfilment memory f)
    {
        f = _fulfilment(r, result);
        f.signature = signature;
    }

    function _settlementHash() private view returns (bytes32) {
        return hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
    }
}
