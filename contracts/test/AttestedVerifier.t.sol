// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AttestedVerifier} from "../src/AttestedVerifier.sol";
import {VerifierStatement} from "../src/Types.sol";
import {IAttestedVerifier as A} from "../src/interfaces/IAttestedVerifier.sol";
import {IEnclaveRegistry as I} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {TcbStatus, TeeKind} from "../src/libraries/Constants.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Fixture} from "./Fixture.sol";

/// @dev `enclave` of the fixture is the verifier, a registered SGX enclave; `guest` is an SNP guest that it vouches for.
contract AttestedVerifierTest is Fixture {
    AttestedVerifier private attested;
    address private guest;
    uint256 private guestKey;

    bytes32 private constant GUEST_MEASUREMENT = keccak256("guest measurement");
    bytes32 private constant GUEST_PLATFORM = keccak256("guest platform");
    bytes32 private constant AMD = keccak256("AMD root");

    function setUp() public override {
        super.setUp();
        (guest, guestKey) = makeAddrAndKey("guest");
        attested = AttestedVerifier(deploy("AttestedVerifier.sol:AttestedVerifier", ""));
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](2);
        verifiers[0] = verifier;
        verifiers[1] = attested;
        enclaves = _deployEnclaves(verifiers);
        _register();
    }

    // What it vouches for

    function test_registersUnderAnAnchorThatNamesThePath() public {
        I.Registration memory r = _guest(_vouched());
        bytes32 anchor = enclaves.register(r);
        assertEq(anchor, attested.anchorOf(ANCHOR, MEASUREMENT, AMD));
        assertEq(anchor, sha256(abi.encode(sha256("enclave-oracle/attested-anchor/1"), ANCHOR, MEASUREMENT, AMD)));
        I.Standing memory standing = enclaves.standingOf(anchor, guest, _guestIdentity());
        assertEq(standing.tcbStatus, TcbStatus.UP_TO_DATE);
        assertEq(standing.evaluation, 17);
    }

    function testFuzz_takesTheWorseStatus(uint8 own, uint8 told) public {
        own = uint8(bound(own, 1, 9));
        told = uint8(bound(told, 1, 9));
        vm.assume(own != TcbStatus.REVOKED && told != TcbStatus.REVOKED);
        _renewVerifier(own, 30 days);
        VerifierStatement memory s = _vouched();
        s.tcbStatus = told;
        bytes32 anchor = enclaves.register(_guest(s));
        uint8 got = enclaves.standingOf(anchor, guest, _guestIdentity()).tcbStatus;
        assertTrue(got == own || got == told);
        // Intel's order: 1, 2, 3, 4, 8, 9, 5, 6.
        uint8[9] memory rank = [0, 1, 2, 3, 6, 7, 9, 4, 5];
        assertEq(rank[got - 1], rank[own - 1] > rank[told - 1] ? rank[own - 1] : rank[told - 1]);
    }

    function test_refusesARevokedGuest() public {
        VerifierStatement memory s = _vouched();
        s.tcbStatus = TcbStatus.REVOKED;
        _refuses(s, abi.encodeWithSelector(I.EnclaveRegistry_BadTcbStatus.selector, TcbStatus.REVOKED));
    }

    function test_endsWithTheVerifiersRegistration() public {
        _renewVerifier(TcbStatus.UP_TO_DATE, 1 hours);
        bytes32 anchor = enclaves.register(_guest(_vouched()));
        assertEq(enclaves.standingOf(anchor, guest, _guestIdentity()).validUntil, vm.getBlockTimestamp() + 1 hours);
    }

    function test_endsWithWhatTheVerifierSays() public {
        VerifierStatement memory s = _vouched();
        s.validUntil = uint64(vm.getBlockTimestamp() + 2 hours);
        bytes32 anchor = enclaves.register(_guest(s));
        assertEq(enclaves.standingOf(anchor, guest, _guestIdentity()).validUntil, s.validUntil);
    }

    function test_takesNitro() public {
        VerifierStatement memory s = _vouched();
        s.tee = TeeKind.NITRO;
        enclaves.register(_guest(s));
    }

    function test_aNewerStatementLowers() public {
        bytes32 anchor = enclaves.register(_guest(_vouched()));
        VerifierStatement memory s = _vouched();
        s.tcbStatus = TcbStatus.OUT_OF_DATE;
        enclaves.challenge(anchor, guest, _guestIdentity(), address(attested), _attested(s));
        assertEq(enclaves.standingOf(anchor, guest, _guestIdentity()).tcbStatus, TcbStatus.OUT_OF_DATE);
    }

    /// @dev Otherwise whoever owns such a platform could lower everyone.
    function testFuzz_aVerifiersOwnStatusLowersNobody(uint8 own) public {
        own = uint8(bound(own, TcbStatus.SW_HARDENING_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED));
        bytes32 anchor = enclaves.register(_guest(_vouched()));
        _renewVerifier(own, 30 days);
        bytes memory proof = _attested(_vouched());
        vm.expectRevert(
            abi.encodeWithSelector(I.EnclaveRegistry_NotLower.selector, TcbStatus.UP_TO_DATE, TcbStatus.UP_TO_DATE)
        );
        enclaves.challenge(anchor, guest, _guestIdentity(), address(attested), proof);
    }

    function test_aVerifierThatIsOutOfDateChallengesNobody() public {
        bytes32 anchor = enclaves.register(_guest(_vouched()));
        _renewVerifier(TcbStatus.OUT_OF_DATE, 30 days);
        VerifierStatement memory s = _vouched();
        s.tcbStatus = TcbStatus.REVOKED;
        bytes memory proof = _attested(s);
        vm.expectRevert(abi.encodeWithSelector(A.AttestedVerifier_VerifierOutOfDate.selector, TcbStatus.OUT_OF_DATE));
        enclaves.challenge(anchor, guest, _guestIdentity(), address(attested), proof);
    }

    // What it does not vouch for

    function test_refusesKindsThatAContractChecks() public {
        for (uint8 tee; tee <= TeeKind.TDX; ++tee) {
            VerifierStatement memory s = _vouched();
            s.tee = tee;
            _refuses(s, abi.encodeWithSelector(A.AttestedVerifier_BadTeeKind.selector, tee));
        }
    }

    function test_refusesAnotherSignature() public {
        VerifierStatement memory s = _vouched();
        I.Registration memory r = _guest(s);
        enclaveKey = operatorKey;
        r.evidence = _attested(s);
        _refuses(r, abi.encodeWithSelector(A.AttestedVerifier_WrongSigner.selector, operator, enclave));
    }

    /// @dev What recovers to nobody is nobody's, also where nobody is named.
    function test_refusesASignatureThatIsNone() public {
        I.Registration memory r = _guest(_vouched());
        A.Attested memory evidence = abi.decode(r.evidence, (A.Attested));
        evidence.signer = address(0);
        evidence.signature = new bytes(65);
        r.evidence = abi.encode(evidence);
        _refuses(r, abi.encodeWithSelector(A.AttestedVerifier_WrongSigner.selector, address(0), address(0)));
    }

    function test_refusesAStatementThatWasChanged() public {
        I.Registration memory r = _guest(_vouched());
        A.Attested memory evidence = abi.decode(r.evidence, (A.Attested));
        evidence.statement.measurement = keccak256("another measurement");
        r.evidence = abi.encode(evidence);
        vm.expectPartialRevert(A.AttestedVerifier_WrongSigner.selector);
        enclaves.register(r);
    }

    function test_refusesAStatementForAnotherRegistry() public {
        I.Registration memory r = _guest(_vouched());
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](2);
        verifiers[0] = verifier;
        verifiers[1] = attested;
        I other = I(address(enclaves));
        enclaves = _deployEnclaves(verifiers);
        _register();
        I.Registration memory elsewhere = _guest(_vouched());
        elsewhere.evidence = r.evidence;
        assertTrue(address(other) != address(enclaves));
        vm.expectPartialRevert(A.AttestedVerifier_WrongSigner.selector);
        enclaves.register(elsewhere);
    }

    function test_refusesAVerifierThatIsNotRegistered() public {
        VerifierStatement memory s = _vouched();
        I.Registration memory r = _guest(s);
        A.Attested memory evidence = abi.decode(r.evidence, (A.Attested));
        evidence.anchor = keccak256("another anchor");
        r.evidence = abi.encode(evidence);
        _refuses(r, abi.encodeWithSelector(A.AttestedVerifier_InvalidVerifier.selector, evidence.anchor, enclave));
    }

    function test_refusesARetiredVerifier() public {
        vm.prank(enclave);
        enclaves.retire(ANCHOR, enclave, "");
        _refuses(_vouched(), abi.encodeWithSelector(A.AttestedVerifier_InvalidVerifier.selector, ANCHOR, enclave));
    }

    function test_refusesAVerifierWhoseRegistrationEnded() public {
        skip(7 days + 1);
        _nextBlock();
        _refuses(_vouched(), abi.encodeWithSelector(A.AttestedVerifier_InvalidVerifier.selector, ANCHOR, enclave));
    }

    function test_refusesARevokedVerifier() public {
        IEvidenceVerifier.Judgement memory j = _judgement(TcbStatus.REVOKED, 17);
        enclaves.challenge(
            ANCHOR, enclave, _identity(), address(verifier), abi.encode(ANCHOR, _identity().svnDigest, j)
        );
        _refuses(_vouched(), abi.encodeWithSelector(A.AttestedVerifier_InvalidVerifier.selector, ANCHOR, enclave));
    }

    function test_refusesAnotherIdentityOfTheVerifier() public {
        I.Registration memory r = _guest(_vouched());
        A.Attested memory evidence = abi.decode(r.evidence, (A.Attested));
        evidence.identity.measurement = keccak256("another measurement");
        r.evidence = abi.encode(evidence);
        vm.expectPartialRevert(I.EnclaveRegistry_WrongIdentity.selector);
        enclaves.register(r);
    }

    /// @dev The guest, vouched for, cannot vouch for others.
    function test_refusesAVerifierThatRestsOnAnother() public {
        bytes32 anchor = enclaves.register(_guest(_vouched()));
        VerifierStatement memory s = _vouched();
        I.Registration memory r = _guest(s);
        bytes32 digest = MessageHashUtils.toTypedDataHash(enclaves.domainSeparator(), hashing.verifierStatement(s));
        r.evidence = abi.encode(
            A.Attested({
                statement: s,
                anchor: anchor,
                signer: guest,
                identity: _guestIdentity(),
                signature: sign(guestKey, digest)
            })
        );
        _refuses(r, abi.encodeWithSelector(A.AttestedVerifier_Nested.selector, MEASUREMENT));
    }

    function testFuzz_takesAppraisalsWithinTenMinutes(uint64 appraisedAt) public {
        uint256 time = vm.getBlockTimestamp();
        appraisedAt = uint64(bound(appraisedAt, time - 20 minutes, time + 20 minutes));
        VerifierStatement memory s = _vouched();
        s.appraisedAt = appraisedAt;
        if (appraisedAt >= time - 10 minutes && appraisedAt <= time + 10 minutes) enclaves.register(_guest(s));
        else _refuses(s, abi.encodeWithSelector(A.AttestedVerifier_StaleAppraisal.selector, appraisedAt, time, 600));
    }

    function _vouched() private view returns (VerifierStatement memory s) {
        s.tee = TeeKind.SNP;
        s.measurement = GUEST_MEASUREMENT;
        s.reportData = enclaves.reportDataOf(guest, SEALING_KEY, blockhash(vm.getBlockNumber() - 1));
        s.root = AMD;
        s.tcbStatus = TcbStatus.UP_TO_DATE;
        s.platform = GUEST_PLATFORM;
        s.svnDigest = keccak256("guest svn");
        s.collateral = keccak256("collateral");
        s.appraisedAt = uint64(vm.getBlockTimestamp());
        s.validUntil = uint64(vm.getBlockTimestamp() + 30 days);
    }

    function _guestIdentity() private view returns (I.Identity memory) {
        return I.Identity({
            measurement: GUEST_MEASUREMENT,
            platform: GUEST_PLATFORM,
            sealingKey: SEALING_KEY,
            svnDigest: keccak256("guest svn"),
            verifier: MEASUREMENT,
            operator: operator,
            tee: TeeKind.SNP
        });
    }

    function _guest(VerifierStatement memory s) private view returns (I.Registration memory r) {
        r = _registration();
        r.signer = guest;
        r.operatorSignature = sign(operatorKey, enclaves.hostDigest(guest));
        r.proofOfPossession = sign(guestKey, _enrolmentDigest(r));
        r.verifier = address(attested);
        r.evidence = _attested(s);
    }

    function _attested(VerifierStatement memory s) private view returns (bytes memory) {
        bytes32 digest = MessageHashUtils.toTypedDataHash(enclaves.domainSeparator(), hashing.verifierStatement(s));
        return abi.encode(
            A.Attested({
                statement: s,
                anchor: ANCHOR,
                signer: enclave,
                identity: _identity(),
                signature: sign(enclaveKey, digest)
            })
        );
    }

    function _renewVerifier(uint8 status, uint256 validFor) private {
        uint256 time = vm.getBlockTimestamp();
        _nextBlock();
        vm.warp(time);
        I.Registration memory r = _registration();
        IEvidenceVerifier.Claims memory c = _claims(r.blockHash);
        c.judgement.tcbStatus = status;
        c.judgement.validUntil = uint40(time + validFor);
        r.evidence = abi.encode(c);
        enclaves.register(r);
    }

    function _refuses(VerifierStatement memory s, bytes memory err) private {
        _refuses(_guest(s), err);
    }

    function _refuses(I.Registration memory r, bytes memory err) private {
        vm.expectRevert(err);
        enclaves.register(r);
    }
}
