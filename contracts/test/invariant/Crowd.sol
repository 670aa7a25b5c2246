// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Outsiders} from "./Outsiders.sol";

/// @title Everyone at once
contract Crowd is Outsiders {
    constructor() {
        setUp();
    }

    /// @notice Reverts with the number of an invariant that what the last action touched does not hold.
    function checkTouched() external view {
        for (uint256 i; i < tokens.length; ++i) {
            _checkMoney(tokens[i]);
        }
        for (uint256 i; i < touchedDeals.length; ++i) {
            _checkDeal(touchedDeals[i]);
        }
        for (uint256 i; i < touchedJobs.length; ++i) {
            _checkJob(touchedJobs[i]);
        }
        for (uint256 i; i < touchedHolders.length; ++i) {
            _checkHolder(touchedHolders[i].token, touchedHolders[i].account);
        }
        _hold("I8: the token got in", !reentrant.entered());
        for (uint256 i; i < callers.length; ++i) {
            _hold("I8: a consumer got in", keccak256(callers[i].seen()) != keccak256("entered"));
        }
    }

    /// @notice The same of everything there is.
    function checkAll() external view {
        for (uint256 i; i < deals.length; ++i) {
            _checkDeal(i);
        }
        for (uint256 i; i < jobs.length; ++i) {
            _checkJob(i);
        }
        for (uint256 i; i < tokens.length; ++i) {
            _checkMoney(tokens[i]);
            uint256 pools;
            uint256 escrows;
            uint256 balances;
            for (uint256 j; j < deals.length; ++j) {
                if (deals[j].token == tokens[i]) pools += oracle.poolOf(deals[j].id);
            }
            for (uint256 j; j < jobs.length; ++j) {
                if (deals[jobs[j].deal].token != tokens[i]) continue;
                escrows += oracle.task(deals[jobs[j].deal].id, jobs[j].id).escrow;
            }
            for (uint256 j; j < people.length; ++j) {
                _checkHolder(tokens[i], people[j]);
                balances += oracle.balanceOf(tokens[i], people[j]);
            }
            uint256 owed = pools + escrows + balances;
            _hold("I1: what the contract itself says it owes", moneyIn[tokens[i]] == moneyOut[tokens[i]] + owed);
        }
    }
}
