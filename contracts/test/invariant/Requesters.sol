// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../../src/libraries/Constants.sol";
import {Parties} from "./Parties.sol";

/// @title What requesters, those who relay for them and contracts do
abstract contract Requesters is Parties {
    /// @dev Under any agreement, also one that takes none; mostly one that does. And under one that is not valid now, if there is one.
    function request(uint256 seed) external action {
        for (uint256 i; i < 1 + seed % 2; ++i) {
            _ask(_mix(seed, i));
        }
        for (uint256 i; i < deals.length; ++i) {
            Deal storage d = deals[i];
            if (d.life != Life.Active || d.suspendedBy != 0 || _now() >= d.draft.from && _now() < d.draft.until) {
                continue;
            }
            Agreement memory a = _termsOf(d.draft);
            _send(i, a, _drawn(i, a, _asker(i, seed, 5), seed));
            return;
        }
    }

    /// @dev A relayer brings it; a token's fee by allowance, permit or authorization.
    function requestRelayed(uint256 seed) external action {
        uint256 deal = _openDeal(seed);
        Agreement memory a = _termsOf(deals[deal].draft);
        TaskRequest memory r = _drawn(deal, a, _asker(deal, seed, 3), seed);
        bytes32 id = oracle.taskIdOf(r);
        IComputeOracle.Payment memory payment = _payment(a, r, id, seed);
        bool expected = _mayAsk(deal, a, r) && _pays(a.price.token);
        bytes memory data = abi.encodeCall(
            IComputeOracle.requestFor, (r, _admissionOf(a, r.requester), "", sign(_keyOf(r.requester), id), payment)
        );
        uint256 value = a.price.token == address(0) ? a.price.fee : 0;
        bool went = _as(relayer, address(oracle), value, data);
        _judge("I4", "requestFor", expected, went);
        if (went) _requested(deal, a, r);
    }

    function requestCallingBack(uint256 seed) external action {
        _askCallingBack(seed);
    }

    function _askCallingBack(uint256 seed) internal {
        uint256 deal = _openDeal(seed);
        Agreement memory a = _termsOf(deals[deal].draft);
        address who = address(callers[seed % 2]);
        TaskRequest memory r = _drawn(deal, a, who, seed);
        (r.callback, r.callbackGas) = (who, 400_000);
        _send(deal, a, r);
    }

    /// @dev A valid request with one thing wrong.
    function requestWrongly(uint256 seed) external action {
        uint256 deal = _openDeal(seed);
        Agreement memory a = _termsOf(deals[deal].draft);
        TaskRequest memory r = _drawn(deal, a, _asker(deal, seed, 5), seed);
        IAgreementRegistry.Admission memory admission = _admissionOf(a, r.requester);
        uint256 value = a.price.token == address(0) ? a.price.fee : 0;
        address sender = r.requester;
        uint256 twist = _mix(seed, 7) % 12;
        if (twist == 0) r.versions[0] = keccak256("never published");
        if (twist == 1) r.spend = r.spend == 0 ? 1 : 41;
        if (twist == 2) admission.quota += 90;
        if (twist == 2 && deals[deal].draft.kind != LISTED) admission.requesters = _leaf(r.requester, admission.quota);
        if (twist == 3) ++value;
        if (twist == 4) (r.maxFee, value) = a.price.fee == 0 ? (0, 1) : (a.price.fee - 1, value);
        if (twist == 5) r.asOf = _now() + 1;
        if (twist == 6) r.asOf = _now() - 1 hours - 1;
        if (twist == 7) r.deadline = _now();
        if (twist == 8) r.deadline = _now() + 30 days + 1;
        if (twist == 9) sender = stranger;
        if (twist == 10) (r.callback, r.callbackGas) = (address(callers[sender == address(callers[0]) ? 1 : 0]), 1);
        if (twist == 11) r.agreementId = keccak256(abi.encode(r.agreementId));
        bool went = _as(sender, address(oracle), value, abi.encodeCall(IComputeOracle.request, (r, admission, "")));
        _hold("I4: a wrong request went through", !went);
        touchedDeals.push(deal);
    }

    /// @dev Any version that was ever published, withdrawn ones too.
    function requestAnyVersion(uint256 seed) external action {
        uint256 deal = _openDeal(seed);
        Deal storage d = deals[deal];
        Agreement memory a = _termsOf(d.draft);
        TaskRequest memory r = _drawn(deal, a, _asker(deal, seed, 5), seed);
        Published[] storage list = published[d.draft.era];
        if (a.data[0].policy != 1) r.versions[0] = list[_mix(seed, 8) % list.length].id;
        _send(deal, a, r);
    }

    /// @dev The same request a second time.
    function requestAgain(uint256 seed) external action {
        uint256 job = _anyJob(seed);
        TaskRequest memory r = requests[job];
        Agreement memory a = _termsOf(deals[jobs[job].deal].draft);
        uint256 value = a.price.token == address(0) ? a.price.fee : 0;
        bytes memory data = abi.encodeCall(IComputeOracle.request, (r, _admissionOf(a, r.requester), ""));
        _hold("I2: a task was requested twice", !_as(r.requester, address(oracle), value, data));
        touchedJobs.push(job);
    }

    function cancel(uint256 seed) external action {
        // The newest: others are mostly too late.
        uint256 job = jobs.length == 0 || _mix(seed, 1) % 2 == 0 ? _ask(seed) : jobs.length - 1;
        if (job == type(uint256).max) return;
        Job storage j = jobs[job];
        TaskRequest memory r = requests[job];
        Agreement memory a = _termsOf(deals[j.deal].draft);
        bool byOther = _mix(seed, 2) % 16 == 0;
        bool expected = !byOther && j.state == TaskState.REQUESTED && vm.getBlockNumber() <= j.cancelUntil;
        bool went = _as(
            byOther ? stranger : r.requester,
            address(oracle),
            0,
            abi.encodeCall(IComputeOracle.cancel, (r, _admissionOf(a, r.requester)))
        );
        _judge("I10", "cancel", expected, went);
        if (went) _cancelled(job);
        touchedJobs.push(job);
    }

    // Inside

    /// @return job the newest where the last request was refused
    function _ask(uint256 seed) internal returns (uint256 job) {
        // Mostly where it can succeed.
        uint256 deal = _mix(seed, 6) % 8 == 0 && deals.length != 0 ? seed % deals.length : _openDeal(seed);
        Agreement memory a = _termsOf(deals[deal].draft);
        TaskRequest memory r = _drawn(deal, a, _asker(deal, seed, 5), seed);
        return _send(deal, a, r);
    }

    function _send(uint256 deal, Agreement memory a, TaskRequest memory r) internal returns (uint256 job) {
        bool expected = _mayAsk(deal, a, r) && (_pays(a.price.token) || a.price.fee == 0);
        uint256 value = a.price.token == address(0) ? a.price.fee : 0;
        bytes memory data = abi.encodeCall(IComputeOracle.request, (r, _admissionOf(a, r.requester), ""));
        bool went = _as(r.requester, address(oracle), value, data);
        string memory invariant =
            _areTaken(a, deals[deal].draft.era, r.versions) ? _isOpen(deals[deal]) ? "I3" : "I4" : "I9";
        _judge(invariant, "request", expected, went);
        if (went) return _requested(deal, a, r);
        touchedDeals.push(deal);
        return jobs.length == 0 ? type(uint256).max : jobs.length - 1;
    }

    /// @dev Somebody with quota left, if anybody has.
    function _asker(uint256 deal, uint256 seed, uint256 among) internal view returns (address who) {
        Deal storage d = deals[deal];
        for (uint256 i; i < among; ++i) {
            who = people[(_mix(seed, 9) + i) % among];
            if (askedBy[deal][who] < _limitOf(d, who)) return who;
        }
    }

    function _drawn(uint256 deal, Agreement memory a, address who, uint256 seed)
        internal
        view
        returns (TaskRequest memory r)
    {
        Deal storage d = deals[deal];
        r.agreementId = d.id;
        r.requester = who;
        r.nonce = bytes32(jobs.length);
        r.versions = _goodVersions(a, d.draft.era, seed);
        if (a.data[0].budget != 0) {
            r.spend = 1 + _mix(seed, 3) % 3;
            while (r.spend > 1 && !_isAffordable(a, r.spend)) --r.spend;
        }
        r.maxFee = a.price.fee;
        r.asOf = _now();
        r.deadline = _now() + uint64(10 minutes + _mix(seed, 4) % 3 hours);
    }

    function _payment(Agreement memory a, TaskRequest memory r, bytes32 id, uint256 seed)
        private
        view
        returns (IComputeOracle.Payment memory p)
    {
        if (a.price.token != address(coin)) return p;
        p.kind = uint8(_mix(seed, 5) % 3);
        p.deadline = _now() + 1 hours;
        p.value = type(uint256).max;
        bytes32 digest = p.kind == 1
            ? coin.permitDigest(r.requester, address(oracle), p.value, p.deadline)
            : coin.authorizationDigest(r.requester, address(oracle), a.price.fee, 0, p.deadline, id);
        if (p.kind != 0) (p.v, p.r, p.s) = vm.sign(_keyOf(r.requester), digest);
    }

    /// @dev Some task, whatever its state. It may be that none of the agreements takes a request now.
    function _anyJob(uint256 seed) internal returns (uint256) {
        for (uint256 i; jobs.length == 0; ++i) {
            if (i % 16 == 15) _openPlainDeal(_mix(seed, i));
            _ask(_mix(seed, i));
        }
        return seed % jobs.length;
    }

    /// @dev A task that waits, mostly one that is in time.
    function _openJob(uint256 seed) internal returns (uint256 job) {
        uint256 count = jobs.length;
        for (uint256 i; i < count; ++i) {
            job = (seed % count + i) % count;
            if (jobs[job].state == TaskState.REQUESTED && _inTime(job)) return job;
        }
        job = _ask(seed);
        return job == type(uint256).max ? _anyJob(seed) : job;
    }

    function _inTime(uint256 job) internal view returns (bool) {
        return _now() <= requests[job].deadline;
    }
}
