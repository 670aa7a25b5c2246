// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEnclaveRegistry as I} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {TcbStatus} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

contract ChallengeTest is Fixture {
    function setUp() public override {
        super.setUp();
        _register();
    }

    function test_anyoneLowersUnderANewerEvaluation() public {
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        I.Standing memory expected = _standing();
        expected.tcbStatus = TcbStatus.OUT_OF_DATE;
        expected.evaluation = 18;
        expected.earlierStatus = TcbStatus.UP_TO_DATE;
        expected.earlierEvaluation = 17;
        expected.changedAt = j.changedAt;
        vm.expectEmit(address(enclaves));
        emit I.EnclaveChallenged(ANCHOR, enclave, expected, stranger);
        vm.prank(stranger);
        _challenge(j);
        assertEq(abi.encode(_standing()), abi.encode(expected));
        assertTrue(enclaves.isValid(ANCHOR, enclave));
    }

    function test_lowersUnderTheSameEvaluationWithoutGrace() public {
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.evaluation = 17;
        _challenge(j);
        assertEq(_standing().tcbStatus, TcbStatus.OUT_OF_DATE);
        assertEq(_standing().earlierStatus, 0);
    }

    function test_theFirstGraceStays() public {
        _challenge(_outOfDate());
        I.Standing memory first = _standing();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.tcbStatus = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
        j.evaluation = 19;
        j.changedAt += 1 days;
        _challenge(j);
        assertEq(_standing().evaluation, 19);
        assertEq(_standing().earlierStatus, first.earlierStatus);
        assertEq(_standing().earlierEvaluation, first.earlierEvaluation);
        assertEq(_standing().changedAt, first.changedAt);
    }

    function test_whatIsRevokedIsNotValidAndHasNoGrace() public {
        _challenge(_outOfDate());
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.tcbStatus = TcbStatus.REVOKED;
        _challenge(j);
        assertEq(_standing().earlierStatus, 0);
        assertFalse(enclaves.isValid(ANCHOR, enclave));
    }

    function test_neverMovesTheEndOrTheEvidence() public {
        I.Standing memory before = _standing();
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.validUntil = before.validUntil + 365 days;
        _challenge(j);
        assertEq(_standing().validUntil, before.validUntil);
        assertEq(_standing().evidenceAt, before.evidenceAt);
        assertEq(_standing().blockNumber, before.blockNumber);
    }

    function test_aRenewalRaisesAgain() public {
        _challenge(_outOfDate());
        _nextBlock();
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.evaluation = 18;
        r.evidence = abi.encode(c);
        enclaves.register(r);
        assertEq(_standing().tcbStatus, TcbStatus.UP_TO_DATE);
    }

    function testFuzz_onlyLowers(uint8 status, uint32 evaluation) public {
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        (j.tcbStatus, j.evaluation) = (TcbStatus.OUT_OF_DATE, 18);
        _challenge(j);
        (j.tcbStatus, j.evaluation) = (status, evaluation);
        if (evaluation < 18) {
            _refuses(j, abi.encodeWithSelector(I.EnclaveRegistry_OlderEvaluation.selector, evaluation, 18));
        } else if (status == 6 || status == 7) {
            _challenge(j);
            assertEq(_standing().tcbStatus, status);
        } else if (status >= 1 && status <= 9) {
            _refuses(j, abi.encodeWithSelector(I.EnclaveRegistry_NotLower.selector, status, 5));
        } else {
            _refuses(j, abi.encodeWithSelector(I.EnclaveRegistry_BadTcbStatus.selector, status));
        }
    }

    function test_refusesTheSameStatus() public {
        IEvidenceVerifier.Judgement memory j = _outOfDate();
        j.tcbStatus = TcbStatus.UP_TO_DATE;
        _refuses(j, abi.encodeWithSelector(I.EnclaveRegistry_NotLower.selector, 1, 1));
    }

    function test_refusesOtherVersions() public {
        bytes32 other = keccak256("other versions");
        bytes memory proof = abi.encode(ANCHOR, other, _outOfDate());
        vm.expectRevert(
            abi.encodeWithSelector(
                I.EnclaveRegistry_WrongChallenge.selector, ANCHOR, other, ANCHOR, _identity().svnDigest
            )
        );
        enclaves.challenge(ANCHOR, enclave, _identity(), address(verifier), proof);
    }

    function test_refusesAnotherAnchor() public {
        bytes32 other = keccak256("another anchor");
        bytes memory proof = abi.encode(other, _identity().svnDigest, _outOfDate());
        vm.expectRevert(
            abi.encodeWithSelector(
                I.EnclaveRegistry_WrongChallenge.selector, other, _identity().svnDigest, ANCHOR, _identity().svnDigest
            )
        );
        enclaves.challenge(ANCHOR, enclave, _identity(), address(verifier), proof);
    }

    function test_refusesAnotherIdentity() public {
        I.Identity memory other = _identity();
        other.svnDigest = keccak256("other versions");
        bytes memory proof = abi.encode(ANCHOR, other.svnDigest, _outOfDate());
        vm.expectPartialRevert(I.EnclaveRegistry_WrongIdentity.selector);
        enclaves.challenge(ANCHOR, enclave, other, address(verifier), proof);
    }

    function test_refusesUnknownSigner() public {
        bytes memory proof = abi.encode(ANCHOR, _identity().svnDigest, _outOfDate());
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_Unknown.selector, ANCHOR, stranger));
        enclaves.challenge(ANCHOR, stranger, _identity(), address(verifier), proof);
    }

    function test_refusesUnknownVerifier() public {
        bytes memory proof = abi.encode(ANCHOR, _identity().svnDigest, _outOfDate());
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_UnknownVerifier.selector, address(registry)));
        enclaves.challenge(ANCHOR, enclave, _identity(), address(registry), proof);
    }

    function test_refusesARetiredIdentity() public {
        vm.prank(enclave);
        enclaves.retire(ANCHOR, enclave, "");
        _refuses(_outOfDate(), abi.encodeWithSelector(I.EnclaveRegistry_Retired.selector, ANCHOR, enclave));
    }

    function _outOfDate() private view returns (IEvidenceVerifier.Judgement memory j) {
        j = _judgement(TcbStatus.OUT_OF_DATE, 18);
        j.changedAt = uint40(vm.getBlockTimestamp() - 5 days);
    }

    function _challenge(IEvidenceVerifier.Judgement memory j) private {
        enclaves.challenge(
            ANCHOR, enclave, _identity(), address(verifier), abi.encode(ANCHOR, _identity().svnDigest, j)
        );
    }

    function _refuses(IEvidenceVerifier.Judgement memory j, bytes memory err) private {
        bytes memory proof = abi.encode(ANCHOR, _identity().svnDigest, j);
        vm.expectRevert(err);
        enclaves.challenge(ANCHOR, enclave, _identity(), address(verifier), proof);
    }
}
