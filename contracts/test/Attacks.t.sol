// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ComputeOracle} from "../src/ComputeOracle.sol";
import {Agreement, Batch, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {TaskState, TcbStatus} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";

/// @notice An enclave registry that knows everybody, or what its author likes.
contract Liar {
    address private immutable oracle;
    bytes private entry;

    constructor(address oracle_) {
        oracle = oracle_;
    }

    function set(bytes calldata entry_) external {
        entry = entry_;
    }

    function standingOf(bytes32, address, IEnclaveRegistry.Identity calldata)
        external
        returns (IEnclaveRegistry.Standing memory s)
    {
        // Fails where it is called by STATICCALL, which is what a view is called by.
        if (entry.length != 0) {
            (bool entered,) = oracle.call(entry);
            require(entered, "not entered");
        }
        s.tcbStatus = TcbStatus.UP_TO_DATE;
        s.evaluation = 17;
        s.evidenceAt = uint40(block.timestamp);
        s.validUntil = type(uint40).max;
    }
}

/// @notice What somebody may try from outside; what may be tried from within a call of the oracle's is in AttacksFromWithin.t.sol.
contract AttacksTest is TaskFixture {
    uint256 private constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    Agreement private a;
    bytes32 private id;
    uint256 private requesterKey;
    address private thief;
    uint256 private thiefKey;

    function setUp() public override {
        super.setUp();
        (, requesterKey) = makeAddrAndKey("requester");
        (thief, thiefKey) = makeAddrAndKey("thief");
        vm.deal(thief, 10 ether);
        a = _roomy(10);
        id = _activate(a);
        _register();
    }

    // Replay

    function test_aRequestForAnotherChainIsRefused() public {
        TaskRequest memory r = _taskRequest(id);
        uint256 chain = vm.getChainId();
        vm.chainId(chain + 1);
        bytes memory signature = sign(requesterKey, oracle.taskIdOf(r));
        vm.chainId(chain);
        _refusesRequest(r, signature);
    }

    function test_aRequestForAnotherOracleIsRefused() public {
        ComputeOracle other = _deployOracle(registry);
        TaskRequest memory r = _taskRequest(id);
        _refusesRequest(r, sign(requesterKey, other.taskIdOf(r)));
    }

    function test_aResultForAnotherChainIsRefused() public {
        (TaskRequest memory r, Result memory result) = _asked();
        uint256 chain = vm.getChainId();
        vm.chainId(chain + 1);
        bytes memory signature = _sign(result);
        vm.chainId(chain);
        _refusesResult(r, result, signature);
    }

    function test_aResultForAnotherOracleIsRefused() public {
        ComputeOracle other = _deployOracle(registry);
        (TaskRequest memory r, Result memory result) = _asked();
        _refusesResult(r, result, sign(enclaveKey, other.resultDigestOf(result)));
    }

    /// @dev The same request again, under another nonce, is another task: the first one's result is not its.
    function test_aResultOfAnotherTaskIsRefused() public {
        (TaskRequest memory r, Result memory result) = _asked();
        bytes memory signature = _sign(result);
        r.nonce = keccak256("another");
        _request(r);
        result.taskId = oracle.taskIdOf(r);
        _refusesResult(r, result, signature);
    }

    function test_aBatchForAnotherChainIsRefused() public {
        Batch memory b = _batch(_requests(id, 2));
        uint256 chain = vm.getChainId();
        vm.chainId(chain + 1);
        bytes memory signature = _signBatch(b);
        vm.chainId(chain);
        _refusesBatch(b, signature);
    }

    function test_aBatchForAnotherOracleIsRefused() public {
        ComputeOracle other = _deployOracle(registry);
        Batch memory b = _batch(_requests(id, 2));
        _refusesBatch(b, sign(enclaveKey, other.batchDigestOf(b)));
    }

    /// @dev What an enclave signs of one kind is nothing of another.
    function test_aSignatureOfOneKindIsNoneOfAnother() public {
        TaskRequest[] memory rs = _requests(id, 1);
        Batch memory b = _batch(rs);
        _refusesBatch(b, _sign(_result(rs[0])));
        _refusesResult(rs[0], _result(rs[0]), _signBatch(b));
        _refusesResult(rs[0], _result(rs[0]), sign(enclaveKey, enclaves.retireDigest(enclave)));
    }

    // Malleability

    function test_noOtherFormOfARequestsSignatureIsTaken() public {
        TaskRequest memory r = _taskRequest(id);
        bytes[5] memory forms = _forms(requesterKey, oracle.taskIdOf(r));
        for (uint256 i; i < forms.length; ++i) {
            _refusesRequest(r, forms[i]);
        }
    }

    function test_noOtherFormOfAResultsSignatureIsTaken() public {
        (TaskRequest memory r, Result memory result) = _asked();
        bytes32 digest = oracle.resultDigestOf(result);
        bytes[5] memory forms = _forms(enclaveKey, digest);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        I.Fulfilment memory f = _fulfilment(r, result);
        for (uint256 i; i < forms.length; ++i) {
            f.signature = forms[i];
            vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_BadSignature.selector, digest));
            oracle.fulfil(settlement, identity, f);
        }
    }

    function test_noOtherFormOfABatchsSignatureIsTaken() public {
        Batch memory b = _batch(_requests(id, 1));
        bytes32 digest = oracle.batchDigestOf(b);
        bytes[5] memory forms = _forms(enclaveKey, digest);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        for (uint256 i; i < forms.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_BadSignature.selector, digest));
            oracle.fulfilBatch(settlement, identity, b, forms[i]);
        }
    }

    /// @dev Digests are made of words as they came, so a word with bits beyond its type would be another digest of the same
    /// values. None is taken: a task has one id, a result one digest.
    function test_noWordHasBitsBeyondItsType() public {
        TaskRequest memory r = _taskRequest(id);
        bytes memory data = abi.encodeCall(I.request, (r, _anyone(), ""));
        // requester, asOf, deadline, callback, callbackGas: of the request, which lies behind three words.
        uint256[5] memory words = [uint256(1), 10, 11, 12, 13];
        for (uint256 i; i < 5; ++i) {
            vm.prank(requester);
            (bool done, bytes memory err) = address(oracle).call{value: FEE}(_dirty(data, 3 + words[i]));
            assertFalse(done, "request");
            assertEq(err.length, 0);
        }
        assertEq(registry.agreement(id).used, 0);
        _request(r);

        data = abi.encodeCall(I.fulfil, (_settlement(a), _identity(), _fulfilment(r, _result(r))));
        // Where they lie is what their values tell: the payee comes once, the outcome two words before it, the length (4096) of
        // the only output once, its kind two words before it.
        uint256 payeeAt = _find(data, uint256(uint160(payee)));
        uint256 lengthAt = _find(data, 4096);
        uint256[4] memory places = [payeeAt, payeeAt - 2, lengthAt, lengthAt - 2];
        for (uint256 i; i < 4; ++i) {
            (bool done,) = address(oracle).call(_dirty(data, places[i]));
            assertFalse(done, "fulfil");
        }
        (bool settled,) = address(oracle).call(data);
        assertTrue(settled);
    }

    // Front-running

    /// @dev The payee is signed: whoever copies a settlement out of the mempool pays its gas, and the payee is paid all the same.
    function test_whoCopiesAFulfilPaysForIt() public {
        (TaskRequest memory r, Result memory result) = _asked();
        I.Fulfilment memory f = _fulfilment(r, result);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.prank(thief);
        oracle.fulfil(settlement, identity, f);
        assertEq(_balance(payee), FEE - _shared(FEE));
        assertEq(_balance(thief), 0);
        vm.expectRevert(
            abi.encodeWithSelector(I.ComputeOracle_NotRequested.selector, result.taskId, TaskState.FULFILLED)
        );
        oracle.fulfil(settlement, identity, f);
    }

    function test_whoCopiesAFulfilCannotBePaid() public {
        (TaskRequest memory r, Result memory result) = _asked();
        bytes memory signature = _sign(result);
        result.payee = thief;
        _refusesResult(r, result, signature);
    }

    function test_whoCopiesABatchCannotBePaid() public {
        Batch memory b = _batch(_requests(id, 2));
        bytes memory signature = _signBatch(b);
        b.payee = thief;
        _refusesBatch(b, signature);
    }

    /// @dev One of a hundred settled first costs the worker nothing but that one's share of gas.
    function test_whoSettlesOneOfManySpoilsNone() public {
        TaskRequest[] memory rs = _requests(id, 5);
        I.Fulfilment[] memory list = _fulfilments(rs);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.prank(thief);
        oracle.fulfil(settlement, identity, list[0]);
        assertEq(oracle.fulfilMany(settlement, identity, list), 4);
        assertEq(_balance(payee), 5 * (FEE - _shared(FEE)));
    }

    function test_whoCopiesARelayedRequestPaysForIt() public {
        TaskRequest memory r = _taskRequest(id);
        bytes memory signature = sign(requesterKey, oracle.taskIdOf(r));
        I.Payment memory payment;
        vm.prank(thief);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, payment);
        assertEq(thief.balance, 10 ether - FEE);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequester.selector, thief, requester));
        vm.prank(thief);
        oracle.cancel(r, _anyone());
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        assertEq(_balance(requester), FEE);
        assertEq(_balance(thief), 0);
    }

    /// @dev Evidence binds the signer, the proof of possession the host: a copy registers the very same enclave.
    function test_whoCopiesARegistrationRegistersTheSame() public {
        (enclave, enclaveKey) = makeAddrAndKey("another boot");
        IEnclaveRegistry.Registration memory registration = _registration();
        vm.prank(thief);
        enclaves.register(registration);
        (bytes32 identity,) = enclaves.record(ANCHOR, enclave);
        assertEq(identity, enclaves.digestOf(_identity()));
        vm.expectPartialRevert(IEnclaveRegistry.EnclaveRegistry_NotNewer.selector);
        enclaves.register(registration);
        // And so it works for its worker.
        (TaskRequest memory r, Result memory result) = _asked();
        _fulfil(a, r, result);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_whoCopiesARegistrationCannotHostIt() public {
        (enclave, enclaveKey) = makeAddrAndKey("another boot");
        IEnclaveRegistry.Registration memory registration = _registration();
        registration.operator = thief;
        registration.operatorSignature = sign(thiefKey, enclaves.hostDigest(enclave));
        vm.expectPartialRevert(IEnclaveRegistry.EnclaveRegistry_WrongProofOfPossession.selector);
        enclaves.register(registration);
    }

    function test_whoCopiesEvidenceCannotSignForIt() public {
        (enclave, enclaveKey) = makeAddrAndKey("another boot");
        bytes memory evidence = _registration().evidence;
        (enclave, enclaveKey) = (thief, thiefKey);
        IEnclaveRegistry.Registration memory registration = _registration();
        registration.evidence = evidence;
        vm.expectPartialRevert(IEnclaveRegistry.EnclaveRegistry_WrongReportData.selector);
        enclaves.register(registration);
    }

    /// @dev R2: evidence over a block that the chain no longer knows is evidence of no time at all.
    function test_evidenceIsTooOldAfter256Blocks() public {
        (enclave, enclaveKey) = makeAddrAndKey("another boot");
        IEnclaveRegistry.Registration memory registration = _registration();
        vm.roll(registration.blockNumber + 257);
        vm.expectRevert(
            abi.encodeWithSelector(
                IEnclaveRegistry.EnclaveRegistry_WrongBlockHash.selector,
                registration.blockNumber,
                registration.blockHash,
                bytes32(0)
            )
        );
        enclaves.register(registration);
        vm.roll(registration.blockNumber + 256);
        vm.setBlockhash(registration.blockNumber, registration.blockHash);
        assertEq(enclaves.register(registration), ANCHOR);
    }

    /// @dev R8: what was asked before the revocation stands, settles and pays; nothing is asked after it, in the same block.
    function test_aRequestJustBeforeARevocationStands() public {
        TaskRequest memory r = _taskRequest(id);
        _request(r);
        vm.prank(hospitalA);
        registry.revoke(id);
        r.nonce = keccak256("just after");
        vm.expectRevert(
            abi.encodeWithSelector(
                IAgreementRegistry.AgreementRegistry_NotActive.selector, id, IAgreementRegistry.Status.Revoked
            )
        );
        _request(r);
        r.nonce = keccak256("nonce");
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_aSignedRequestIsNotRelayedAfterARevocation() public {
        TaskRequest memory r = _taskRequest(id);
        bytes memory signature = sign(requesterKey, oracle.taskIdOf(r));
        I.Payment memory payment;
        vm.prank(hospitalA);
        registry.revoke(id);
        vm.expectPartialRevert(IAgreementRegistry.AgreementRegistry_NotActive.selector);
        vm.prank(thief);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, payment);
    }

    // Griefing, and what it costs

    /// @dev Quota is spent at the request (R9), so a request that nobody can answer in time burns it. Without a `minFee` that
    /// costs the griefer gas; `quotaPerRequester` bounds it per address, a requesters' list bounds the addresses.
    function test_griefingByDeadlineIsFreeWithoutAMinimumFee() public {
        _burnQuota();
        assertEq(_balance(thief), 10 * FEE);
        assertEq(oracle.poolOf(id), 0);
    }

    function test_griefingByDeadlineCostsTheMinimumFee() public {
        a.price.minFee = FEE / 2;
        id = _activate(a);
        _burnQuota();
        assertEq(_balance(thief), 10 * FEE / 2);
        assertEq(oracle.poolOf(id), 10 * FEE / 2);
        oracle.distribute(id, _pricing(a));
        // The parties whose quota it burnt have it, but for a wei that does not divide.
        assertApproxEqAbs(_balance(hospitalA) + _balance(hospitalB), 10 * FEE / 2, 1);
    }

    function test_griefingByDeadlineEndsAtTheRequestersQuota() public {
        a.access.quotaPerRequester = 3;
        id = _activate(a);
        TaskRequest memory r;
        for (uint256 i; i < 3; ++i) {
            r = _hopeless(i);
            _request(r);
        }
        r = _hopeless(3);
        vm.expectRevert(
            abi.encodeWithSelector(IAgreementRegistry.AgreementRegistry_RequesterQuotaSpent.selector, id, thief, 3)
        );
        _request(r);
        assertEq(registry.agreement(id).used, 3);
    }

    /// @dev Asking and cancelling in a loop leaves everything as it was; it cannot keep others out but while it lasts, and each
    /// task of it is there once only.
    function test_griefingByCancelsChangesNothing() public {
        for (uint256 i; i < 30; ++i) {
            TaskRequest memory r = _hopeless(i);
            _request(r);
            vm.prank(thief);
            oracle.cancel(r, _anyone());
        }
        assertEq(registry.agreement(id).used, 0);
        assertEq(_balance(thief), 30 * FEE);
        assertEq(address(oracle).balance, 30 * FEE);
        _requests(id, 10);
        assertEq(registry.agreement(id).used, 10);
    }

    function test_whatIsHeldByOpenRequestsComesBackWithTheCancels() public {
        TaskRequest[10] memory rs;
        for (uint256 i; i < 10; ++i) {
            rs[i] = _hopeless(i);
            _request(rs[i]);
        }
        TaskRequest memory honest = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(IAgreementRegistry.AgreementRegistry_QuotaSpent.selector, id, 10));
        _request(honest);
        vm.prank(thief);
        oracle.cancel(rs[0], _anyone());
        _request(honest);
        // Past the delay nothing comes back: the quota is burnt, as by a deadline.
        vm.roll(vm.getBlockNumber() + RELEASE_DELAY + 1);
        vm.expectPartialRevert(I.ComputeOracle_CancelClosed.selector);
        vm.prank(thief);
        oracle.cancel(rs[1], _anyone());
    }

    // Liars

    function test_aLyingEnclaveRegistryReachesNoOtherAgreement() public {
        TaskRequest[] memory rs = _requests(id, 2);
        Agreement memory lied = _lied(address(new Liar(address(oracle))));
        bytes32 liedId = _activate(lied);
        TaskRequest memory own = _taskRequest(liedId);
        (own.requester, own.nonce) = (thief, keccak256("own"));
        _request(own);
        (enclave, enclaveKey) = (thief, thiefKey);
        payee = thief;
        // Its own agreement's fee is all that it gets, and it paid it.
        _fulfil(lied, own, _result(own));
        assertEq(_balance(thief), FEE - _shared(FEE));

        I.Fulfilment[] memory list = _fulfilments(rs);
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(lied), _identity());
        bytes memory wrong = _wrongSettlement(lied);
        vm.expectRevert(wrong);
        oracle.fulfil(settlement, identity, list[0]);
        vm.expectRevert(wrong);
        oracle.fulfilMany(settlement, identity, list);
        Batch memory b = _batch(rs);
        bytes memory signature = _signBatch(b);
        vm.expectRevert(wrong);
        oracle.fulfilBatch(settlement, identity, b, signature);
        // Named as its own: those tasks are not there.
        b.agreementId = liedId;
        signature = _signBatch(b);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NothingToSettle.selector));
        oracle.fulfilBatch(settlement, identity, b, signature);
        list[0].result.agreementId = liedId;
        list[0].signature = _sign(list[0].result);
        vm.expectPartialRevert(I.ComputeOracle_NotRequested.selector);
        oracle.fulfil(settlement, identity, list[0]);
        // Among its own, too.
        own.nonce = keccak256("own again");
        _request(own);
        list[0] = _fulfilment(own, _result(own));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongAgreement.selector, id, liedId));
        oracle.fulfilMany(settlement, identity, list);
        assertEq(_state(rs[0]), TaskState.REQUESTED);
        assertEq(_state(rs[1]), TaskState.REQUESTED);
    }

    /// @dev The oracle reads it by STATICCALL: it cannot even write its own.
    function test_aLyingEnclaveRegistryChangesNothing() public {
        Liar liar = new Liar(address(oracle));
        Agreement memory lied = _lied(address(liar));
        TaskRequest memory own = _taskRequest(_activate(lied));
        own.requester = thief;
        _request(own);
        (enclave, enclaveKey) = (thief, thiefKey);
        TaskRequest memory victim = _taskRequest(id);
        _request(victim);
        vm.warp(uint256(victim.deadline) + 1);
        own.nonce = keccak256("in time");
        own.asOf = uint64(vm.getBlockTimestamp());
        own.deadline = uint64(vm.getBlockTimestamp() + 1);
        _request(own);
        liar.set(abi.encodeCall(I.expire, (victim, _pricing(a))));
        I.Fulfilment memory f = _fulfilment(own, _result(own));
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(lied), _identity());
        vm.expectRevert("not entered");
        oracle.fulfil(settlement, identity, f);
        assertEq(_state(victim), TaskState.REQUESTED);
    }

    /// @dev What a lying registry's agreement keeps in its pool is all that it can move.
    function test_aPoolIsMovedByItsOwnPriceOnly() public {
        (TaskRequest memory r, Result memory result) = _asked();
        _fulfil(a, r, result);
        Agreement memory lied = _lied(address(new Liar(address(oracle))));
        _activate(lied);
        I.Pricing memory pricing = _pricing(lied);
        bytes memory wrong = _wrongSettlement(lied);
        vm.expectRevert(wrong);
        oracle.distribute(id, pricing);
        assertEq(oracle.poolOf(id), _shared(FEE));
    }

    function test_anEnclaveOfOneAgreementSettlesNoOthers() public {
        (TaskRequest memory r,) = _asked();
        // Attested all right, but other code, which another agreement takes.
        (enclave, enclaveKey) = makeAddrAndKey("another boot");
        IEnclaveRegistry.Registration memory registration = _registration();
        IEvidenceVerifier.Claims memory claims = _claims(registration.blockHash);
        claims.measurement = keccak256("another measurement");
        registration.evidence = abi.encode(claims);
        enclaves.register(registration);
        IEnclaveRegistry.Identity memory identity = _identity();
        identity.measurement = claims.measurement;

        Agreement memory other = _roomy(10);
        other.tee.measurements = _one(claims.measurement);
        TaskRequest memory own = _taskRequest(_activate(other));
        _request(own);
        oracle.fulfil(_settlement(other), identity, _fulfilment(own, _result(own)));
        assertEq(_state(own), TaskState.FULFILLED);

        I.Fulfilment memory f = _fulfilment(r, _result(r));
        I.Settlement memory settlement = _settlement(a);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_MeasurementNotAgreed.selector, claims.measurement));
        oracle.fulfil(settlement, identity, f);
        settlement = _settlement(other);
        vm.expectPartialRevert(I.ComputeOracle_WrongSettlement.selector);
        oracle.fulfil(settlement, identity, f);
        // Nor as what it is not.
        settlement = _settlement(a);
        identity = _identity();
        vm.expectPartialRevert(IEnclaveRegistry.EnclaveRegistry_WrongIdentity.selector);
        oracle.fulfil(settlement, identity, f);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function _asked() private returns (TaskRequest memory r, Result memory result) {
        r = _taskRequest(id);
        _request(r);
        result = _result(r);
    }

    /// @dev A request of the thief's that ends before anybody can answer.
    function _hopeless(uint256 nonce) private view returns (TaskRequest memory r) {
        r = _taskRequest(id);
        (r.requester, r.nonce) = (thief, bytes32(nonce));
        r.deadline = uint64(vm.getBlockTimestamp() + 1);
    }

    function _burnQuota() private {
        TaskRequest[10] memory rs;
        for (uint256 i; i < 10; ++i) {
            rs[i] = _hopeless(i);
            _request(rs[i]);
        }
        skip(2);
        for (uint256 i; i < 10; ++i) {
            oracle.expire(rs[i], _pricing(a));
        }
        TaskRequest memory honest = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(IAgreementRegistry.AgreementRegistry_QuotaSpent.selector, id, 10));
        _request(honest);
    }

    /// @dev An agreement that the thief would have if the parties signed it: settled by whom its own registry likes.
    function _lied(address liar) private view returns (Agreement memory lied) {
        lied = _roomy(10);
        lied.enclaveRegistry = liar;
    }

    function _wrongSettlement(Agreement memory other) private view returns (bytes memory) {
        bytes32 got = hashing.settlementHash(other.enclaveRegistry, hashing.enclaves(other.tee), other.price);
        return abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, registry.settlementHashOf(id));
    }

    /// @dev The call with the highest byte of a word of its arguments set.
    function _dirty(bytes memory data, uint256 word) private pure returns (bytes memory changed) {
        changed = bytes.concat(data);
        assertEq(uint8(changed[4 + 32 * word]), 0);
        changed[4 + 32 * word] = 0x01;
    }

    function _find(bytes memory data, uint256 value) private pure returns (uint256 word) {
        uint256 count;
        for (uint256 i; i < (data.length - 4) / 32; ++i) {
            uint256 got;
            assembly ("memory-safe") {
                got := mload(add(data, add(0x24, shl(5, i))))
            }
            if (got == value) (word, count) = (i, count + 1);
        }
        assertEq(count, 1, "comes once");
    }

    /// @dev High s; compact (EIP-2098); with a byte more; v as 0 or 1; r and s zero.
    function _forms(uint256 key, bytes32 digest) private pure returns (bytes[5] memory forms) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        forms[0] = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        (bytes32 compactR, bytes32 vs) = vm.signCompact(key, digest);
        forms[1] = abi.encodePacked(compactR, vs);
        forms[2] = abi.encodePacked(r, s, v, uint8(0));
        forms[3] = abi.encodePacked(r, s, v - 27);
        forms[4] = abi.encodePacked(bytes32(0), bytes32(0), v);
    }

    function _refusesRequest(TaskRequest memory r, bytes memory signature) private {
        bytes32 taskId = oracle.taskIdOf(r);
        I.Payment memory payment;
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_BadRequestSignature.selector, taskId, requester));
        vm.prank(thief);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, payment);
    }

    /// @dev The signature is somebody's, but of nobody who is registered.
    function _refusesResult(TaskRequest memory r, Result memory result, bytes memory signature) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        I.Fulfilment memory f = _fulfilment(r, result);
        f.signature = signature;
        vm.expectPartialRevert(I.ComputeOracle_UnknownEnclave.selector);
        oracle.fulfil(settlement, identity, f);
    }

    function _refusesBatch(Batch memory b, bytes memory signature) private {
        (I.Settlement memory settlement, IEnclaveRegistry.Identity memory identity) = (_settlement(a), _identity());
        vm.expectPartialRevert(I.ComputeOracle_UnknownEnclave.selector);
        oracle.fulfilBatch(settlement, identity, b, signature);
    }
}
