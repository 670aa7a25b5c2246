// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {VerifierStatement} from "../src/Types.sol";
import {IDevelopmentVerifier as D} from "../src/interfaces/IDevelopmentVerifier.sol";
import {IEnclaveRegistry as I} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

contract RegisterTest is Fixture {
    // What a registration records

    function test_anyoneRelaysARegistration() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        I.Identity memory expected = _expected(r, s);
        vm.expectEmit(address(enclaves));
        emit I.EnclaveRegistered(verifier.anchor(), enclave, MEASUREMENT, expected, address(verifier), s);
        vm.prank(stranger);
        bytes32 anchor = enclaves.register(r);

        assertEq(anchor, verifier.anchor());
        assertEq(keccak256(abi.encode(enclaves.identity(anchor, enclave))), keccak256(abi.encode(expected)));
        assertTrue(enclaves.isValid(anchor, enclave));
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
        assertFalse(enclaves.isValid(verifier.anchor(), enclave));
    }

    function test_validityEndsWithTheAppraisal() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.validUntil = uint64(vm.getBlockTimestamp() + 1 hours);
        r.evidence = _evidence(s);
        bytes32 anchor = enclaves.register(r);
        assertEq(enclaves.identity(anchor, enclave).validUntil, s.validUntil);
        vm.warp(s.validUntil);
        assertTrue(enclaves.isValid(anchor, enclave));
        vm.warp(uint256(s.validUntil) + 1);
        assertFalse(enclaves.isValid(anchor, enclave));
    }

    function test_validityIsSevenDaysAtMost() public {
        uint256 start = vm.getBlockTimestamp();
        bytes32 anchor = _register();
        assertEq(enclaves.identity(anchor, enclave).validUntil, start + 7 days);
    }

    // The evidence

    function test_refusesUnknownVerifier() public {
        I.Registration memory r = _registration();
        r.verifier = address(registry);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_UnknownVerifier.selector, address(registry)));
    }

    function test_refusesAnotherAppraiser() public {
        I.Registration memory r = _registration();
        appraiserKey = operatorKey;
        r.evidence = _evidence(_statement(r.blockHash));
        _refuses(
            r, abi.encodeWithSelector(D.DevelopmentVerifier_WrongAppraiser.selector, operator, verifier.appraiser())
        );
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
        _refusesStatement(r, _statement(keccak256("another block")));
    }

    function test_refusesEvidenceForAnotherRegistry() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](1);
        verifiers[0] = verifier;
        s.reportData = _deployEnclaves(verifiers).reportDataOf(enclave, SEALING_KEY, r.blockHash);
        _refusesStatement(r, s);
    }

    function test_refusesEvidenceOfAnotherSigner() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.reportData = enclaves.reportDataOf(stranger, SEALING_KEY, r.blockHash);
        _refusesStatement(r, s);
    }

    function test_refusesEvidenceOfAnotherSealingKey() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.reportData = enclaves.reportDataOf(enclave, keccak256("another key"), r.blockHash);
        _refusesStatement(r, s);
    }

    function test_refusesZeroSealingKey() public {
        I.Registration memory r = _registration();
        r.sealingKey = 0;
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_Zero.selector, "sealingKey"));
    }

    function testFuzz_takesAppraisalsWithinTenMinutes(uint64 appraisedAt) public {
        uint256 time = vm.getBlockTimestamp();
        appraisedAt = uint64(bound(appraisedAt, time - 20 minutes, time + 20 minutes));
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.appraisedAt = appraisedAt;
        r.evidence = _evidence(s);
        if (appraisedAt >= time - 10 minutes && appraisedAt <= time + 10 minutes) enclaves.register(r);
        else _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_StaleAppraisal.selector, appraisedAt, time, 600));
    }

    function test_refusesEvidenceThatExpired() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.validUntil = uint64(vm.getBlockTimestamp());
        r.evidence = _evidence(s);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_EvidenceExpired.selector, s.validUntil, s.validUntil));
    }

    function test_refusesZeroMeasurement() public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.measurement = 0;
        r.evidence = _evidence(s);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_Zero.selector, "measurement"));
    }

    function testFuzz_takesEveryStatusButRevoked(uint8 status) public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.tcbStatus = status;
        r.evidence = _evidence(s);
        if (status >= 1 && status <= 9 && status != 7) enclaves.register(r);
        else _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_BadTcbStatus.selector, status));
    }

    function test_refusesRevokedPlatform() public {
        testFuzz_takesEveryStatusButRevoked(7);
    }

    function testFuzz_takesTheFourTeeKinds(uint8 tee) public {
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.tee = tee;
        r.evidence = _evidence(s);
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
        assertEq(enclaves.identity(enclaves.register(r), enclave).operator, address(0));
    }

    function test_takesOperatorByERC1271() public {
        I.Registration memory r = _registration();
        r.operator = address(new Wallet(operator));
        _prove(r);
        assertEq(enclaves.identity(enclaves.register(r), enclave).operator, r.operator);
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
        bytes32 anchor = _register();
        skip(3 days);
        _nextBlock();
        I.Registration memory r = _registration();
        enclaves.register(r);
        I.Identity memory identity = enclaves.identity(anchor, enclave);
        assertEq(identity.evidenceAt, vm.getBlockTimestamp());
        assertEq(identity.validUntil, vm.getBlockTimestamp() + 7 days);
        assertEq(identity.blockNumber, r.blockNumber);
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
        VerifierStatement memory s = _statement(r.blockHash);
        s.reportData = enclaves.reportDataOf(enclave, r.sealingKey, r.blockHash);
        r.evidence = _evidence(s);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_SealingKeyChanged.selector, r.sealingKey, SEALING_KEY));
    }

    function test_refusesToChangeTheMeasurement() public {
        _register();
        _nextBlock();
        I.Registration memory r = _registration();
        VerifierStatement memory s = _statement(r.blockHash);
        s.measurement = keccak256("another measurement");
        r.evidence = _evidence(s);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_MeasurementChanged.selector, s.measurement, MEASUREMENT));
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

    function _expected(I.Registration memory r, VerifierStatement memory s) private view returns (I.Identity memory) {
        return I.Identity({
            measurement: s.measurement,
            platform: s.platform,
            operator: r.operator,
            tee: s.tee,
            tcbStatus: s.tcbStatus,
            retired: false,
            evaluation: s.evaluation,
            evidenceAt: uint40(vm.getBlockTimestamp()),
            validUntil: uint64(vm.getBlockTimestamp() + 7 days),
            blockNumber: uint64(r.blockNumber),
            sealingKey: r.sealingKey,
            svnDigest: s.svnDigest
        });
    }

    function _refuses(I.Registration memory r, bytes memory err) private {
        vm.expectRevert(err);
        enclaves.register(r);
    }

    function _refusesStatement(I.Registration memory r, VerifierStatement memory s) private {
        r.evidence = _evidence(s);
        bytes32 expected = enclaves.reportDataOf(enclave, SEALING_KEY, r.blockHash);
        _refuses(r, abi.encodeWithSelector(I.EnclaveRegistry_WrongReportData.selector, s.reportData, expected));
    }
}
