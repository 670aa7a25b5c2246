// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Batch, Enclaves, Out, Price, Result, TaskRequest} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "./interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "./interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "./interfaces/IEnclaveRegistry.sol";
import {BPS, ConsentKind, EIP712_NAME, EIP712_VERSION, Outcome, TaskState} from "./libraries/Constants.sol";
import {EnclavePolicy} from "./libraries/EnclavePolicy.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Payments} from "./libraries/Payments.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TaskSlot, TaskSlots} from "./libraries/TaskSlot.sol";

/// @title ComputeOracle
/// @notice See IComputeOracle.
contract ComputeOracle is IComputeOracle, IERC165, EIP712, ReentrancyGuardTransient {
    /// @dev What one settlement pays: all of it to one pool, one token and, as a rule, one payee.
    struct Tally {
        bytes32 agreementId;
        bytes32 anchor;
        address signer;
        address token;
        address payee;
        uint256 toPayee;
        uint256 toPool;
        uint256 bps;
        uint256 failedFee;
        uint256 settled;
    }

    uint256 private constant MAX_AS_OF_AGE = 1 hours;
    uint256 private constant MAX_DURATION = 30 days;
    uint256 private constant MAX_PARAMS = 4096;
    uint256 private constant MAX_URI = 2048;
    uint256 private constant MAX_CALLBACK_GAS = 1_000_000;
    /// @dev What is left for the call itself (2,600, cold) and, when it fails, its event and its mark.
    uint256 private constant CALLBACK_RESERVE = 12_000;
    /// @dev `Out.recipientsDigest` of an output that has none: H("recipients", []).
    bytes32 private constant PUBLIC = 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d;

    IAgreementRegistry public immutable agreements;

    mapping(bytes32 agreementId => mapping(bytes32 taskId => TaskSlot)) private _tasks;
    mapping(address token => mapping(address account => uint256)) public balanceOf;
    mapping(bytes32 agreementId => uint256) public poolOf;

    constructor(IAgreementRegistry agreements_) EIP712(EIP712_NAME, EIP712_VERSION) {
        if (address(agreements_).code.length == 0) revert ComputeOracle_NotAContract(address(agreements_));
        agreements = agreements_;
    }

    // Requests

    function request(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission, string calldata uri)
        external
        payable
        nonReentrant
        returns (bytes32 taskId)
    {
        if (r.requester != msg.sender) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        taskId = taskIdOf(r);
        // Its off values: an allowance.
        // slither-disable-next-line uninitialized-local
        Payment memory payment;
        _request(taskId, r, admission, uri, payment);
    }

    function requestFor(
        TaskRequest calldata r,
        IAgreementRegistry.Admission calldata admission,
        string calldata uri,
        bytes calldata signature,
        Payment calldata payment
    ) external payable nonReentrant returns (bytes32 taskId) {
        taskId = taskIdOf(r);
        if (r.requester != msg.sender && Signatures.kindOf(r.requester, taskId, signature) == ConsentKind.NONE) {
            revert ComputeOracle_BadRequestSignature(taskId, r.requester);
        }
        _request(taskId, r, admission, uri, payment);
    }

    function cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external nonReentrant {
        (bytes32 taskId, TaskSlot slot) = _requested(r);
        if (msg.sender != r.requester) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        // R9: past this block brokers may have released. Zero is an agreement without cancel.
        if (block.number > slot.cancelUntil()) revert ComputeOracle_CancelClosed(block.number, slot.cancelUntil());

        _tasks[r.agreementId][taskId] = TaskSlots.closed(TaskState.CANCELLED);
        emit TaskCancelled(taskId, r.agreementId, r.requester);
        address token = agreements.unspend(r.agreementId, r.requester, r.versions, r.spend, admission);
        _credit(token, r.requester, slot.escrow());
    }

    // Settlement

    function fulfil(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Fulfilment calldata fulfilment
    ) external nonReentrant {
        Result calldata result = fulfilment.result;
        TaskSlot slot = _tasks[result.agreementId][result.taskId];
        if (slot.state() != TaskState.REQUESTED) revert ComputeOracle_NotRequested(result.taskId, slot.state());
        if (block.timestamp > slot.deadline()) revert ComputeOracle_DeadlinePassed(block.timestamp, slot.deadline());
        bytes32 digest = resultDigestOf(result);
        bytes calldata signature = fulfilment.signature;
        Tally memory tally = _open(settlement, enclave, result.agreementId, result.anchor, _signer(digest, signature));
        _settle(tally, fulfilment, result, signature, slot, digest);
        _close(tally);
        if (slot.callback()) _callBack(fulfilment);
    }

    function fulfilMany(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Fulfilment[] calldata fulfilments
    ) external nonReentrant returns (uint256 settled) {
        uint256 count = fulfilments.length;
        if (count == 0) revert ComputeOracle_NothingToSettle();
        bool[] memory callsBack = new bool[](count);
        // Filled in by the first.
        // slither-disable-next-line uninitialized-local
        Tally memory tally;
        for (uint256 i; i < count; ++i) {
            Fulfilment calldata fulfilment = fulfilments[i];
            Result calldata result = fulfilment.result;
            bytes calldata signature = fulfilment.signature;
            bytes32 digest = resultDigestOf(result);
            address signer = _signer(digest, signature);
            if (i == 0) tally = _open(settlement, enclave, result.agreementId, result.anchor, signer);
            else _checkSame(tally, result, signer);
            TaskSlot slot = _tasks[tally.agreementId][result.taskId];
            if (slot.state() != TaskState.REQUESTED || block.timestamp > slot.deadline()) continue;
            _settle(tally, fulfilment, result, signature, slot, digest);
            callsBack[i] = slot.callback();
        }
        settled = _close(tally);
        for (uint256 i; i < count; ++i) {
            if (callsBack[i]) _callBack(fulfilments[i]);
        }
    }

    function fulfilBatch(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        Batch calldata batch,
        bytes calldata signature
    ) external nonReentrant returns (uint256 settled) {
        if (batch.tasks.length != batch.results.length) {
            revert ComputeOracle_WrongBatch(batch.tasks.length, batch.results.length);
        }
        if (batch.payee == address(0)) revert ComputeOracle_ZeroPayee();
        Tally memory tally =
            _open(settlement, enclave, batch.agreementId, batch.anchor, _signer(batchDigestOf(batch), signature));
        tally.payee = batch.payee;
        _settleBatch(tally, batch);
        settled = _close(tally);
        emit BatchFulfilled(batch.agreementId, tally.signer, batch.payee, batch.anchor, settled, signature);
    }

    function expire(TaskRequest calldata r, Pricing calldata pricing) external nonReentrant {
        (bytes32 taskId, TaskSlot slot) = _requested(r);
        if (block.timestamp <= slot.deadline()) {
            revert ComputeOracle_DeadlineNotPassed(block.timestamp, slot.deadline());
        }
        _checkPricing(r.agreementId, pricing);

        _tasks[r.agreementId][taskId] = TaskSlots.closed(TaskState.EXPIRED);
        uint256 kept = pricing.price.minFee;
        if (kept != 0) poolOf[r.agreementId] += kept;
        _credit(pricing.price.token, r.requester, slot.escrow() - kept);
        emit TaskExpired(taskId, r.agreementId, r.requester);
    }

    function retryCallback(TaskRequest calldata r, Result calldata result, bytes[] calldata publicOutputs)
        external
        nonReentrant
    {
        bytes32 taskId = taskIdOf(r);
        TaskSlot slot = _tasks[r.agreementId][taskId];
        bool settled = slot.state() == TaskState.FULFILLED || slot.state() == TaskState.FAILED;
        if (!settled || !slot.callback()) revert ComputeOracle_NoFailedCallback(taskId);
        bytes31 got = bytes31(resultDigestOf(result));
        if (got != slot.resultDigest()) revert ComputeOracle_WrongResult(got, slot.resultDigest());
        _checkPublicOutputs(result.outputs, publicOutputs);

        _tasks[r.agreementId][taskId] = slot.withoutCallback();
        emit CallbackDelivered(taskId, r.callback);
        bytes memory data =
            abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, result.outcome, result, publicOutputs));
        // Else a stranger could spend the one retry on a callee that survives a call of its own running out of gas.
        _checkGas(r.callbackGas);
        if (!_call(r.callback, gasleft(), data)) revert ComputeOracle_CallbackFailedAgain(taskId);
    }

    // Money

    function distribute(bytes32 agreementId, Pricing calldata pricing) external nonReentrant returns (uint256 amount) {
        _checkPricing(agreementId, pricing);
        Price calldata price = pricing.price;
        uint256 pool = poolOf[agreementId];
        if (pool == 0) revert ComputeOracle_NothingToDistribute(agreementId);
        uint256 bps = _bpsOf(price);
        for (uint256 i; i < price.to.length; ++i) {
            uint256 share = pool * price.bps[i] / bps;
            amount += share;
            _credit(price.token, price.to[i], share);
        }
        if (amount == 0) revert ComputeOracle_NothingToDistribute(agreementId);
        poolOf[agreementId] = pool - amount;
        emit Distributed(agreementId, price.token, amount);
    }

    function withdraw(address token, address to) external nonReentrant returns (uint256 amount) {
        amount = balanceOf[token][msg.sender];
        if (amount == 0) revert ComputeOracle_NothingToWithdraw(msg.sender, token);
        balanceOf[token][msg.sender] = 0;
        emit Withdrawn(msg.sender, token, to, amount);
        Payments.pay(token, to, amount);
    }

    // Views

    function task(bytes32 agreementId, bytes32 taskId) external view returns (Task memory t) {
        TaskSlot slot = _tasks[agreementId][taskId];
        t.state = slot.state();
        t.callback = slot.callback();
        if (t.state == TaskState.REQUESTED) {
            t.requestBlock = slot.requestBlock();
            t.deadline = slot.deadline();
            t.cancelUntil = slot.cancelUntil();
            t.escrow = slot.escrow();
        } else {
            t.resultDigest = slot.resultDigest();
        }
    }

    function taskIdOf(TaskRequest calldata r) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(r));
    }

    function resultDigestOf(Result calldata result) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(result));
    }

    function batchDigestOf(Batch calldata batch) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(batch));
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IComputeOracle).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    // Inside

    // The registry is this contract's own, fixed at construction, calls only the streams fixed at its own, and every writer here
    // is nonReentrant; a reader inside `spend` or inside the token would see a task that is not there yet, or not paid yet.
    // Its two callers are payable.
    // slither-disable-next-line reentrancy-no-eth,msg-value-in-nonpayable
    function _request(
        bytes32 taskId,
        TaskRequest calldata r,
        IAgreementRegistry.Admission calldata admission,
        string calldata uri,
        Payment memory payment
    ) private {
        _checkRequest(r, uri);
        TaskSlot slot = _tasks[r.agreementId][taskId];
        if (slot.state() != TaskState.NONE) revert ComputeOracle_TaskExists(taskId, slot.state());

        IAgreementRegistry.Terms memory terms =
            agreements.spend(r.agreementId, r.requester, r.versions, r.spend, admission);
        if (terms.fee > r.maxFee) revert ComputeOracle_FeeAboveMax(terms.fee, r.maxFee);
        uint256 native = terms.token == address(0) ? terms.fee : 0;
        if (msg.value != native) revert ComputeOracle_WrongPayment(msg.value, native);

        uint256 cancelUntil = terms.releaseDelay == 0 ? 0 : block.number + terms.releaseDelay;
        _tasks[r.agreementId][taskId] =
            TaskSlots.requested(block.number, r.deadline, cancelUntil, terms.fee, r.callback != address(0));
        emit TaskRequested(taskId, r.agreementId, r.requester, r, uri);
        if (terms.token != address(0) && terms.fee != 0) {
            Payments.pull(terms.token, r.requester, terms.fee, taskId, payment);
        }
    }

    function _requested(TaskRequest calldata r) private view returns (bytes32 taskId, TaskSlot slot) {
        taskId = taskIdOf(r);
        slot = _tasks[r.agreementId][taskId];
        if (slot.state() != TaskState.REQUESTED) revert ComputeOracle_NotRequested(taskId, slot.state());
    }

    function _checkRequest(TaskRequest calldata r, string calldata uri) private view {
        if (r.inputsId != 0) revert ComputeOracle_NotYetSupported("inputsId");
        if (r.inputShares != 0) revert ComputeOracle_NotYetSupported("inputShares");
        // R14: this is the only time that the enclave goes by.
        if (r.asOf > block.timestamp || r.asOf + MAX_AS_OF_AGE < block.timestamp) {
            revert ComputeOracle_BadAsOf(r.asOf, block.timestamp, MAX_AS_OF_AGE);
        }
        if (r.deadline <= block.timestamp || r.deadline > block.timestamp + MAX_DURATION) {
            revert ComputeOracle_BadDeadline(r.deadline, block.timestamp, MAX_DURATION);
        }
        if (r.params.length > MAX_PARAMS) revert ComputeOracle_ParamsTooLong(r.params.length, MAX_PARAMS);
        if (bytes(uri).length > MAX_URI) revert ComputeOracle_UriTooLong(bytes(uri).length, MAX_URI);
        if (r.callback == address(0)) {
            if (r.callbackGas != 0) revert ComputeOracle_BadCallbackGas(r.callbackGas, 0, 0);
        } else {
            if (r.callback != r.requester || r.callback.code.length == 0) {
                revert ComputeOracle_BadCallback(r.callback, r.requester);
            }
            if (r.callbackGas == 0 || r.callbackGas > MAX_CALLBACK_GAS) {
                revert ComputeOracle_BadCallbackGas(r.callbackGas, 1, MAX_CALLBACK_GAS);
            }
        }
    }

    function _signer(bytes32 digest, bytes calldata signature) private pure returns (address signer) {
        signer = Signatures.recover(digest, signature);
        if (signer == address(0)) revert ComputeOracle_BadSignature(digest);
    }

    /// @dev R8: reads what was signed and what is registered, never what was narrowed since.
    function _open(
        Settlement calldata settlement,
        IEnclaveRegistry.Identity calldata enclave,
        bytes32 agreementId,
        bytes32 anchor,
        address signer
    ) private view returns (Tally memory tally) {
        Enclaves calldata tee = settlement.tee;
        Price calldata price = settlement.price;
        address registry = settlement.enclaveRegistry;
        _checkSettlement(agreementId, Hashing.settlementHash(registry, Hashing.hash(tee), price));
        IEnclaveRegistry.Standing memory standing = IEnclaveRegistry(registry).standingOf(anchor, signer, enclave);
        EnclavePolicy.check(tee, enclave, standing, anchor, signer);
        tally.agreementId = agreementId;
        tally.anchor = anchor;
        tally.signer = signer;
        tally.token = price.token;
        tally.failedFee = price.failedFee;
        tally.bps = _bpsOf(price);
    }

    /// @dev One enclave was checked, so all results are of it, and of the agreement that it was checked for.
    function _checkSame(Tally memory tally, Result calldata result, address signer) private pure {
        if (result.agreementId != tally.agreementId) {
            revert ComputeOracle_WrongAgreement(result.agreementId, tally.agreementId);
        }
        if (signer != tally.signer || result.anchor != tally.anchor) {
            revert ComputeOracle_UnknownEnclave(result.anchor, signer);
        }
    }

    function _checkPricing(bytes32 agreementId, Pricing calldata pricing) private view {
        _checkSettlement(agreementId, Hashing.settlementHash(pricing.enclaveRegistry, pricing.teeHash, pricing.price));
    }

    function _checkSettlement(bytes32 agreementId, bytes32 got) private view {
        bytes32 expected = agreements.settlementHashOf(agreementId);
        if (got != expected) revert ComputeOracle_WrongSettlement(got, expected);
    }

    function _settle(
        Tally memory tally,
        Fulfilment calldata fulfilment,
        Result calldata result,
        bytes calldata signature,
        TaskSlot slot,
        bytes32 digest
    ) private {
        Out[] calldata outputs = result.outputs;
        bytes[] calldata publicOutputs = fulfilment.publicOutputs;
        bool succeeded = result.outcome == Outcome.SUCCEEDED;
        if (!succeeded && result.outcome != Outcome.FAILED) revert ComputeOracle_BadOutcome(result.outcome);
        if (succeeded != (outputs.length != 0)) revert ComputeOracle_WrongOutputs(result.outcome, outputs.length);
        if (result.payee == address(0)) revert ComputeOracle_ZeroPayee();
        _checkPublicOutputs(outputs, publicOutputs);
        if (!succeeded || slot.callback()) _checkRequestOf(fulfilment);

        _tasks[tally.agreementId][result.taskId] =
            TaskSlots.settled(succeeded ? TaskState.FULFILLED : TaskState.FAILED, digest);
        if (result.payee != tally.payee) {
            _credit(tally.token, tally.payee, tally.toPayee);
            (tally.payee, tally.toPayee) = (result.payee, 0);
        }
        if (succeeded) {
            _tallySuccess(tally, slot.escrow());
        } else {
            ++tally.settled;
            tally.toPayee += tally.failedFee;
            _credit(tally.token, fulfilment.request[0].requester, slot.escrow() - tally.failedFee);
        }
        emit TaskFulfilled(result.taskId, tally.agreementId, tally.signer, digest, result, signature);
        if (publicOutputs.length != 0) emit PublicOutputs(result.taskId, publicOutputs);
    }

    /// @dev The one loop whose every step a thousand tasks pay for: nothing in it touches memory but the scratch space.
    function _settleBatch(Tally memory tally, Batch calldata batch) private {
        mapping(bytes32 taskId => TaskSlot) storage tasks = _tasks[batch.agreementId];
        bytes32[] calldata ids = batch.tasks;
        bytes32[] calldata digests = batch.results;
        bytes32 settledInBatch = TaskFulfilledInBatch.selector;
        uint256 escrow;
        uint256 settled;
        for (uint256 i; i < ids.length; ++i) {
            bytes32 taskId;
            bytes32 digest;
            bytes32 key;
            TaskSlot slot;
            assembly ("memory-safe") {
                taskId := calldataload(add(ids.offset, shl(5, i)))
                digest := calldataload(add(digests.offset, shl(5, i)))
                mstore(0x00, taskId)
                mstore(0x20, tasks.slot)
                key := keccak256(0x00, 0x40)
                slot := sload(key)
            }
            if (slot.state() != TaskState.REQUESTED || block.timestamp > slot.deadline()) continue;
            if (slot.callback()) revert ComputeOracle_CallsBack(taskId);
            escrow = slot.escrow();
            ++settled;
            slot = TaskSlots.settled(TaskState.FULFILLED, digest);
            assembly ("memory-safe") {
                sstore(key, slot)
                mstore(0x00, digest)
                log2(0x00, 0x20, settledInBatch, taskId)
            }
        }
        // Tasks of one agreement have one fee. Each is rounded for itself, as when they settle one by one.
        uint256 shared = escrow * tally.bps / BPS;
        // slither-disable-next-line divide-before-multiply
        tally.toPool = settled * shared;
        tally.toPayee = settled * (escrow - shared);
        tally.settled = settled;
    }

    function _tallySuccess(Tally memory tally, uint256 escrow) private pure {
        uint256 shared = escrow * tally.bps / BPS;
        tally.toPool += shared;
        tally.toPayee += escrow - shared;
        ++tally.settled;
    }

    function _close(Tally memory tally) private returns (uint256 settled) {
        settled = tally.settled;
        if (settled == 0) revert ComputeOracle_NothingToSettle();
        if (tally.toPool != 0) poolOf[tally.agreementId] += tally.toPool;
        _credit(tally.token, tally.payee, tally.toPayee);
    }

    function _checkRequestOf(Fulfilment calldata fulfilment) private view {
        bytes32 taskId = fulfilment.result.taskId;
        if (fulfilment.request.length != 1) revert ComputeOracle_RequestMissing(taskId);
        bytes32 got = taskIdOf(fulfilment.request[0]);
        if (got != taskId) revert ComputeOracle_WrongTask(got, taskId);
    }

    function _checkPublicOutputs(Out[] calldata outputs, bytes[] calldata contents) private pure {
        uint256 count;
        for (uint256 i; i < outputs.length; ++i) {
            Out calldata output = outputs[i];
            if (output.recipientsDigest != PUBLIC) continue;
            if (count == contents.length) revert ComputeOracle_WrongPublicOutputCount(contents.length, count + 1);
            bytes32 got = sha256(contents[count++]);
            if (got != output.digest) revert ComputeOracle_WrongPublicOutput(i, got, output.digest);
        }
        if (count != contents.length) revert ComputeOracle_WrongPublicOutputCount(contents.length, count);
    }

    function _bpsOf(Price calldata price) private pure returns (uint256 bps) {
        uint16[] calldata shares = price.bps;
        for (uint256 i; i < shares.length; ++i) {
            bps += shares[i];
        }
    }

    function _credit(address token, address account, uint256 amount) private {
        if (amount != 0) balanceOf[token][account] += amount;
    }

    /// @dev Last, so that everything is settled whatever happens in there (R20).
    function _callBack(Fulfilment calldata fulfilment) private {
        TaskRequest calldata r = fulfilment.request[0];
        Result calldata result = fulfilment.result;
        bytes memory data = abi.encodeCall(
            IComputeConsumer.onComputeResult, (result.taskId, result.outcome, result, fulfilment.publicOutputs)
        );
        _checkGas(r.callbackGas);
        if (_call(r.callback, r.callbackGas, data)) return;
        mapping(bytes32 taskId => TaskSlot) storage tasks = _tasks[r.agreementId];
        tasks[result.taskId] = tasks[result.taskId].withFailedCallback();
        emit CallbackFailed(result.taskId, r.callback);
    }

    /// @dev EIP-150 passes on at most 63/64 of what is left: without this, a relayer could starve the callback.
    function _checkGas(uint32 callbackGas) private view {
        uint256 needed = uint256(callbackGas) * 64 / 63 + CALLBACK_RESERVE;
        uint256 available = gasleft();
        if (available < needed) revert ComputeOracle_NotEnoughGas(available, needed);
    }

    function _call(address callback, uint256 gasCap, bytes memory data) private returns (bool called) {
        assembly ("memory-safe") {
            // No return data is copied: its length is the callee's choice, its price would be the relayer's.
            called := call(gasCap, callback, 0, add(data, 0x20), mload(data), 0, 0)
        }
    }
}
