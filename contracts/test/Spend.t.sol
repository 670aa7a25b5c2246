// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Dataset, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {ANYONE, Confirmation, DatasetPolicy} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @notice spend and unspend: who may ask, for which data, how often, and at what cost of budget (R7, R9). Mostly as the oracle;
/// streams are in Streams.t.sol.
contract SpendTest is Fixture {
    bytes32 private constant LINEAGE = keccak256("lineage");

    Agreement private a;
    bytes32[] private versions;
    /// What a fuzzed order of moves should leave behind.
    uint256[] private open;
    uint256 private spent;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        versions.push(DATASET_A);
        versions.push(DATASET_B);
    }

    // By whom

    function test_onlyTheOracleSpendsAndUnspends() public {
        bytes32 id = _activate(a);
        bytes memory notOracle =
            abi.encodeWithSelector(I.AgreementRegistry_NotOracle.selector, stranger, address(oracle));
        vm.startPrank(stranger);
        vm.expectRevert(notOracle);
        registry.spend(id, stranger, versions, 0, _anyone());
        vm.expectRevert(notOracle);
        registry.unspend(id, stranger, versions, 0, _anyone());
        vm.stopPrank();
        // Nor does a party.
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotOracle.selector, hospitalA, address(oracle)));
        vm.prank(hospitalA);
        registry.spend(id, stranger, versions, 0, _anyone());
    }

    function test_refusesAnUnknownAgreement() public {
        bytes32 id = keccak256("unknown");
        bytes memory none = abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, I.Status.None);
        vm.startPrank(address(oracle));
        vm.expectRevert(none);
        registry.spend(id, requester, versions, 0, _anyone());
        vm.expectRevert(none);
        registry.unspend(id, requester, versions, 0, _anyone());
    }

    /// Not even the oracle that it names spends under a draft that parties signed.
    function test_refusesADraft() public {
        bytes32 id = registry.agreementIdOf(a);
        vm.prank(hospitalA);
        registry.approve(id);
        _refuses(id, 0, _anyone(), abi.encodeWithSelector(I.AgreementRegistry_NotActive.selector, id, I.Status.None));
    }

    function test_tellsWhatTheOracleTakes() public {
        a.price.token = address(verifier);
        bytes32 id = _activate(a);
        vm.startPrank(address(oracle));
        I.Terms memory terms = registry.spend(id, requester, versions, 0, _anyone());
        assertEq(terms.fee, FEE);
        assertEq(terms.releaseDelay, RELEASE_DELAY);
        assertEq(terms.token, address(verifier));
        assertEq(registry.unspend(id, requester, versions, 0, _anyone()), address(verifier));
    }

    // When

    function testFuzz_takesRequestsInTheWindowOnly(uint40 time) public {
        time = uint40(bound(time, a.notBefore - 10 days, a.notAfter + 10 days));
        a.notBefore += 1 days;
        bytes32 id = _activate(a);
        vm.warp(time);
        if (time >= a.notBefore && time < a.notAfter) _spend(id, 0, _anyone());
        else _refuses(id, 0, _anyone(), _outside(time));
    }

    function test_windowOpensAtNotBeforeAndClosesAtNotAfter() public {
        a.notBefore += 1 days;
        bytes32 id = _activate(a);
        vm.warp(a.notBefore - 1);
        _refuses(id, 0, _anyone(), _outside(a.notBefore - 1));
        vm.warp(a.notBefore);
        _spend(id, 0, _anyone());
        vm.warp(a.notAfter - 1);
        _spend(id, 0, _anyone());
        vm.warp(a.notAfter);
        _refuses(id, 0, _anyone(), _outside(a.notAfter));
    }

    // What was signed

    function test_refusesOtherFixedDatasets() public {
        bytes32 id = _activate(a);
        versions[1] = keccak256("another dataset");
        _refusesAdmission(id, 0, _anyone());
        (versions[0], versions[1]) = (DATASET_B, DATASET_A);
        _refusesAdmission(id, 0, _anyone());
        (versions[0], versions[1]) = (DATASET_A, DATASET_B);
        versions.push(DATASET_B);
        _refusesAdmission(id, 0, _anyone());
        versions.pop();
        _spend(id, 0, _anyone());
        versions.pop();
        _refusesAdmission(id, 0, _anyone());
    }

    function test_refusesOtherRequestersThanAgreed() public {
        a.access.requesters = _leaf(hospitalA, 1);
        bytes32 id = _activate(a);
        _refusesAdmission(id, 0, _anyone());
        I.Admission memory mine = _anyone();
        mine.requesters = _leaf(requester, 1);
        mine.quota = 1;
        _refusesAdmission(id, 0, mine);
    }

    /// A term with one field that its owner did not sign.
    function test_refusesOtherTermsThanAgreed() public {
        bytes32 id = _activateBudgeted(100);
        I.Admission memory admission = _admission(a);
        admission.data[0].owner = stranger;
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].idOrStream = DATASET_B;
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].lineage = keccak256("a lineage with budget left");
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].policy = DatasetPolicy.LATEST;
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].minVersion = 1;
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].budget += 1;
        _refusesAdmission(id, 1, admission);
        admission = _admission(a);
        admission.data[0].budget = 0;
        _refusesAdmission(id, 0, admission);
        admission = _admission(a);
        (admission.data[0], admission.data[1]) = (admission.data[1], admission.data[0]);
        _refusesAdmission(id, 1, admission);
        _spend(id, 1, _admission(a));
    }

    /// Terms left out or cut short, so that a budget would not be looked at.
    function test_refusesTermsLeftOut() public {
        bytes32 id = _activateBudgeted(100);
        _refusesAdmission(id, 0, _anyone());
        I.Admission memory admission = _admission(a);
        I.DataTerm memory unbudgeted = admission.data[1];
        admission.data = new I.DataTerm[](1);
        admission.data[0] = unbudgeted;
        _refusesAdmission(id, 0, admission);
    }

    function test_refusesTermsWhereNoneAreShown() public {
        bytes32 id = _activate(a);
        I.Admission memory admission = _anyone();
        admission.data = _terms();
        _refusesAdmission(id, 0, admission);
    }

    /// Dataset ids chosen to be the words of encoded terms: the digest of one list is never the other's.
    function test_idsThatSpellTermsAreNotTerms() public {
        I.DataTerm[] memory terms = new I.DataTerm[](1);
        terms[0] = I.DataTerm(author, keccak256("stream"), LINEAGE, DatasetPolicy.LATEST, 1, 1);
        bytes memory words = abi.encode(terms);
        uint256 count = words.length / 32;
        a.data = new Dataset[](count);
        delete versions;
        for (uint256 i; i < count; ++i) {
            bytes32 word;
            assembly ("memory-safe") {
                word := mload(add(words, mul(add(i, 1), 0x20)))
            }
            a.data[i] = _dataset(vm.toString(i), author, word);
            versions.push(word);
        }
        bytes[] memory signatures = new bytes[](1);
        bytes32 id = registry.agreementIdOf(a);
        signatures[0] = sign(authorKey, id);
        registry.activate(a, signatures, _noAuditors());

        I.Admission memory admission = _anyone();
        admission.data = terms;
        _refusesAdmission(id, 1, admission);
        _spend(id, 0, _anyone());
    }

    /// And the other way round: versions that spell the terms pass for no fixed datasets.
    function test_versionsThatSpellTermsAreNotIds() public {
        bytes32 id = _activateBudgeted(100);
        bytes memory words = abi.encode(_admission(a).data);
        delete versions;
        for (uint256 i; i < words.length / 32; ++i) {
            bytes32 word;
            assembly ("memory-safe") {
                word := mload(add(words, mul(add(i, 1), 0x20)))
            }
            versions.push(word);
        }
        _refusesAdmission(id, 0, _anyone());
    }

    function test_refusesAnotherNumberOfVersionsThanTerms() public {
        bytes32 id = _activateBudgeted(100);
        versions.push(DATASET_B);
        _refuses(id, 1, _admission(a), abi.encodeWithSelector(I.AgreementRegistry_WrongVersionCount.selector, 3, 2));
        versions.pop();
        versions.pop();
        _refuses(id, 1, _admission(a), abi.encodeWithSelector(I.AgreementRegistry_WrongVersionCount.selector, 1, 2));
    }

    // Budgets

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
                uint256 at = (moves[i] >> 8) % open.length;
                which = open[at] & 1;
                _unspend(ids[which], open[at] >> 1, _admission(agreements[which]));
                spent -= open[at] >> 1;
                open[at] = open[open.length - 1];
                open.pop();
            }
            assertEq(registry.budgetSpent(hospitalA, LINEAGE), spent);
            assertEq(registry.agreement(ids[0]).used + registry.agreement(ids[1]).used, open.length);
        }
    }

    // Quota

    function testFuzz_takesAsManyAsTheQuota(uint64 quota) public {
        quota = uint64(bound(quota, 1, 12));
        (a.access.quota, a.access.quotaPerRequester) = (quota, quota);
        bytes32 id = _activate(a);
        for (uint64 i; i < quota; ++i) {
            _spend(id, 0, _anyone());
            assertEq(registry.agreement(id).used, i + 1);
        }
        _refuses(id, 0, _anyone(), abi.encodeWithSelector(I.AgreementRegistry_QuotaSpent.selector, id, quota));
        // No limit of its own, so not counted.
        assertEq(registry.usedBy(id, requester), 0);
        _unspend(id, 0, _anyone());
        _spend(id, 0, _anyone());
    }

    function test_refusesPastTheRequestersQuota() public {
        a.access.quotaPerRequester = 2;
        bytes32 id = _activate(a);
        _spend(id, 0, _anyone());
        _spend(id, 0, _anyone());
        assertEq(registry.usedBy(id, requester), 2);
        _refuses(id, 0, _anyone(), _overOwn(id, requester, 2));
        _spendAs(stranger, id, _anyone());
        assertEq(registry.usedBy(id, stranger), 1);
        _unspend(id, 0, _anyone());
        assertEq(registry.usedBy(id, requester), 1);
        _spend(id, 0, _anyone());
    }

    function test_unspendNeverGivesWhatWasNotSpent() public {
        a.access.quotaPerRequester = 2;
        bytes32 id = _activate(a);
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        _unspend(id, 0, _anyone());
        _spendAs(stranger, id, _anyone());
        vm.expectRevert(abi.encodeWithSignature("Panic(uint256)", 0x11));
        _unspend(id, 0, _anyone());
    }

    /// Who cancels must get the money back.
    function test_unspendsUnderASuspendedOrRevokedAgreement() public {
        bytes32 id = _activateBudgeted(100);
        _spend(id, 10, _admission(a));
        _spend(id, 20, _admission(a));
        vm.prank(hospitalA);
        registry.suspend(id);
        _unspend(id, 10, _admission(a));
        vm.prank(hospitalA);
        registry.revoke(id);
        vm.warp(a.notAfter + 1);
        _unspend(id, 20, _admission(a));
        assertEq(registry.agreement(id).used, 0);
        assertEq(registry.budgetSpent(hospitalA, LINEAGE), 0);
    }

    // Requesters

    /// Every listed address with its own quota, and nobody else; trees of every shape, odd ones too.
    function testFuzz_takesWhoIsListed(uint8 size, uint8 pick, uint8 other) public {
        size = uint8(bound(size, 1, 13));
        pick = uint8(bound(pick, 0, size - 1));
        (bytes32[] memory tree, uint256[] memory at) = _list(size);
        a.access.requesters = tree[0];
        a.access.quota = 1000;
        a.access.quotaPerRequester = 1000;
        bytes32 id = _activate(a);

        I.Admission memory admission = _listed(tree, at[pick], _quotaOf(pick));
        for (uint256 i; i < _quotaOf(pick); ++i) {
            _spendAs(_listedAt(pick), id, admission);
        }
        assertEq(registry.usedBy(id, _listedAt(pick)), _quotaOf(pick));
        vm.expectRevert(_overOwn(id, _listedAt(pick), uint64(_quotaOf(pick))));
        _spendAs(_listedAt(pick), id, admission);

        vm.expectRevert(_notAllowed(stranger));
        _spendAs(stranger, id, admission);
        if (size == 1) return;
        uint256 wrong = other % size == pick ? (pick + 1) % size : other % size;
        vm.expectRevert(_notAllowed(_listedAt(wrong)));
        _spendAs(_listedAt(wrong), id, admission);
    }

    function test_refusesAnotherQuotaThanListed() public {
        (bytes32[] memory tree, uint256[] memory at) = _list(5);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        vm.expectRevert(_notAllowed(_listedAt(3)));
        _spendAs(_listedAt(3), id, _listed(tree, at[3], _quotaOf(3) + 1));
    }

    function test_refusesNoProofAndAProofTooLong() public {
        (bytes32[] memory tree, uint256[] memory at) = _list(5);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _listed(tree, at[2], _quotaOf(2));
        bytes32[] memory longer = new bytes32[](admission.proof.length + 1);
        for (uint256 i; i < admission.proof.length; ++i) {
            longer[i] = admission.proof[i];
        }
        admission.proof = longer;
        vm.expectRevert(_notAllowed(_listedAt(2)));
        _spendAs(_listedAt(2), id, admission);
        admission.proof = new bytes32[](0);
        vm.expectRevert(_notAllowed(_listedAt(2)));
        _spendAs(_listedAt(2), id, admission);
    }

    /// The lower of the two counts.
    function test_listedQuotaIsCappedByThatOfEachRequester() public {
        (bytes32[] memory tree, uint256[] memory at) = _list(4);
        a.access.requesters = tree[0];
        a.access.quotaPerRequester = 2;
        bytes32 id = _activate(a);
        assertEq(_quotaOf(3), 4);
        I.Admission memory admission = _listed(tree, at[3], 4);
        _spendAs(_listedAt(3), id, admission);
        _spendAs(_listedAt(3), id, admission);
        vm.expectRevert(_overOwn(id, _listedAt(3), 2));
        _spendAs(_listedAt(3), id, admission);
    }

    function test_listedQuotasTogetherStayWithinTheAgreements() public {
        (bytes32[] memory tree, uint256[] memory at) = _list(4);
        a.access.requesters = tree[0];
        (a.access.quota, a.access.quotaPerRequester) = (5, 5);
        bytes32 id = _activate(a);
        for (uint256 i; i < 4; ++i) {
            _spendAs(_listedAt(3), id, _listed(tree, at[3], 4));
        }
        _spendAs(_listedAt(2), id, _listed(tree, at[2], 3));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_QuotaSpent.selector, id, 5));
        _spendAs(_listedAt(1), id, _listed(tree, at[1], 2));
    }

    function test_listedWithNothingIsRefused() public {
        bytes32[] memory leaves = new bytes32[](1);
        leaves[0] = _leaf(requester, 0);
        a.access.requesters = leaves[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _admission(a);
        _refuses(id, 0, admission, _overOwn(id, requester, 0));
    }

    /// Listed twice by mistake: never more than the larger of the two.
    function test_listedTwiceIsNotAddedUp() public {
        bytes32[] memory leaves = new bytes32[](2);
        (leaves[0], leaves[1]) = (_leaf(requester, 2), _leaf(requester, 3));
        bytes32[] memory tree = _tree(leaves);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory two = _admission(a);
        (two.quota, two.proof) = (2, _one(leaves[1]));
        I.Admission memory three = _admission(a);
        (three.quota, three.proof) = (3, _one(leaves[0]));
        _spend(id, 0, two);
        _spend(id, 0, two);
        _refuses(id, 0, two, _overOwn(id, requester, 2));
        _spend(id, 0, three);
        _refuses(id, 0, three, _overOwn(id, requester, 3));
    }

    function test_unspendGivesAListedRequesterItsOwnBack() public {
        (bytes32[] memory tree, uint256[] memory at) = _list(3);
        a.access.requesters = tree[0];
        bytes32 id = _activate(a);
        I.Admission memory admission = _listed(tree, at[1], 2);
        _spendAs(_listedAt(1), id, admission);
        vm.startPrank(address(oracle));
        registry.unspend(id, _listedAt(1), versions, 0, admission);
        assertEq(registry.usedBy(id, _listedAt(1)), 0);
        assertEq(registry.agreement(id).used, 0);
        // By its own leaf only: else its count would stand.
        admission.quota = 3;
        vm.expectRevert(_notAllowed(_listedAt(1)));
        registry.unspend(id, _listedAt(1), versions, 0, admission);
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

    // Agreements

    function _budget(uint256 budget) private {
        a.data[0].lineage = LINEAGE;
        a.data[0].budget = budget;
        a.keys.confirmation = Confirmation.FINALIZED;
        a.keys.confirmBlocks = 0;
    }

    function _activateBudgeted(uint256 budget) private returns (bytes32) {
        _budget(budget);
        return _activate(a);
    }

    function _activateOfAuthorAndA(uint256 budget) private returns (bytes32 id) {
        _budget(budget);
        id = registry.agreementIdOf(a);
        bytes[] memory signatures = new bytes[](2);
        signatures[0] = sign(authorKey, id);
        signatures[1] = sign(hospitalAKey, id);
        registry.activate(a, signatures, _noAuditors());
    }

    function _terms() private view returns (I.DataTerm[] memory terms) {
        terms = new I.DataTerm[](a.data.length);
        for (uint256 i; i < terms.length; ++i) {
            Dataset memory d = a.data[i];
            terms[i] = I.DataTerm(d.owner, d.idOrStream, d.lineage, d.policy, d.minVersion, d.budget);
        }
    }

    // Moves

    function _spend(bytes32 id, uint256 amount, I.Admission memory admission) private {
        vm.prank(address(oracle));
        registry.spend(id, requester, versions, amount, admission);
    }

    function _spendAs(address who, bytes32 id, I.Admission memory admission) private {
        vm.prank(address(oracle));
        registry.spend(id, who, versions, 0, admission);
    }

    function _unspend(bytes32 id, uint256 amount, I.Admission memory admission) private {
        vm.prank(address(oracle));
        registry.unspend(id, requester, versions, amount, admission);
    }

    function _refuses(bytes32 id, uint256 amount, I.Admission memory admission, bytes memory err) private {
        vm.expectRevert(err);
        _spend(id, amount, admission);
    }

    function _refusesAdmission(bytes32 id, uint256 amount, I.Admission memory admission) private {
        _refuses(id, amount, admission, _wrongAdmission(id, admission));
    }

    function _wrongAdmission(bytes32 id, I.Admission memory admission) private view returns (bytes memory) {
        bytes32 data = admission.data.length == 0
            ? keccak256(abi.encodePacked(versions))
            : keccak256(bytes.concat(abi.encode(admission.data), hex"01"));
        return abi.encodeWithSelector(
            I.AgreementRegistry_WrongAdmission.selector,
            keccak256(abi.encode(admission.requesters, data)),
            registry.agreement(id).admissionHash
        );
    }

    function _outside(uint256 time) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_OutsideWindow.selector, time, a.notBefore, a.notAfter);
    }

    function _overBudget(uint256 already, uint256 amount, uint256 budget) private view returns (bytes memory) {
        return
            abi.encodeWithSelector(
                I.AgreementRegistry_BudgetSpent.selector, hospitalA, LINEAGE, already, amount, budget
            );
    }

    function _overOwn(bytes32 id, address who, uint64 quota) private pure returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_RequesterQuotaSpent.selector, id, who, quota);
    }

    function _notAllowed(address who) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_RequesterNotAllowed.selector, who, a.access.requesters);
    }

    // OpenZeppelin's StandardMerkleTree of (address, uint64)

    function _leaf(address who, uint256 quota) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(who, quota))));
    }

    /// @dev The root first, the leaves last and backwards; node i's children are 2i + 1 and 2i + 2.
    function _tree(bytes32[] memory leaves) private pure returns (bytes32[] memory tree) {
        uint256 n = leaves.length;
        tree = new bytes32[](2 * n - 1);
        for (uint256 i; i < n; ++i) {
            tree[2 * n - 2 - i] = leaves[i];
        }
        for (uint256 i = n - 1; i-- > 0;) {
            (bytes32 l, bytes32 r) = (tree[2 * i + 1], tree[2 * i + 2]);
            tree[i] = l < r ? keccak256(bytes.concat(l, r)) : keccak256(bytes.concat(r, l));
        }
    }

    function _listedAt(uint256 i) private pure returns (address) {
        return address(uint160(0xacc0 + i));
    }

    function _quotaOf(uint256 i) private pure returns (uint256) {
        return i + 1;
    }

    /// @return tree of `size` accounts
    /// @return at where in the tree each account is: the leaves are sorted
    function _list(uint256 size) private pure returns (bytes32[] memory tree, uint256[] memory at) {
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i; i < size; ++i) {
            bytes32 leaf = _leaf(_listedAt(i), _quotaOf(i));
            uint256 j = i;
            for (; j > 0 && leaves[j - 1] > leaf; --j) {
                leaves[j] = leaves[j - 1];
            }
            leaves[j] = leaf;
        }
        tree = _tree(leaves);
        at = new uint256[](size);
        for (uint256 i; i < size; ++i) {
            bytes32 leaf = _leaf(_listedAt(i), _quotaOf(i));
            uint256 j = size - 1;
            while (tree[j] != leaf) ++j;
            at[i] = j;
        }
    }

    function _listed(bytes32[] memory tree, uint256 at, uint256 quota)
        private
        pure
        returns (I.Admission memory admission)
    {
        admission.requesters = tree[0];
        admission.quota = uint64(quota);
        uint256 depth;
        for (uint256 i = at; i != 0; i = (i - 1) / 2) {
            ++depth;
        }
        admission.proof = new bytes32[](depth);
        for (uint256 i; i < depth; ++i) {
            admission.proof[i] = tree[at % 2 == 1 ? at + 1 : at - 1];
            at = (at - 1) / 2;
        }
    }
}
