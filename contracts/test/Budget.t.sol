// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {DatasetPolicy} from "../src/libraries/Constants.sol";
import {Spending} from "./Spending.sol";

/// @notice The ledger of (owner, lineage), and what never comes back (R9).
contract BudgetTest is Spending {
    /// What a fuzzed order of moves should leave behind.
    uint256[] private open;
    uint256 private spent;

    function test_spendsTheBudgetOfBudgetedDataOnly() public {
        bytes32 id = _activateBudgeted(100);
        vm.expectEmit(address(registry));
        emit I.BudgetMoved(id, hospitalA, LINEAGE, 30);
        _spend(id, 30, _admission(a));
        vm.expectEmit(address(registry));
        emit I.BudgetMoved(id, hospitalA, LINEAGE, 55);
        _spend(id, 25, _admission(a));
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 55);
        assertEq(registry.budgetSpent(hospitalB, a.data[1].lineage), 0);
    }

    function test_spendsUpToTheBudgetAndNoMore() public {
        bytes32 id = _activateBudgeted(100);
        _refuses(id, 101, _admission(a), _overBudget(0, 101, 100));
        _spend(id, 60, _admission(a));
        _refuses(id, 41, _admission(a), _overBudget(60, 41, 100));
        _spend(id, 40, _admission(a));
        _refuses(id, 1, _admission(a), _overBudget(100, 1, 100));
        _refuses(id, type(uint256).max, _admission(a), _overBudget(100, type(uint256).max, 100));
    }

    function test_hugeBudgetsDoNotWrap() public {
        bytes32 id = _activateBudgeted(type(uint256).max);
        _spend(id, type(uint256).max, _admission(a));
        _refuses(id, 1, _admission(a), _overBudget(type(uint256).max, 1, type(uint256).max));
        _refuses(
            id, type(uint256).max, _admission(a), _overBudget(type(uint256).max, type(uint256).max, type(uint256).max)
        );
    }

    function test_refusesToSpendNothingUnderABudget() public {
        bytes32 id = _activateBudgeted(100);
        _refuses(id, 0, _admission(a), abi.encodeWithSelector(I.AgreementRegistry_NothingToSpend.selector, 0));
    }

    function test_refusesToSpendWhereThereIsNoBudget() public {
        bytes memory nothing = abi.encodeWithSelector(I.AgreementRegistry_NothingToSpend.selector, 1);
        _refuses(_activate(a), 1, _anyone(), nothing);
        // Nor where terms are shown.
        a.data[1].policy = DatasetPolicy.LATEST;
        a.data[1].sharesDigest = 0;
        vm.prank(hospitalB);
        streams.publish(a.data[1].idOrStream, DATASET_B, keccak256("shares"));
        bytes32 id = _activate(a);
        _refuses(id, 1, _admission(a), nothing);
        _spend(id, 0, _admission(a));
    }

    /// R9: budget belongs to (owner, lineage), across agreements and versions.
    function test_agreementsOverOneLineageShareItsLedger() public {
        bytes32 id = _activateBudgeted(100);
        Agreement memory other = a;
        other.salt = keccak256("another");
        other.data[0].idOrStream = keccak256("a later version");
        bytes32 otherId = _activate(other);
        _spend(id, 70, _admission(a));
        versions[0] = keccak256("a later version");
        _refuses(otherId, 31, _admission(other), _overBudget(70, 31, 100));
        _spend(otherId, 30, _admission(other));
        versions[0] = DATASET_A;
        _refuses(id, 1, _admission(a), _overBudget(100, 1, 100));
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 100);
    }

    /// How far the ledger may go is signed anew in each.
    function test_eachAgreementHasACeilingOfItsOwn() public {
        bytes32 low = _activateBudgeted(50);
        Agreement memory b = a;
        b.data[0].budget = 80;
        bytes32 high = _activate(b);
        _spend(low, 40, _admission(a));
        _spend(high, 20, _admission(b));
        _refuses(low, 1, _admission(a), _overBudget(60, 1, 50));
        _refuses(high, 21, _admission(b), _overBudget(60, 21, 80));
        _spend(high, 20, _admission(b));
    }

    /// A successor does not begin at zero.
    function test_supersedingDoesNotRenewTheBudget() public {
        bytes32 id = _activateBudgeted(100);
        _spend(id, 100, _admission(a));
        a.supersedes = id;
        _refuses(_activate(a), 1, _admission(a), _overBudget(100, 1, 100));
    }

    /// Nobody spends another's budget by naming its lineage.
    function test_lineageOfAnotherOwnerIsAnother() public {
        bytes32 id = _activateBudgeted(100);
        Agreement memory b = a;
        b.data[0] = _dataset("mine", hospitalB, DATASET_A);
        b.data[0].lineage = LINEAGE;
        b.data[0].budget = 100;
        bytes[] memory signatures = new bytes[](2);
        bytes32 other = registry.agreementIdOf(b);
        signatures[0] = sign(authorKey, other);
        signatures[1] = sign(hospitalBKey, other);
        registry.activate(b, signatures, _noAuditors());
        _spend(other, 100, _admission(b));
        assertEq(registry.budgetSpent(hospitalB, LINEAGE), 100);
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 0);
        _spend(id, 100, _admission(a));
    }

    /// A request reads it twice, so it costs twice.
    function test_twoTermsOfOneLineageSpendTwice() public {
        a.data[1] = _dataset("again", hospitalA, DATASET_B);
        a.data[1].lineage = LINEAGE;
        a.data[1].budget = 90;
        bytes32 id = _activateOfAuthorAndA(100);
        _refuses(id, 46, _admission(a), _overBudget(46, 46, 90));
        _spend(id, 45, _admission(a));
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 90);
        _unspend(id, 45, _admission(a));
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 0);
    }

    function test_oneBudgetSpentUpStopsTheWholeRequest() public {
        a.data[1].budget = 10;
        bytes32 id = _activateBudgeted(100);
        _refuses(
            id,
            11,
            _admission(a),
            abi.encodeWithSelector(I.AgreementRegistry_BudgetSpent.selector, hospitalB, a.data[1].lineage, 0, 11, 10)
        );
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 0);
        _spend(id, 10, _admission(a));
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 10);
        assertEq(registry.budgetSpent(hospitalB, a.data[1].lineage), 10);
    }

    function test_unspendGivesBackWhatWasSpent() public {
        bytes32 id = _activateBudgeted(100);
        _spend(id, 30, _admission(a));
        _spend(id, 50, _admission(a));
        vm.expectEmit(address(registry));
        emit I.BudgetMoved(id, hospitalA, LINEAGE, 50);
        _unspend(id, 30, _admission(a));
        assertEq(registry.agreement(id).used, 1);
        assertEq(registry.budgetSpent(hospitalB, a.data[1].lineage), 0);
        _refuses(id, 51, _admission(a), _overBudget(50, 51, 100));
        _spend(id, 50, _admission(a));
    }

    function test_unspendTakesTheTermsThatWereSigned() public {
        bytes32 id = _activateBudgeted(100);
        _spend(id, 30, _admission(a));
        I.Admission memory admission = _admission(a);
        admission.data[0].lineage = keccak256("another");
        bytes memory err = _wrongAdmission(id, admission);
        vm.expectRevert(err);
        _unspend(id, 30, admission);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NothingToSpend.selector, 0));
        _unspend(id, 0, _admission(a));
        versions.pop();
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_WrongVersionCount.selector, 1, 2));
        _unspend(id, 30, _admission(a));
    }

    /// Never more than each ceiling, and never other than the sum of what stands, whatever the order.
    function testFuzz_ledgerIsTheSumOfWhatStands(uint16[20] memory moves, uint8 lowCeiling, uint8 highCeiling) public {
        a.access.quota = 100;
        a.access.quotaPerRequester = 100;
        uint256[2] memory ceilings = [bound(lowCeiling, 1, 255), bound(highCeiling, 1, 255)];
        Agreement[2] memory agreements;
        bytes32[2] memory ids;
        for (uint256 i; i < 2; ++i) {
            a.salt = bytes32(i + 1);
            ids[i] = _activateBudgeted(ceilings[i]);
            agreements[i] = a;
        }
        for (uint256 i; i < moves.length; ++i) {
            uint256 which = moves[i] & 1;
            if (moves[i] & 6 != 0 || open.length == 0) {
                uint256 amount = 1 + (moves[i] >> 8) % 96;
                if (spent + amount > ceilings[which]) {
                    bytes memory over = _overBudget(spent, amount, ceilings[which]);
                    _refuses(ids[which], amount, _admission(agreements[which]), over);
                } else {
                    _spend(ids[which], amount, _admission(agreements[which]));
                    open.push(amount << 1 | which);
                    spent += amount;
                }
            } else {
                uint256 place = (moves[i] >> 8) % open.length;
                which = open[place] & 1;
                _unspend(ids[which], open[place] >> 1, _admission(agreements[which]));
                spent -= open[place] >> 1;
                open[place] = open[open.length - 1];
                open.pop();
            }
            assertEq(registry.budgetSpent(hospitalA, LINEAGE), spent);
            assertEq(registry.agreement(ids[0]).used + registry.agreement(ids[1]).used, open.length);
        }
    }

    // Through the oracle

    /// R9: no failure, expiry or revocation gives them back.
    function test_onlyACancelGivesQuotaAndBudgetBack() public {
        a.access.quotaPerRequester = 9;
        bytes32 id = _activateBudgeted(100);
        _register();
        TaskRequest memory succeeded = _ask(id, "succeeded", 1);
        TaskRequest memory failed = _ask(id, "failed", 2);
        TaskRequest memory expired = _ask(id, "expired", 4);
        TaskRequest memory cancelled = _ask(id, "cancelled", 8);
        _standsAt(id, 4, 15);

        vm.prank(requester);
        oracle.cancel(cancelled, _admission(a));
        _standsAt(id, 3, 7);

        _fulfil(a, succeeded, _result(succeeded));
        _fulfil(a, failed, _failure(failed));
        _standsAt(id, 3, 7);
        vm.prank(hospitalB);
        registry.revoke(id);
        vm.warp(expired.deadline + 1);
        oracle.expire(expired, _pricing(a));
        _standsAt(id, 3, 7);
    }

    /// What the terms say is read from the same calldata that their digest is taken of.
    function testFuzz_aFlippedBitOfTheTermsIsRefusedOrMeansTheSame(uint256 bit) public {
        bytes32 id = _activateBudgeted(100);
        bytes memory data = abi.encodeCall(I.spend, (id, requester, versions, 30, _admission(a)));
        // The last argument, and the last in the calldata.
        uint256 start = data.length - abi.encode(_admission(a)).length + 32;
        bit = bound(bit, start * 8, data.length * 8 - 1);
        data[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        vm.prank(address(oracle));
        (bool success,) = address(registry).call(data);
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), success ? 30 : 0);
        assertEq(registry.agreement(id).used, success ? 1 : 0);
    }

    function test_requestsSpendWhatTheySay() public {
        bytes32 id = _activateBudgeted(10);
        _ask(id, "first", 7);
        TaskRequest memory r = _taskRequest(id);
        r.spend = 4;
        vm.expectRevert(_overBudget(7, 4, 10));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _admission(a), "");
    }

    function _ask(bytes32 id, string memory nonce, uint256 amount) private returns (TaskRequest memory r) {
        r = _taskRequest(id);
        r.nonce = keccak256(bytes(nonce));
        r.spend = amount;
        vm.prank(requester);
        oracle.request{value: FEE}(r, _admission(a), "");
    }

    function _standsAt(bytes32 id, uint64 used, uint256 budget) private view {
        assertEq(registry.agreement(id).used, used);
        assertEq(registry.usedBy(id, requester), used);
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), budget);
    }

    function _activateOfAuthorAndA(uint256 budget) private returns (bytes32 id) {
        _budget(budget);
        id = registry.agreementIdOf(a);
        bytes[] memory signatures = new bytes[](2);
        signatures[0] = sign(authorKey, id);
        signatures[1] = sign(hospitalAKey, id);
        registry.activate(a, signatures, _noAuditors());
    }
}
