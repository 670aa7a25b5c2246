// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Dataset} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {DatasetPolicy} from "../src/libraries/Constants.sol";
import {Spending} from "./Spending.sol";

/// @notice spend and unspend: by whom, when, for which data, and how often (R7, R9). Budgets, requesters and streams have files of
/// their own.
contract SpendTest is Spending {
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
        a.access.requesters = keccak256("root");
        bytes32 id = _activate(a);
        _refusesAdmission(id, 0, _anyone());
        I.Admission memory mine = _anyone();
        mine.requesters = keccak256("another root");
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

    function _terms() private view returns (I.DataTerm[] memory terms) {
        terms = new I.DataTerm[](a.data.length);
        for (uint256 i; i < terms.length; ++i) {
            Dataset memory d = a.data[i];
            terms[i] = I.DataTerm(d.owner, d.idOrStream, d.lineage, d.policy, d.minVersion, d.budget);
        }
    }

    function _outside(uint256 time) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_OutsideWindow.selector, time, a.notBefore, a.notAfter);
    }
}
