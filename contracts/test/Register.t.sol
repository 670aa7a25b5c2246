// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEnclaveRegistry as I} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {TcbStatus, TeeKind} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

contract RegisterTest is Fixture {
    // What a registration records

    function test_anyoneRelaysARegistration() public {
        I.Registration memory r = _registration();
        I.Standing memory expected = I.Standing({
            tcbStatus: TcbStatus.UP_TO_DATE,
            retired: false,
            earlierStatus: 0,
            evaluation: 17,
            earlierEvaluation: 0,
            changedAt: 0,
            evidenceAt: uint40(vm.getBlockTimestamp()),
            validUntil: uint40(vm.getBlockTimestamp() + 7 days),
            blockNumber: uint40(r.blockNumber)
        });
        vm.expectEmit(address(enclaves));
        emit I.EnclaveRegistered(ANCHOR, enclave, MEASUREMENT, _identity(), expected, address(verifier));
        vm.prank(stranger);
        assertEq(enclaves.register(r), ANCHOR);

        (bytes32 identity, I.Standing memory standing) = enclaves.record(ANCHOR, enclave);
        assertEq(identity, keccak256(abi.encode(_identity())));
        assertEq(identity, enclaves.digestOf(_identity()));
        assertEq(abi.encode(standing), abi.encode(expected));
        assertEq(abi.encode(enclaves.standingOf(ANCHOR, enclave, _identity())), abi.encode(expected));
        assertTrue(enclaves.isValid(ANCHOR, enclave));
    }

    function test_keepsWhatTheVerifierSaysOfAnEarlierEvaluation() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.tcbStatus = TcbStatus.OUT_OF_DATE;
        c.judgement.earlierStatus = TcbStatus.SW_HARDENING_NEEDED;
        c.judgement.earlierEvaluation = 16;
        c.judgement.changedAt = 1_700_000_000;
        r.evidence = abi.encode(c);
        enclaves.register(r);
        I.Standing memory standing = _standing();
        assertEq(standing.tcbStatus, TcbStatus.OUT_OF_DATE);
        assertEq(standing.earlierStatus, TcbStatus.SW_HARDENING_NEEDED);
        assertEq(standing.earlierEvaluation, 16);
        assertEq(standing.changedAt, 1_700_000_000);
    }

    function test_noRecordStandsNowhere() public view {
        assertEq(enclaves.standingOf(ANCHOR, enclave, _identity()).evidenceAt, 0);
    }

    function test_refusesToSayHowAnotherIdentityStands() public {
        _register();
        I.Identity memory other = _identity();
        other.platform = keccak256("another platform");
        vm.expectRevert(
            abi.encodeWithSelector(
                I.EnclaveRegistry_WrongIdentity.selector, enclaves.digestOf(other), enclaves.digestOf(_identity())
            )
        );
        enclaves.standingOf(ANCHOR, enclave, other);
    }

    function test_reportDataIsWhatR2Binds() public view {
        bytes32 blockHash = keccak256("some block");
        assertEq(
            enclaves.reportDataOf(enclave, SEALING_KEY, blockHash),
            sha256(
                abi.encode(
                    sha256("enclave-oracle/evidence/1"),
                    uint256(1),
                    block.chainid,
                    address(enclaves),
                    enclave,
                    SEALING_KEY,
                    blockHash
                )
            )
        );
    }

    function test_nobodyKnownIsNotValid() public view {
        assertFalse(enclaves.isValid(ANCHOR, enclave));
    }

    function test_validityEndsWithTheAppraisal() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.validUntil = uint40(vm.getBlockTimestamp() + 1 hours);
        r.evidence = abi.encode(c);
        enclaves.register(r);
        assertEq(_standing().validUntil, c.judgement.validUntil);
        vm.warp(c.judgement.validUntil);
        assertTrue(enclaves.isValid(ANCHOR, enclave));
        vm.warp(uint256(c.judgement.validUntil) + 1);
        assertFalse(enclaves.isValid(ANCHOR, enclave));
    }

    function test_validityIsSevenDaysAtMost() public {
        uint256 start = vm.getBlockTimestamp();
        _register();
        assertEq(_standing().validUntil, start + 7 days);
    }

    // The evidence

    function test_refusesUnknownVerifier() public {
        I.Registration memory r = _registration();
        r.verifier = address(registry);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_UnknownVerifier.selector, address(registry)));
    }

    function test_refusesWhatTheVerifierRefuses() public {
        I.Registration memory r = _registration();
        r.evidence = "";
        vm.expectRevert();
        enclaves.register(r);
    }

    function test_refusesBlockHashThatIsNot() public {
        I.Registration memory r = _registration();
        bytes32 expected = r.blockHash;
        r.blockHash = keccak256("another block");
        _refuses(
            r, abi.encodeWithSelector(I.EnclaveRegistry_WrongBlockHash.selector, r.blockNumber, r.blockHash, expected)
        );
    }

    function test_refusesBlockThatTheChainForgot() public {
        I.Registration memory r = _registration();
        r.blockHash = 0;
        r.blockNumber = vm.getBlockNumber() - 257;
        _refuses(
            r, abi.encodeWithSelector(I.EnclaveRegistry_WrongBlockHash.selector, r.blockNumber, bytes32(0), bytes32(0))
        );
    }

    function test_refusesEvidenceOverAnotherBlock() public {
        I.Registration memory r = _registration();
        _refusesClaims(r, _claims(keccak256("another block")));
    }

    function test_refusesEvidenceForAnotherRegistry() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](1);
        verifiers[0] = verifier;
        c.reportData = _deployEnclaves(verifiers).reportDataOf(enclave, SEALING_KEY, r.blockHash);
        _refusesClaims(r, c);
    }

    function test_refusesEvidenceOfAnotherSigner() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.reportData = enclaves.reportDataOf(stranger, SEALING_KEY, r.blockHash);
        _refusesClaims(r, c);
    }

    function test_refusesEvidenceOfAnotherSealingKey() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.reportData = enclaves.reportDataOf(enclave, keccak256("another key"), r.blockHash);
        _refusesClaims(r, c);
    }

    function test_refusesZeroSealingKey() public {
        I.Registration memory r = _registration();
        r.sealingKey = 0;
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_Zero.selector, "sealingKey"));
    }

    function test_refusesEvidenceThatExpired() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.validUntil = uint40(vm.getBlockTimestamp());
        r.evidence = abi.encode(c);
        _refuses(
            r,
            abi.encodeWithSelector(
                I.EnclaveRegistry_EvidenceExpired.selector, c.judgement.validUntil, c.judgement.validUntil
            )
        );
    }

    function test_refusesZeroMeasurement() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.measurement = 0;
        r.evidence = abi.encode(c);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_Zero.selector, "measurement"));
    }

    function testFuzz_takesEveryStatusButRevoked(uint8 status) public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.tcbStatus = status;
        r.evidence = abi.encode(c);
        if (status >= 1 && status <= 9 && status != 7) enclaves.register(r);
        else _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadTcbStatus.selector, status));
    }

    function test_refusesRevokedPlatform() public {
        testFuzz_takesEveryStatusButRevoked(7);
    }

    function testFuzz_takesTheFourTeeKinds(uint8 tee) public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.tee = tee;
        r.evidence = abi.encode(c);
        if (tee >= 1 && tee <= 4) enclaves.register(r);
        else _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadTeeKind.selector, tee));
    }

    // The keys

    function test_refusesProofByAnotherKey() public {
        I.Registration memory r = _registration();
        enclaveKey = operatorKey;
        _prove(r);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_WrongProofOfPossession.selector, operator, enclave));
    }

    function test_refusesMalformedProof() public {
        I.Registration memory r = _registration();
        r.proofOfPossession = hex"00";
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_WrongProofOfPossession.selector, address(0), enclave));
    }

    function test_refusesZeroSigner() public {
        I.Registration memory r = _registration();
        r.signer = address(0);
        r.proofOfPossession = hex"00";
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_WrongProofOfPossession.selector, address(0), address(0)));
    }

    function test_refusesOperatorThatTheEnclaveDidNotName() public {
        I.Registration memory r = _registration();
        r.operator = author;
        r.operatorSignature = sign(authorKey, enclaves.hostDigest(enclave));
        vm.expectPartialRevert(I.EnclaveRegistry_WrongProofOfPossession.selector);
        enclaves.register(r);
    }

    // The host (R5)

    function test_takesNoOperator() public {
        I.Registration memory r = _registration();
        r.operator = address(0);
        r.operatorSignature = "";
        _prove(r);
        _registersHostedBy(r);
    }

    function test_takesOperatorByERC1271() public {
        I.Registration memory r = _registration();
        r.operator = address(new Wallet(operator));
        _prove(r);
        _registersHostedBy(r);
    }

    function test_refusesOperatorWithoutSignature() public {
        I.Registration memory r = _registration();
        r.operatorSignature = "";
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadOperatorSignature.selector, operator, enclave));
    }

    function test_refusesOperatorsSignatureForAnotherSigner() public {
        I.Registration memory r = _registration();
        r.operatorSignature = sign(operatorKey, enclaves.hostDigest(stranger));
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadOperatorSignature.selector, operator, enclave));
    }

    function test_refusesSignatureWithoutOperator() public {
        I.Registration memory r = _registration();
        r.operator = address(0);
        _prove(r);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadOperatorSignature.selector, address(0), enclave));
    }

    // Renewal

    function test_renewsOverANewerBlock() public {
        _register();
        skip(3 days);
        _nextBlock();
        I.Registration memory r = _registration();
        enclaves.register(r);
        I.Standing memory standing = _standing();
        assertEq(standing.evidenceAt, vm.getBlockTimestamp());
        assertEq(standing.validUntil, vm.getBlockTimestamp() + 7 days);
        assertEq(standing.blockNumber, r.blockNumber);
    }

    function test_renewsUnderANewerEvaluation() public {
        _register();
        _nextBlock();
        enclaves.register(_registrationUnder(18));
        assertEq(_standing().evaluation, 18);
    }

    /// @dev A relayer who leaves the earlier collateral out strands nobody: the record knows how it stood.
    function test_aRenewalUnderANewerEvaluationKeepsHowItStood() public {
        _register();
        _renewUnder(18, TcbStatus.OUT_OF_DATE, 1000, 0);
        _standsEarlier(TcbStatus.UP_TO_DATE, 17, 1000);
        // The same evaluation again, and one more, under which it stands no better.
        _renewUnder(18, TcbStatus.OUT_OF_DATE, 1000, 0);
        _standsEarlier(TcbStatus.UP_TO_DATE, 17, 1000);
        _renewUnder(19, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED, 2000, 0);
        _standsEarlier(TcbStatus.UP_TO_DATE, 17, 1000);
    }

    function test_theLastEvaluationUnderWhichItStoodBestCounts() public {
        _register();
        _renewUnder(18, TcbStatus.UP_TO_DATE, 1000, 0);
        _renewUnder(19, TcbStatus.OUT_OF_DATE, 2000, 0);
        _standsEarlier(TcbStatus.UP_TO_DATE, 18, 2000);
    }

    function test_evidenceCannotTellAWorseEarlierStatusThanTheRecord() public {
        _register();
        _renewUnder(18, TcbStatus.OUT_OF_DATE, 1000, TcbStatus.OUT_OF_DATE);
        _standsEarlier(TcbStatus.UP_TO_DATE, 17, 1000);
        _renewUnder(19, TcbStatus.OUT_OF_DATE, 2000, TcbStatus.UP_TO_DATE);
        _standsEarlier(TcbStatus.UP_TO_DATE, 18, 2000);
    }

    function test_refusesToFallBackToAnOlderEvaluation() public {
        _register();
        _nextBlock();
        _refuses(_registrationUnder(16), abi.encodeWithSelector(I.EnclaveRegistry_OlderEvaluation.selector, 16, 17));
    }

    function test_refusesTheSameBlockTwice() public {
        I.Registration memory r = _registration();
        enclaves.register(r);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_NotNewer.selector, r.blockNumber, r.blockNumber));
    }

    function test_refusesAnOlderBlock() public {
        I.Registration memory older = _registration();
        _nextBlock();
        _register();
        _refuses(
            older, abi.encodeWithSelector(I.EnclaveRegistry_NotNewer.selector, older.blockNumber, older.blockNumber + 1)
        );
    }

    function test_refusesToChangeTheSealingKey() public {
        _register();
        _nextBlock();
        I.Registration memory r = _registration();
        r.sealingKey = keccak256("another key");
        _prove(r);
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.reportData = enclaves.reportDataOf(enclave, r.sealingKey, r.blockHash);
        r.evidence = abi.encode(c);
        I.Identity memory changed = _identity();
        changed.sealingKey = r.sealingKey;
        _refusesChange(r, changed);
    }

    /// @dev R5: a host cannot slip away from under its name.
    function test_refusesToChangeTheOperator() public {
        _register();
        _nextBlock();
        I.Registration memory r = _registration();
        r.operator = address(0);
        r.operatorSignature = "";
        _prove(r);
        I.Identity memory changed = _identity();
        changed.operator = address(0);
        _refusesChange(r, changed);
    }

    function test_refusesToChangeWhatTheEvidenceSays() public {
        _register();
        _nextBlock();
        I.Registration memory r = _registration();
        for (uint256 field; field < 5; ++field) {
            IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
            I.Identity memory changed = _identity();
            bytes32 other = keccak256("other");
            if (field == 0) c.measurement = changed.measurement = other;
            if (field == 1) c.platform = changed.platform = other;
            if (field == 2) c.svnDigest = changed.svnDigest = other;
            if (field == 3) c.verifier = changed.verifier = other;
            if (field == 4) c.tee = changed.tee = TeeKind.TDX;
            r.evidence = abi.encode(c);
            _refusesChange(r, changed);
        }
    }

    /// @dev R2: never over the record of another anchor.
    function test_anotherAnchorIsAnotherRecord() public {
        _register();
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.anchor = keccak256("another anchor");
        c.judgement.tcbStatus = TcbStatus.OUT_OF_DATE;
        r.evidence = abi.encode(c);
        assertEq(enclaves.register(r), c.anchor);
        assertEq(_standing().tcbStatus, TcbStatus.UP_TO_DATE);
    }

    function test_refusesZeroAnchor() public {
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.anchor = 0;
        r.evidence = abi.encode(c);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_Zero.selector, "anchor"));
    }

    // The registry itself

    function test_verifiersAreFixed() public view {
        assertEq(enclaves.verifiers().length, 1);
        assertEq(enclaves.verifiers()[0], address(verifier));
        assertTrue(enclaves.isVerifier(address(verifier)));
        assertFalse(enclaves.isVerifier(stranger));
    }

    function test_refusesBadVerifiers() public {
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](0);
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_BadVerifierCount.selector, 0, 1, 4));
        _deployEnclaves(verifiers);
        verifiers = new IEvidenceVerifier[](5);
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_BadVerifierCount.selector, 5, 1, 4));
        _deployEnclaves(verifiers);
        verifiers = new IEvidenceVerifier[](2);
        verifiers[0] = verifier;
        verifiers[1] = IEvidenceVerifier(stranger);
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_NotAContract.selector, stranger));
        _deployEnclaves(verifiers);
        verifiers[1] = verifier;
        vm.expectRevert(abi.encodeWithSelector(I.EnclaveRegistry_DuplicateVerifier.selector, address(verifier)));
        _deployEnclaves(verifiers);
    }

    function _registrationUnder(uint32 evaluation) private view returns (I.Registration memory r) {
        r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.evaluation = evaluation;
        r.evidence = abi.encode(c);
    }

    /// @param earlier what the evidence shows of the evaluation before, zero for nothing
    function _renewUnder(uint32 evaluation, uint8 status, uint40 changedAt, uint8 earlier) private {
        _nextBlock();
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        (c.judgement.evaluation, c.judgement.tcbStatus, c.judgement.changedAt) = (evaluation, status, changedAt);
        if (earlier != 0) (c.judgement.earlierStatus, c.judgement.earlierEvaluation) = (earlier, evaluation - 1);
        r.evidence = abi.encode(c);
        enclaves.register(r);
    }

    function _standsEarlier(uint8 status, uint32 evaluation, uint40 changedAt) private view {
        assertEq(_standing().earlierStatus, status);
        assertEq(_standing().earlierEvaluation, evaluation);
        assertEq(_standing().changedAt, changedAt);
    }

    function _registersHostedBy(I.Registration memory r) private {
        I.Identity memory identity = _identity();
        identity.operator = r.operator;
        enclaves.register(r);
        assertEq(enclaves.standingOf(ANCHOR, enclave, identity).evidenceAt, vm.getBlockTimestamp());
    }

    function _refusesChange(I.Registration memory r, I.Identity memory changed) private {
        _refuses(
            r,
            abi.encodeWithSelector(
                I.EnclaveRegistry_IdentityChanged.selector, enclaves.digestOf(changed), enclaves.digestOf(_identity())
            )
        );
    }

    function _refuses(I.Registration memory r, bytes memory err) private {
        vm.expectRevert(err);
        enclaves.register(r);
    }

    function _refusesClaims(I.Registration memory r, IEvidenceVerifier.Claims memory c) private {
        r.evidence = abi.encode(c);
        bytes32 expected = enclaves.reportDataOf(enclave, SEALING_KEY, r.blockHash);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_WrongReportData.selector, c.reportData, expected));
    }
}
