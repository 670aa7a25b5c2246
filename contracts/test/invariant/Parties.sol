// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {Model} from "./Model.sol";

/// @title What parties do: consent, narrow, publish
abstract contract Parties is Model {
    /// @dev The parties of an earlier or a new draft, each by a signature, ahead, or as the caller.
    function activate(uint256 seed) external action {
        uint256 deal = _draft(seed);
        if (deal == MAX_DEALS) return;
        Deal storage d = deals[deal];
        address[] memory parties = _partiesOf(d.draft.kind);
        bytes[] memory signatures = new bytes[](parties.length);
        // The wallet has no transactions of its own here.
        address sender = parties[seed % 2];
        bool consented = true;
        for (uint256 i; i < parties.length; ++i) {
            bool ahead = d.approvedBy >> i & 1 == 1 || parties[i] == sender;
            if (!ahead || _mix(seed, 10 + i) % 2 == 0) signatures[i] = sign(_keyOf(parties[i]), d.id);
            if (d.revokedBy >> i & 1 == 1) consented = false;
        }
        bool inTime = _now() <= d.draft.from + 10 days && _now() < d.draft.until;
        bytes memory data = abi.encodeCall(IAgreementRegistry.activate, (_termsOf(d.draft), signatures, _noAuditors()));
        bool went = _as(sender, address(registry), 0, data);
        _judge("I7", "activate", consented && inTime, went);
        if (went) _activated(deal);
        else d.life = Life.Dead;
    }

    /// @dev A party of a draft approves it, has its signature kept, or revokes it.
    function consentAhead(uint256 seed) external action {
        uint256 deal = _draft(seed);
        if (deal == MAX_DEALS) return;
        Deal storage d = deals[deal];
        address[] memory parties = _partiesOf(d.draft.kind);
        uint256 i = _mix(seed, 1) % parties.length;
        bool revoked = d.revokedBy >> i & 1 == 1;
        bytes memory data;
        address sender = parties[i];
        uint256 how = _mix(seed, 2) % 8;
        if (how == 0) data = abi.encodeCall(IAgreementRegistry.revoke, (d.id));
        else if (how < 4) data = abi.encodeCall(IAgreementRegistry.approve, (d.id));
        else (sender, data) = (relayer, _signed(d.id, parties[i]));
        bool went = _as(sender, address(registry), 0, data);
        _judge("I7", "consent ahead", !revoked, went);
        if (!went) return;
        if (how == 0) d.revokedBy |= uint8(1 << i);
        else d.approvedBy |= uint8(1 << i);
        touchedDeals.push(deal);
    }

    function suspendOrResume(uint256 seed) external action {
        if (deals.length == 0) _openDeal(seed);
        uint256 deal = _living(seed);
        Deal storage d = deals[deal];
        (address who, uint256 i) = _party(d, seed);
        bool suspended = d.suspendedBy >> i & 1 == 1;
        // Mostly what it did not do yet; a suspension mostly ends.
        bool resumes = _mix(seed, 3) % 8 == 0 ? !suspended : suspended;
        bytes memory data = resumes
            ? abi.encodeCall(IAgreementRegistry.resume, (d.id))
            : abi.encodeCall(IAgreementRegistry.suspend, (d.id));
        bool went = _as(who, address(registry), 0, data);
        _judge("I4", resumes ? "resume" : "suspend", d.life == Life.Active && resumes == suspended, went);
        if (went) d.suspendedBy ^= uint8(1 << i);
        touchedDeals.push(deal);
    }

    function revoke(uint256 seed) external action {
        if (deals.length == 0) _openDeal(seed);
        uint256 deal = _living(seed);
        Deal storage d = deals[deal];
        (address who, uint256 i) = _party(d, seed);
        bool fresh = d.life == Life.Active || d.life == Life.Draft || d.life == Life.Dead;
        bool expected = fresh && d.revokedBy >> i & 1 == 0;
        bool went = _as(who, address(registry), 0, abi.encodeCall(IAgreementRegistry.revoke, (d.id)));
        _judge("I11", "revoke", expected, went);
        if (went) {
            d.revokedBy |= uint8(1 << i);
            if (d.life == Life.Active) d.life = Life.Revoked;
        }
        touchedDeals.push(deal);
    }

    function drop(uint256 seed) external action {
        if (deals.length == 0) _openDeal(seed);
        uint256 deal = _living(seed);
        Deal storage d = deals[deal];
        (address who,) = _party(d, seed);
        bool host = _mix(seed, 3) % 2 == 0;
        bytes32 what = host ? bytes32(uint256(uint160(operator))) : MEASUREMENT;
        if (_mix(seed, 4) % 2 == 0) what = keccak256(abi.encode(seed % 16));
        bytes memory data = host
            ? abi.encodeCall(IAgreementRegistry.dropHost, (d.id, what))
            : abi.encodeCall(IAgreementRegistry.dropMeasurement, (d.id, what));
        bool went = _as(who, address(registry), 0, data);
        _judge("I11", "drop", d.life == Life.Active && !isDropped[deal][what], went);
        if (went) {
            isDropped[deal][what] = true;
            dropped[deal].push(what);
        }
        touchedDeals.push(deal);
    }

    function publish(uint256 seed) external action {
        _publish(seed % (deals.length / 10 + 1));
    }

    function withdrawVersion(uint256 seed) external action {
        uint256 era = seed % (deals.length / 10 + 1);
        Published[] storage list = published[era];
        while (list.length < 3) {
            _publish(era);
        }
        uint256 index = _mix(seed, 1) % list.length;
        // What a pinned agreement needs mostly stays.
        if (index == 0 && _mix(seed, 2) % 4 != 0) index = list.length - 1;
        bool went = _as(
            hospitalA, address(streams), 0, abi.encodeCall(streams.withdraw, (_streamName(era), uint64(index + 1)))
        );
        _judge("I9", "withdraw a version", !list[index].withdrawn, went);
        list[index].withdrawn = true;
    }

    /// @return MAX_DEALS where there is none, and no room for another
    function _draft(uint256 seed) internal returns (uint256) {
        for (uint256 i; i < deals.length; ++i) {
            uint256 deal = (seed % deals.length + i) % deals.length;
            if (deals[deal].life == Life.Draft) return deal;
        }
        return deals.length < MAX_DEALS ? _draftFrom(seed) : MAX_DEALS;
    }

    /// @dev Mostly one that is active.
    function _living(uint256 seed) internal view returns (uint256 deal) {
        for (uint256 i; i < deals.length && seed % 8 != 0; ++i) {
            deal = (seed % deals.length + i) % deals.length;
            if (deals[deal].life == Life.Active) return deal;
        }
        return seed % deals.length;
    }

    /// @dev One that can send transactions.
    function _party(Deal storage d, uint256 seed) private view returns (address, uint256) {
        address[] memory parties = _partiesOf(d.draft.kind);
        uint256 i = _mix(seed, 1) % parties.length;
        // Whoever suspended comes first: it is the only one that can resume.
        for (uint256 j; j < parties.length && _mix(seed, 2) % 4 != 0; ++j) {
            if (d.suspendedBy >> j & 1 == 1) i = j;
        }
        return (parties[i], i);
    }

    function _signed(bytes32 id, address party) private view returns (bytes memory) {
        return abi.encodeCall(IAgreementRegistry.sign, (id, party, sign(_keyOf(party), id)));
    }
}
