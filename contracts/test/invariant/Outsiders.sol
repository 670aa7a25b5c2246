// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Price} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../../src/libraries/Constants.sol";
import {Coin} from "../utils/Tokens.sol";
import {Workers} from "./Workers.sol";

/// @title What anyone can do, what must not work for anyone, tokens' moods, and time
abstract contract Outsiders is Workers {
    function expire(uint256 seed) external action {
        uint256 job = _lateJob(seed);
        Job storage j = jobs[job];
        Agreement memory a = _termsOf(deals[j.deal].draft);
        bool otherPrice = _mix(seed, 1) % 16 == 0;
        if (otherPrice) a.price.minFee = a.price.fee + 1;
        bool expected = !otherPrice && j.state == TaskState.REQUESTED && !_inTime(job);
        bytes memory data = abi.encodeCall(IComputeOracle.expire, (requests[job], _pricing(a)));
        bool went = _as(stranger, address(oracle), 0, data);
        _judge("I2", "expire", expected, went);
        if (went) _expired(job);
        touchedJobs.push(job);
    }

    function distribute(uint256 seed) external action {
        uint256 deal = _openDeal(seed);
        // Mostly one that has something.
        for (uint256 i; i < deals.length && seed % 8 != 0; ++i) {
            deal = (seed % deals.length + i) % deals.length;
            if (deals[deal].pool > 4) break;
        }
        Deal storage d = deals[deal];
        Price memory price = _termsOf(d.draft).price;
        bool otherPrice = _mix(seed, 1) % 16 == 0 && price.to.length != 0;
        uint256 amount;
        for (uint256 i; i < price.to.length; ++i) {
            amount += d.pool * price.bps[i] / d.shares;
        }
        Agreement memory a = _termsOf(d.draft);
        if (otherPrice) a.price.to[0] = stranger;
        bytes memory data = abi.encodeCall(IComputeOracle.distribute, (d.id, _pricing(a)));
        bool went = _as(stranger, address(oracle), 0, data);
        // A draft has no pool, nor terms to share it by.
        _judge("I6", "distribute", amount != 0 && !otherPrice, went);
        touchedDeals.push(deal);
        if (!went) return;
        uint256 pool = d.pool;
        for (uint256 i; i < price.to.length; ++i) {
            _credit(d.token, price.to[i], pool * price.bps[i] / d.shares);
        }
        d.pool -= amount;
        pooled[d.token] -= amount;
    }

    function withdraw(uint256 seed) external action {
        (address token, address who) = _holder(seed);
        uint256 amount = creditOf[token][who];
        address to = people[_mix(seed, 2) % people.length];
        bool expected = amount != 0 && (token != address(refusing) || !refusing.refuses());
        bytes memory data = abi.encodeCall(IComputeOracle.withdraw, (token, to));
        // The one that has no way to take coins.
        if (token == address(0) && to == address(reentrant)) expected = false;
        bool went = _as(who, address(oracle), 0, data);
        _judge("I1", "withdraw", expected, went);
        touchedHolders.push(Holder(token, who));
        if (!went) return;
        creditOf[token][who] = 0;
        credited[token] -= amount;
        moneyOut[token] += amount;
    }

    function wait(uint256 seed) external action {
        for (uint256 i; i < 1 + seed % 4; ++i) {
            _nextBlock();
        }
    }

    /// @dev Hours without a block, seldom a day or two.
    function jump(uint256 seed) external action {
        skip(_mix(seed, 1) % 16 == 0 ? 1 days + _mix(seed, 2) % 2 days : _mix(seed, 2) % 2 hours);
        _nextBlock();
    }

    /// @dev Tokens get moods, and somebody asks at once. The reentrant one tries to take its own balance while it is called.
    function upset(uint256 seed) external action {
        bool bad = _mix(seed, 1) % 3 == 0;
        if (seed % 3 == 0) taxed.set(bad ? 100 : 0);
        if (seed % 3 == 1) refusing.set(bad);
        bytes memory entry = abi.encodeCall(IComputeOracle.withdraw, (address(reentrant), stranger));
        if (seed % 3 == 2) reentrant.set(bad ? address(0) : address(oracle), entry);
        address token = [address(taxed), address(refusing), address(reentrant)][seed % 3];
        for (uint256 i; i < deals.length; ++i) {
            if (deals[i].token != token || !_isOpen(deals[i])) continue;
            Agreement memory a = _termsOf(deals[i].draft);
            _send(i, a, _drawn(i, a, _asker(i, seed, 5), seed));
            return;
        }
    }

    /// @dev What somebody sends without asking is nobody's. Not the reentrant token: outside a move it may take its balance.
    function donate(uint256 seed) external action {
        address token = tokens[seed % 2];
        uint256 amount = 1 + _mix(seed, 1) % FEE;
        if (token == address(0)) vm.deal(address(oracle), address(oracle).balance + amount);
        else Coin(token).mint(address(oracle), amount);
        given[token] += amount;
    }

    /// @dev An agreement that the parties signed, changed in one thing; or one of a stranger's own that would end theirs.
    function forgeConsent(uint256 seed) external action {
        uint256 deal = _draft(seed);
        if (deal == MAX_DEALS) deal = _mix(seed, 1) % deals.length;
        Deal storage d = deals[deal];
        Agreement memory a = _termsOf(d.draft);
        address[] memory parties = _partiesOf(d.draft.kind);
        bytes[] memory signatures = new bytes[](parties.length);
        for (uint256 i; i < parties.length; ++i) {
            signatures[i] = sign(_keyOf(parties[i]), d.id);
        }
        uint256 twist = _mix(seed, 2) % 18;
        if (twist == 0) a.access.quota += 1;
        if (twist == 1) a.price.fee += 1;
        if (twist == 2) a.data[0].budget += 1;
        if (twist == 3) a.tee.measurements[0] = ROGUE_MEASUREMENT;
        if (twist == 4) a.tee.statusMask |= 1 << 5;
        if (twist == 5) a.notAfter += 1;
        if (twist == 6) a.fn.id = keccak256("another function");
        if (twist == 7) a.data[1].idOrStream = keccak256("another dataset");
        if (twist == 8) a.keys.releaseDelay += 1;
        if (twist == 9) a.outputs[0].owners[0] = stranger;
        if (twist == 10) a.salt = keccak256(abi.encode(a.salt));
        if (twist == 11) (signatures[0], signatures[1]) = (signatures[1], signatures[0]);
        if (twist == 12) signatures[parties.length - 1] = signatures[0];
        if (twist == 13) signatures[0] = sign(strangerKey, d.id);
        if (twist == 14) (a.fn.owner, signatures[0]) = (stranger, sign(strangerKey, d.id));
        if (twist == 15) signatures = new bytes[](parties.length - 1);
        if (twist == 16) (a, signatures) = _ofStranger(a, deals[_living(seed | 1)].id);
        if (twist == 17) a.keys.threshold = 1;
        bytes memory data = abi.encodeCall(IAgreementRegistry.activate, (a, signatures, _noAuditors()));
        _hold("I7: consent was used for something else", !_as(stranger, address(registry), 0, data));
        touchedDeals.push(deal);
    }

    /// @dev An agreement once activated cannot be again, whatever became of it.
    function activateAgain(uint256 seed) external action {
        if (deals.length == 0) _openDeal(seed);
        uint256 deal = _mix(seed, 1) % deals.length;
        for (uint256 i; i < deals.length && deals[deal].life == Life.Draft; ++i) {
            deal = (deal + 1) % deals.length;
        }
        Deal storage d = deals[deal];
        if (d.life == Life.Draft || d.life == Life.Dead && d.revokedBy == 0) return;
        address[] memory parties = _partiesOf(d.draft.kind);
        bytes[] memory signatures = new bytes[](parties.length);
        for (uint256 i; i < parties.length; ++i) {
            signatures[i] = sign(_keyOf(parties[i]), d.id);
        }
        bytes memory data = abi.encodeCall(IAgreementRegistry.activate, (_termsOf(d.draft), signatures, _noAuditors()));
        _hold("I11: an agreement came back", !_as(stranger, address(registry), 0, data));
        touchedDeals.push(deal);
    }

    /// @dev A stranger tries what parties and the oracle do.
    function meddle(uint256 seed) external action {
        uint256 deal = _openDeal(seed);
        Deal storage d = deals[deal];
        Agreement memory a = _termsOf(d.draft);
        bytes32[] memory versions = _goodVersions(a, d.draft.era, seed);
        IAgreementRegistry.Admission memory admission = _admissionOf(a, requester);
        uint256 amount = a.data[0].budget == 0 ? 0 : 1;
        bytes memory data = [
            abi.encodeCall(IAgreementRegistry.suspend, (d.id)),
            abi.encodeCall(IAgreementRegistry.resume, (d.id)),
            abi.encodeCall(IAgreementRegistry.revoke, (d.id)),
            abi.encodeCall(IAgreementRegistry.dropMeasurement, (d.id, MEASUREMENT)),
            abi.encodeCall(IAgreementRegistry.dropHost, (d.id, PLATFORM)),
            abi.encodeCall(IAgreementRegistry.spend, (d.id, requester, versions, amount, admission)),
            abi.encodeCall(IAgreementRegistry.unspend, (d.id, requester, versions, amount, admission))
        ][_mix(seed, 1) % 7];
        _hold("I7: a stranger moved an agreement", !_as(stranger, address(registry), 0, data));
        touchedDeals.push(deal);
    }

    /// @dev Its own, signed by itself, which names one of the parties' as predecessor.
    function _ofStranger(Agreement memory a, bytes32 victim)
        private
        view
        returns (Agreement memory, bytes[] memory signatures)
    {
        a.fn.owner = stranger;
        for (uint256 i; i < a.data.length; ++i) {
            a.data[i].owner = stranger;
        }
        a.supersedes = victim;
        a.salt = keccak256("stranger's");
        (a.notBefore, a.notAfter, a.activateBefore) = (_now(), _now() + 1 days, _now() + 1 days);
        signatures = new bytes[](1);
        signatures[0] = sign(strangerKey, registry.agreementIdOf(a));
        return (a, signatures);
    }

    /// @dev Mostly one that waits past its deadline: time goes on for it.
    function _lateJob(uint256 seed) private returns (uint256 job) {
        if (_mix(seed, 3) % 4 == 0) return _anyJob(seed);
        job = _openJob(seed);
        for (uint256 i; i < jobs.length; ++i) {
            uint256 index = (seed % jobs.length + i) % jobs.length;
            if (jobs[index].state == TaskState.REQUESTED && !_inTime(index)) return index;
        }
        if (jobs[job].state == TaskState.REQUESTED && _inTime(job)) skip(requests[job].deadline - _now() + seed % 2);
    }

    /// @dev Mostly somebody with a balance.
    function _holder(uint256 seed) private view returns (address token, address who) {
        uint256 all = tokens.length * people.length;
        for (uint256 i; i < all; ++i) {
            uint256 index = (seed % all + i) % all;
            (token, who) = (tokens[index % tokens.length], people[index / tokens.length]);
            if (creditOf[token][who] != 0 || seed % 16 == 0) return (token, who);
        }
    }
}
