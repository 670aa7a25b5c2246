// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Batch, Enrolment, Out, Result, TaskRequest} from "../../src/Types.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";
import {OutputKind, TaskState, TcbStatus} from "../../src/libraries/Constants.sol";
import {Caller} from "../utils/Caller.sol";
import {Requesters} from "./Requesters.sol";

/// @title What workers, their enclaves and those who challenge them do
abstract contract Workers is Requesters {
    /// @dev Gas for a settlement, so that a callee that burns its share leaves enough for the rest.
    uint256 private constant PLENTY = 20_000_000;

    function fulfil(uint256 seed) external action {
        _settleOne(_openJob(seed), seed, true);
    }

    /// @dev A task that calls back, and a contract in some mood.
    function fulfilCallingBack(uint256 seed) external action {
        _askCallingBack(seed);
        if (jobs.length == 0) return;
        _mood(callers[seed % 2], _mix(seed, 4) % 7);
        _settleOne(jobs.length - 1, seed, _mix(seed, 5) % 4 != 0);
    }

    function fail(uint256 seed) external action {
        _settleOne(_openJob(seed), seed, false);
    }

    function fulfilMany(uint256 seed) external action {
        (uint256 deal, uint256[] memory list) = _some(seed, false);
        if (list.length == 0) return;
        Agreement memory a = _termsOf(deals[deal].draft);
        Boot storage b = _worker(a, seed);
        IComputeOracle.Fulfilment[] memory all = new IComputeOracle.Fulfilment[](list.length);
        address[] memory payees = new address[](list.length);
        uint256 goes;
        for (uint256 i; i < list.length; ++i) {
            payees[i] = _payee(_mix(seed, 20 + i));
            all[i] = _fulfilment(b, list[i], _outcome(seed, i), payees[i]);
            if (_goes(list, i)) ++goes;
        }
        bytes memory data = abi.encodeCall(IComputeOracle.fulfilMany, (_settlement(a), b.identity, all));
        _judge("I5", "fulfilMany", _settles(b, a) && goes != 0, _settleBy(data));
        if (!_settles(b, a) || goes == 0) return;
        for (uint256 i; i < list.length; ++i) {
            if (_goes(list, i)) _settled(list[i], all[i], b.anchor);
        }
    }

    function fulfilBatch(uint256 seed) external action {
        (uint256 deal, uint256[] memory list) = _some(seed, true);
        if (list.length == 0) return;
        Agreement memory a = _termsOf(deals[deal].draft);
        Boot storage b = _worker(a, seed);
        Batch memory batch;
        (batch.agreementId, batch.payee, batch.anchor) = (deals[deal].id, _payee(seed), b.anchor);
        (batch.tasks, batch.results) = (new bytes32[](list.length), new bytes32[](list.length));
        uint256 goes;
        for (uint256 i; i < list.length; ++i) {
            batch.tasks[i] = jobs[list[i]].id;
            batch.results[i] = oracle.resultDigestOf(_outcomeOf(list[i], 1, batch.payee, b.anchor));
            if (_goes(list, i)) ++goes;
        }
        bytes memory signature = sign(b.key, oracle.batchDigestOf(batch));
        bytes memory data = abi.encodeCall(IComputeOracle.fulfilBatch, (_settlement(a), b.identity, batch, signature));
        _judge("I5", "fulfilBatch", _settles(b, a) && goes != 0, _settleBy(data));
        if (!_settles(b, a) || goes == 0) return;
        for (uint256 i; i < list.length; ++i) {
            if (_goes(list, i)) _succeeded(list[i], batch.results[i], batch.payee, b.anchor);
        }
    }

    /// @dev Everything right but for one thing.
    function settleWrongly(uint256 seed) external action {
        uint256 job = _openJob(seed);
        Agreement memory a = _termsOf(deals[jobs[job].deal].draft);
        Boot storage b = _worker(a, seed);
        uint256 twist = _mix(seed, 7) % 14;
        if (twist == 0) b = boots[rogue];
        IComputeOracle.Fulfilment memory f = _fulfilment(b, job, twist == 1 ? 2 : 1, payee);
        IComputeOracle.Settlement memory s = _settlement(a);
        IEnclaveRegistry.Identity memory identity = b.identity;
        if (twist == 1) f.request[0].requester = stranger;
        if (twist == 2) f.result.payee = stranger;
        if (twist == 3) s.price.failedFee += 1;
        if (twist == 4) s.tee.anyHost = !s.tee.anyHost;
        if (twist == 5) identity.measurement = ROGUE_MEASUREMENT;
        if (twist == 6) f.signature = sign(strangerKey, oracle.resultDigestOf(f.result));
        if (twist == 7) f.result.outcome = 3;
        if (twist == 8) f.result.outputs = new Out[](0);
        if (twist == 9) (f.publicOutputs, f.result.outputs[0].recipientsDigest) = (_bytes("other"), NO_RECIPIENTS);
        if (twist == 10) f.result.agreementId = keccak256("another");
        if (twist == 11) f.result.taskId = keccak256("never requested");
        if (twist == 12) f.result.payee = address(0);
        if (twist == 13) f.result.anchor = keccak256("no anchor");
        // Signed again, so that the signature is not what is wrong.
        if (twist > 6) f.signature = sign(b.key, oracle.resultDigestOf(f.result));
        bytes memory data = abi.encodeCall(IComputeOracle.fulfil, (s, identity, f));
        _hold(
            twist == 0 || twist > 3 && twist < 7 ? "I5: a wrong settlement" : "I6: a wrong settlement", !_settleBy(data)
        );
        touchedJobs.push(job);
    }

    /// @dev Whatever its state: nothing leaves a final one, nothing settles late.
    function settleAgain(uint256 seed) external action {
        uint256 job = _anyJob(seed);
        _settleOne(job, seed, _mix(seed, 6) % 2 == 0);
    }

    /// @dev In the last second of what an enclave's standing rests on, or in the next.
    function settleAtTheEnd(uint256 seed) external action {
        Boot storage b = boots[working[seed % 2]];
        uint256 deal = _openDeal(seed);
        Agreement memory a = _termsOf(deals[deal].draft);
        if (b.evidenceAt == 0 || !_settles(b, a)) b = _worker(a, seed);
        uint256 end = b.evidenceAt + a.tee.maxEvidenceAge;
        if (b.validUntil < end) end = b.validUntil;
        if (end > _now()) skip(end - _now() + _mix(seed, 6) % 2);
        uint256 count = jobs.length;
        _send(deal, a, _drawn(deal, a, _asker(deal, seed, 5), seed));
        if (jobs.length != count) _settleBy(count, a, b, seed, true);
    }

    function retryCallback(uint256 seed) external action {
        uint256 job = _failedCallback(seed);
        if (job == type(uint256).max) return;
        Job storage j = jobs[job];
        Caller caller = Caller(payable(requests[job].requester));
        uint256 mood = _mix(seed, 4) % 7;
        _mood(caller, mood);
        Result memory result = _outcomeOf(job, j.outcome, j.payee, j.anchor);
        bytes[] memory said = _said(job, j.outcome);
        bool byAnother = _mix(seed, 5) % 8 == 0;
        if (byAnother) result.payee = stranger;
        // With gas enough, what returns too much is no longer in the way.
        bool works = mood != 1 && mood != 2 && mood != 3;
        bytes memory data = abi.encodeCall(IComputeOracle.retryCallback, (requests[job], result, said));
        bool went = _settleBy(data);
        _judge("I8", "retryCallback", j.callbackFailed && works && !byAnother, went);
        if (went) j.callbackFailed = false;
        touchedJobs.push(job);
    }

    // Enclaves

    function renew(uint256 seed) external action {
        uint256 number = working[seed % 2];
        uint8 status = _mix(seed, 1) % 8 == 0 ? TcbStatus.SW_HARDENING_NEEDED : TcbStatus.UP_TO_DATE;
        if (_mix(seed, 2) % 32 == 0) evaluationNow = 18;
        Boot storage b = boots[number];
        bool expected = !b.retired;
        _judge("I5", "renew", expected, _register(number, status));
    }

    function retire(uint256 seed) external action {
        uint256 number = working[seed % 2];
        Boot storage b = boots[number];
        bool byOther = _mix(seed, 1) % 2 == 0;
        bytes memory signature =
            byOther ? sign(_mix(seed, 2) % 8 == 0 ? strangerKey : b.key, enclaves.retireDigest(b.signer)) : bytes("");
        bool expected = !b.retired && (!byOther || _mix(seed, 2) % 8 != 0);
        bool went = _as(
            byOther ? stranger : b.signer,
            address(enclaves),
            0,
            abi.encodeCall(IEnclaveRegistry.retire, (b.anchor, b.signer, signature))
        );
        _judge("I5", "retire", expected, went);
        if (went) b.retired = true;
    }

    function challenge(uint256 seed) external action {
        uint256 number = seed % 4 == 0 ? rogue : working[seed % 2];
        Boot storage b = boots[number];
        uint8[4] memory choices =
            [TcbStatus.SW_HARDENING_NEEDED, TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED];
        uint8 status = choices[_mix(seed, 1) % 4];
        IEvidenceVerifier.Judgement memory judgement = _judgement(status, b.evaluation + uint32(_mix(seed, 2) % 2));
        judgement.changedAt = _now();
        bytes memory proof = abi.encode(b.anchor, b.identity.svnDigest, judgement);
        bytes memory data =
            abi.encodeCall(IEnclaveRegistry.challenge, (b.anchor, b.signer, b.identity, address(verifier), proof));
        bool went = _as(stranger, address(enclaves), 0, data);
        _judge("I5", "challenge", !b.retired && status > b.status, went);
        if (!went) return;
        _stands(b, status, judgement.evaluation);
        if (status == TcbStatus.REVOKED) b.earlierStatus = 0;
    }

    // Inside

    function _register(uint256 number, uint8 status) internal override returns (bool went) {
        Boot storage b = boots[number];
        _nextBlock();
        uint256 parent = vm.getBlockNumber() - 1;
        IEnclaveRegistry.Registration memory r;
        (r.signer, r.sealingKey, r.operator) = (b.signer, b.identity.sealingKey, b.identity.operator);
        (r.blockNumber, r.blockHash) = (parent, blockhash(parent));
        r.operatorSignature =
            sign(b.identity.operator == operator ? operatorKey : otherOperatorKey, enclaves.hostDigest(b.signer));
        r.verifier = address(verifier);
        uint32 evaluation = evaluationNow > b.evaluation ? uint32(evaluationNow) : b.evaluation;
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        (c.anchor, c.measurement, c.platform) = (b.anchor, b.identity.measurement, b.identity.platform);
        c.reportData = enclaves.reportDataOf(b.signer, b.identity.sealingKey, r.blockHash);
        c.judgement = _judgement(status, evaluation);
        // Often less than the agreed age of evidence, so that each of the two is what ends it.
        uint40 validUntil = _now() + uint40(6 hours + parent % 4 * 14 hours);
        (c.judgement.validUntil, c.judgement.changedAt) = (validUntil, _now());
        r.evidence = abi.encode(c);
        r.proofOfPossession =
            sign(b.key, enclaves.enrolmentDigest(Enrolment(r.signer, r.sealingKey, r.blockHash, r.operator)));
        went = _as(relayer, address(enclaves), 0, abi.encodeCall(IEnclaveRegistry.register, (r)));
        if (!went) return false;
        (b.evidenceAt, b.validUntil) = (_now(), validUntil);
        _stands(b, status, evaluation);
    }

    /// @dev Mostly one that can settle: it boots anew, or renews.
    function _worker(Agreement memory a, uint256 seed) internal returns (Boot storage b) {
        b = boots[working[_mix(seed, 3) % 2]];
        if (_settles(b, a) || _mix(seed, 8) % 6 == 0) return b;
        b = boots[working[0]];
        if (_settles(b, a)) return b;
        if (evaluationNow < a.tee.evalFloor) evaluationNow = a.tee.evalFloor;
        if (b.retired) _boot(0);
        else require(_register(working[0], TcbStatus.UP_TO_DATE), "I5: a renewal");
        b = boots[working[0]];
    }

    function _settleOne(uint256 job, uint256 seed, bool succeeds) internal {
        Job storage j = jobs[job];
        Agreement memory a = _termsOf(deals[j.deal].draft);
        _settleBy(job, a, _worker(a, seed), seed, succeeds);
    }

    function _settleBy(uint256 job, Agreement memory a, Boot storage b, uint256 seed, bool succeeds) private {
        Job storage j = jobs[job];
        IComputeOracle.Fulfilment memory f = _fulfilment(b, job, succeeds ? 1 : 2, _payee(seed));
        bool expected = j.state == TaskState.REQUESTED && _inTime(job) && _settles(b, a);
        bytes memory data = abi.encodeCall(IComputeOracle.fulfil, (_settlement(a), b.identity, f));
        bool went = _settleBy(data);
        string memory invariant = j.state != TaskState.REQUESTED ? "I2" : went ? "I5" : "I8";
        _judge(invariant, succeeds ? "fulfil" : "fulfil a failure", expected, went);
        if (went) _settled(job, f, b.anchor);
        touchedJobs.push(job);
    }

    function _settleBy(bytes memory data) private returns (bool) {
        return _as(relayer, address(oracle), 0, PLENTY, data);
    }

    function _settled(uint256 job, IComputeOracle.Fulfilment memory f, bytes32 anchor) private {
        bytes32 digest = oracle.resultDigestOf(f.result);
        if (f.result.outcome == 1) _succeeded(job, digest, f.result.payee, anchor);
        else _failed(job, digest, f.result.payee, anchor);
        if (requests[job].callback == address(0)) return;
        Caller caller = Caller(payable(requests[job].callback));
        // With a capped gas, four of its moods fail.
        uint256 mood = uint256(caller.act());
        jobs[job].callbackFailed = mood >= 1 && mood <= 4;
    }

    function _mood(Caller caller, uint256 mood) private {
        caller.set(Caller.Act(mood));
        bytes memory entry = abi.encodeCall(IComputeOracle.withdraw, (address(0), stranger));
        if (mood == 5) caller.enter(address(oracle), entry);
    }

    function _fulfilment(Boot storage b, uint256 job, uint8 outcome, address to)
        private
        view
        returns (IComputeOracle.Fulfilment memory f)
    {
        f.result = _outcomeOf(job, outcome, to, b.anchor);
        f.signature = sign(b.key, oracle.resultDigestOf(f.result));
        f.publicOutputs = _said(job, outcome);
        if (outcome == 1 && requests[job].callback == address(0)) return f;
        f.request = new TaskRequest[](1);
        f.request[0] = requests[job];
    }

    function _outcomeOf(uint256 job, uint8 outcome, address to, bytes32 anchor)
        private
        view
        returns (Result memory result)
    {
        Job storage j = jobs[job];
        (result.agreementId, result.taskId, result.outcome) = (deals[j.deal].id, j.id, outcome);
        (result.payee, result.anchor) = (to, anchor);
        if (outcome != 1) return result;
        result.outputs = new Out[](1);
        result.outputs[0] = Out("table", OutputKind.ARROW_TABLE, keccak256("recipients"), 4096, keccak256("output"));
        if (deals[j.deal].draft.kind != PUBLISHED) return result;
        result.outputs[0] = Out("table", OutputKind.ABI_VALUES, NO_RECIPIENTS, 32, sha256(abi.encode(job)));
    }

    function _said(uint256 job, uint8 outcome) private view returns (bytes[] memory) {
        if (outcome != 1 || deals[jobs[job].deal].draft.kind != PUBLISHED) return new bytes[](0);
        return _bytes(abi.encode(job));
    }

    function _bytes(bytes memory content) private pure returns (bytes[] memory list) {
        list = new bytes[](1);
        list[0] = content;
    }

    /// @dev A token can be paid, too.
    function _payee(uint256 seed) private view returns (address) {
        return [payee, otherPayee, payee, address(reentrant)][seed % 4];
    }

    function _outcome(uint256 seed, uint256 i) private pure returns (uint8) {
        return _mix(seed, 40 + i) % 4 == 0 ? 2 : 1;
    }

    /// @dev Up to six tasks of one agreement, settled and late ones among them, and perhaps one twice.
    /// @param plain without those that call back
    function _some(uint256 seed, bool plain) private returns (uint256 deal, uint256[] memory list) {
        for (uint256 i; i < 2; ++i) {
            _ask(_mix(seed, 30 + i));
        }
        if (jobs.length == 0) return (0, new uint256[](0));
        deal = jobs[jobs.length - 1].deal;
        if (plain && deals[deal].draft.kind == PUBLISHED) return (0, new uint256[](0));
        list = new uint256[](6);
        uint256 count;
        for (uint256 i = jobs.length; i > 0 && count < 6; --i) {
            if (jobs[i - 1].deal != deal || plain && requests[i - 1].callback != address(0)) continue;
            list[count++] = i - 1;
        }
        if (count > 1 && count < 6 && seed % 2 == 0) list[count++] = list[0];
        assembly ("memory-safe") {
            mstore(list, count)
        }
    }

    /// @dev Whether this one of the list is settled: waiting, in time, and not a second time (I6).
    function _goes(uint256[] memory list, uint256 index) private view returns (bool) {
        for (uint256 i; i < index; ++i) {
            if (list[i] == list[index]) return false;
        }
        // Asked before and after the settlement: the model moves in the list's order, and each is moved once.
        return jobs[list[index]].state == TaskState.REQUESTED && _inTime(list[index]);
    }

    function _failedCallback(uint256 seed) private returns (uint256 job) {
        for (uint256 i; i < jobs.length; ++i) {
            job = (seed % jobs.length + i) % jobs.length;
            if (jobs[job].callbackFailed) return job;
        }
        if (seed % 8 == 0) return _anyCallback();
        _askCallingBack(seed);
        if (jobs.length == 0) return type(uint256).max;
        job = jobs.length - 1;
        if (requests[job].callback == address(0)) return _anyCallback();
        _mood(Caller(payable(requests[job].callback)), 1);
        _settleOne(job, seed, true);
    }

    function _anyCallback() private view returns (uint256 job) {
        for (job = 0; job < jobs.length; ++job) {
            if (requests[job].callback != address(0)) return job;
        }
        return type(uint256).max;
    }
}
