// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Batch, Out, Price, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "../src/interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {EIP712_NAME, EIP712_VERSION, Outcome, OutputKind, TaskState} from "../src/libraries/Constants.sol";
import {Hashing} from "../src/libraries/Hashing.sol";
import {Payments} from "../src/libraries/Payments.sol";

/// @title MockComputeOracle
/// @notice The oracle as a consumer sees it, for a consumer's own tests: no agreement is signed, no enclave runs, and the test
/// says what the answer is.
///
///     MockComputeOracle oracle = new MockComputeOracle();
///     oracle.addAgreement(agreementId, address(0), 0.01 ether);
///     ...
///     oracle.answer(oracle.lastTask(), abi.encode(int256(42)));
///
/// As in the real one: escrow, the checks of a request's own fields, tokens, cancel, expiry, balances and withdrawals; the
/// callback gets its gas and no more, its failure settles and can be retried, nothing is entered from inside; errors, events
/// and digests. This project's examples pass the same tests on both.
///
/// Not here: who may ask, versions, quotas, budgets and validity are not checked, since no agreement says them; what is not
/// given back of a fee is all PAYEE's; what no consumer calls (`requestFor`, `fulfil`, `distribute` and the like) refuses.
/// @dev WARNING: for tests only. Whoever calls `answer` is believed.
contract MockComputeOracle is IComputeOracle, EIP712, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    address public constant PAYEE = address(0xFEE);
    uint256 private constant MAX_AS_OF_AGE = 1 hours;
    uint256 private constant MAX_DURATION = 30 days;
    uint256 private constant MAX_PARAMS = 4096;
    uint256 private constant MAX_URI = 2048;
    uint256 private constant MAX_CALLBACK_GAS = 1_000_000;
    uint256 private constant CALLBACK_RESERVE = 12_000;
    bytes32 private constant PUBLIC = 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d;

    /// @notice Every task that was asked for, in order.
    bytes32[] public tasks;
    mapping(bytes32 agreementId => mapping(bytes32 taskId => Task)) private _tasks;
    mapping(bytes32 agreementId => IAgreementRegistry.Record) private _agreements;
    mapping(address token => mapping(address account => uint256)) public balanceOf;
    // ABI-encoded: Pricing, TaskRequest, and (Result, bytes[]).
    mapping(bytes32 agreementId => bytes) private _pricings;
    mapping(bytes32 taskId => bytes) private _requests;
    mapping(bytes32 taskId => bytes) private _results;

    error MockComputeOracle_NotMocked(bytes4 selector);
    error MockComputeOracle_UnknownTask(bytes32 taskId);

    constructor() EIP712(EIP712_NAME, EIP712_VERSION) {}

    fallback() external {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    // What a test says

    /// @notice Lets anyone ask under `agreementId` for `fee` of `token`, zero being the native coin. All of it comes back on
    /// expiry or failure, and nothing can be cancelled.
    function addAgreement(bytes32 agreementId, address token, uint128 fee) external {
        // Fields that are not set hold their off value, zero.
        Pricing memory pricing;
        (pricing.price.token, pricing.price.fee) = (token, fee);
        this.addAgreement(agreementId, pricing, 0);
    }

    /// @notice As above, with what is kept of the fee, and for how many blocks a request can be cancelled.
    function addAgreement(bytes32 agreementId, Pricing calldata pricing, uint32 releaseDelay) external {
        IAgreementRegistry.Record storage record = _agreements[agreementId];
        record.oracle = address(this);
        record.notAfter = type(uint40).max;
        record.status = IAgreementRegistry.Status.Active;
        record.token = pricing.price.token;
        record.releaseDelay = releaseDelay;
        record.quota = type(uint64).max;
        record.quotaPerRequester = type(uint64).max;
        record.fee = uint128(pricing.price.fee);
        record.settlementHash = Hashing.settlementHash(pricing.enclaveRegistry, pricing.teeHash, pricing.price);
        _pricings[agreementId] = abi.encode(pricing);
    }

    /// @notice A party ends the agreement: nothing new is asked under it, and what was asked still settles.
    function revokeAgreement(bytes32 agreementId) external {
        _agreements[agreementId].status = IAgreementRegistry.Status.Revoked;
    }

    /// @notice The task succeeds, with one public output.
    /// @param output such as abi.encode(int256(42))
    function answer(bytes32 taskId, bytes calldata output) external nonReentrant {
        bytes[] memory outputs = new bytes[](1);
        outputs[0] = output;
        _answer(taskId, outputs);
    }

    /// @notice The task succeeds, with these public outputs.
    function answer(bytes32 taskId, bytes[] calldata outputs) external nonReentrant {
        _answer(taskId, outputs);
    }

    /// @notice The task succeeds, with one output that is sealed to somebody.
    function answerSealed(bytes32 taskId, bytes32 digest) external nonReentrant {
        Out[] memory outputs = new Out[](1);
        outputs[0] = Out("output", OutputKind.ARROW_TABLE, keccak256("recipients"), 4096, digest);
        _settle(taskId, Outcome.SUCCEEDED, outputs, new bytes[](0));
    }

    /// @notice The task fails, as for invalid parameters.
    function fail(bytes32 taskId) external nonReentrant {
        _settle(taskId, Outcome.FAILED, new Out[](0), new bytes[](0));
    }

    /// @notice Ends every task whose deadline has passed.
    function expireAll() external nonReentrant returns (uint256 expired) {
        for (uint256 i; i < tasks.length; ++i) {
            TaskRequest memory r = requestOf(tasks[i]);
            Task storage t = _tasks[r.agreementId][tasks[i]];
            if (t.state != TaskState.REQUESTED || block.timestamp <= t.deadline) continue;
            _expire(tasks[i], r.agreementId, r.requester);
            ++expired;
        }
    }

    /// @notice As `retryCallback`, with what the task was settled with.
    function retry(bytes32 taskId) external {
        (Result memory result, bytes[] memory outputs) = resultOf(taskId);
        this.retryCallback(requestOf(taskId), result, outputs);
    }

    // What a test reads

    /// @notice The task that was asked for last.
    function lastTask() external view returns (bytes32) {
        return tasks[tasks.length - 1];
    }

    function requestOf(bytes32 taskId) public view returns (TaskRequest memory) {
        if (_requests[taskId].length == 0) revert MockComputeOracle_UnknownTask(taskId);
        return abi.decode(_requests[taskId], (TaskRequest));
    }

    function resultOf(bytes32 taskId) public view returns (Result memory, bytes[] memory) {
        if (_results[taskId].length == 0) revert MockComputeOracle_UnknownTask(taskId);
        return abi.decode(_results[taskId], (Result, bytes[]));
    }

    /// @notice What `expire` and `ComputeConsumer.reclaim` take.
    function pricingOf(bytes32 agreementId) public view returns (Pricing memory) {
        if (_pricings[agreementId].length == 0) {
            revert IAgreementRegistry.AgreementRegistry_NotActive(agreementId, IAgreementRegistry.Status.None);
        }
        return abi.decode(_pricings[agreementId], (Pricing));
    }

    // As the oracle

    function request(TaskRequest calldata r, IAgreementRegistry.Admission calldata, string calldata uri)
        external
        payable
        nonReentrant
        returns (bytes32 taskId)
    {
        if (r.requester != msg.sender) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        taskId = taskIdOf(r);
        _request(taskId, r, uri);
    }

    function cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata) external nonReentrant {
        (bytes32 taskId, Task storage t) = _requested(r);
        if (msg.sender != r.requester) revert ComputeOracle_NotRequester(msg.sender, r.requester);
        if (block.number > t.cancelUntil) revert ComputeOracle_CancelClosed(block.number, t.cancelUntil);
        uint256 escrow = _close(t, TaskState.CANCELLED);
        _credit(_agreements[r.agreementId].token, r.requester, escrow);
        emit TaskCancelled(taskId, r.agreementId, r.requester);
    }

    function expire(TaskRequest calldata r, Pricing calldata pricing) external nonReentrant {
        (bytes32 taskId, Task storage t) = _requested(r);
        if (block.timestamp <= t.deadline) revert ComputeOracle_DeadlineNotPassed(block.timestamp, t.deadline);
        bytes32 got = Hashing.settlementHash(pricing.enclaveRegistry, pricing.teeHash, pricing.price);
        bytes32 expected = settlementHashOf(r.agreementId);
        if (got != expected) revert ComputeOracle_WrongSettlement(got, expected);
        _expire(taskId, r.agreementId, r.requester);
    }

    function retryCallback(TaskRequest calldata r, Result calldata result, bytes[] calldata publicOutputs)
        external
        nonReentrant
    {
        bytes32 taskId = taskIdOf(r);
        Task storage t = _tasks[r.agreementId][taskId];
        bool settled = t.state == TaskState.FULFILLED || t.state == TaskState.FAILED;
        if (!settled || !t.callback) revert ComputeOracle_NoFailedCallback(taskId);
        bytes31 got = bytes31(resultDigestOf(result));
        if (got != t.resultDigest) revert ComputeOracle_WrongResult(got, t.resultDigest);
        _checkPublicOutputs(result, publicOutputs);
        t.callback = false;
        emit CallbackDelivered(taskId, r.callback);
        bytes memory data =
            abi.encodeCall(IComputeConsumer.onComputeResult, (taskId, result.outcome, result, publicOutputs));
        _checkGas(r.callbackGas);
        if (!_call(r.callback, gasleft(), data)) revert ComputeOracle_CallbackFailedAgain(taskId);
    }

    function withdraw(address token, address to) external nonReentrant returns (uint256 amount) {
        amount = balanceOf[token][msg.sender];
        if (amount == 0) revert ComputeOracle_NothingToWithdraw(msg.sender, token);
        balanceOf[token][msg.sender] = 0;
        emit Withdrawn(msg.sender, token, to, amount);
        Payments.pay(token, to, amount);
    }

    function requestFor(
        TaskRequest calldata,
        IAgreementRegistry.Admission calldata,
        string calldata,
        bytes calldata,
        Payment calldata
    ) external payable returns (bytes32) {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function fulfil(Settlement calldata, IEnclaveRegistry.Identity calldata, Fulfilment calldata) external pure {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function fulfilMany(Settlement calldata, IEnclaveRegistry.Identity calldata, Fulfilment[] calldata)
        external
        pure
        returns (uint256)
    {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function fulfilBatch(Settlement calldata, IEnclaveRegistry.Identity calldata, Batch calldata, bytes calldata)
        external
        pure
        returns (uint256)
    {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function distribute(bytes32, Pricing calldata) external pure returns (uint256) {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function poolOf(bytes32) external pure returns (uint256) {
        return 0;
    }

    function task(bytes32 agreementId, bytes32 taskId) external view returns (Task memory) {
        return _tasks[agreementId][taskId];
    }

    function taskIdOf(TaskRequest calldata r) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(r));
    }

    function resultDigestOf(Result calldata result) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(result));
    }

    function batchDigestOf(Batch calldata) external pure returns (bytes32) {
        revert MockComputeOracle_NotMocked(msg.sig);
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // As the registry, of which a consumer reads these

    function agreements() external view returns (IAgreementRegistry) {
        return IAgreementRegistry(address(this));
    }

    function agreement(bytes32 agreementId) external view returns (IAgreementRegistry.Record memory) {
        return _agreements[agreementId];
    }

    function status(bytes32 agreementId) external view returns (IAgreementRegistry.Status) {
        return _agreements[agreementId].status;
    }

    function settlementHashOf(bytes32 agreementId) public view returns (bytes32) {
        return _agreements[agreementId].settlementHash;
    }

    // Inside

    function _request(bytes32 taskId, TaskRequest calldata r, string calldata uri) private {
        _checkRequest(r, uri);
        Task storage t = _tasks[r.agreementId][taskId];
        if (t.state != TaskState.NONE) revert ComputeOracle_TaskExists(taskId, t.state);
        IAgreementRegistry.Record storage record = _agreements[r.agreementId];
        if (record.status != IAgreementRegistry.Status.Active) {
            revert IAgreementRegistry.AgreementRegistry_NotActive(r.agreementId, record.status);
        }
        if (record.fee > r.maxFee) revert ComputeOracle_FeeAboveMax(record.fee, r.maxFee);
        uint256 native = record.token == address(0) ? record.fee : 0;
        if (msg.value != native) revert ComputeOracle_WrongPayment(msg.value, native);

        t.state = TaskState.REQUESTED;
        t.requestBlock = uint40(block.number);
        t.deadline = uint40(r.deadline);
        t.cancelUntil = record.releaseDelay == 0 ? 0 : uint40(block.number + record.releaseDelay);
        t.escrow = record.fee;
        t.callback = r.callback != address(0);
        tasks.push(taskId);
        _requests[taskId] = abi.encode(r);
        emit TaskRequested(taskId, r.agreementId, r.requester, r, uri);
        if (record.token != address(0) && record.fee != 0) {
            _pull(IERC20(record.token), r.requester, record.fee);
        }
    }

    function _checkRequest(TaskRequest calldata r, string calldata uri) private view {
        if (r.inputsId != 0) revert ComputeOracle_NotYetSupported("inputsId");
        if (r.inputShares != 0) revert ComputeOracle_NotYetSupported("inputShares");
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

    function _pull(IERC20 token, address payer, uint256 fee) private {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(payer, address(this), fee);
        uint256 left = token.balanceOf(address(this));
        uint256 got = left < before ? 0 : left - before;
        if (got != fee) revert ComputeOracle_WrongReceived(address(token), got, fee);
    }

    function _requested(TaskRequest calldata r) private view returns (bytes32 taskId, Task storage t) {
        taskId = taskIdOf(r);
        t = _tasks[r.agreementId][taskId];
        if (t.state != TaskState.REQUESTED) revert ComputeOracle_NotRequested(taskId, t.state);
    }

    function _answer(bytes32 taskId, bytes[] memory publicOutputs) private {
        Out[] memory outputs = new Out[](publicOutputs.length);
        for (uint256 i; i < publicOutputs.length; ++i) {
            bytes memory output = publicOutputs[i];
            outputs[i] = Out("output", OutputKind.ABI_VALUES, PUBLIC, uint64(output.length), sha256(output));
        }
        _settle(taskId, Outcome.SUCCEEDED, outputs, publicOutputs);
    }

    function _settle(bytes32 taskId, uint8 outcome, Out[] memory outputs, bytes[] memory publicOutputs) private {
        TaskRequest memory r = requestOf(taskId);
        Task storage t = _tasks[r.agreementId][taskId];
        if (t.state != TaskState.REQUESTED) revert ComputeOracle_NotRequested(taskId, t.state);
        if (block.timestamp > t.deadline) revert ComputeOracle_DeadlinePassed(block.timestamp, t.deadline);
        bool succeeded = outcome == Outcome.SUCCEEDED;
        if (succeeded != (outputs.length != 0)) revert ComputeOracle_WrongOutputs(outcome, outputs.length);

        Result memory result = Result(r.agreementId, taskId, outcome, outputs, PAYEE, keccak256("mock"));
        bytes32 digest = this.resultDigestOf(result);
        uint256 escrow = _close(t, succeeded ? TaskState.FULFILLED : TaskState.FAILED);
        t.resultDigest = bytes31(digest);
        Price memory price = pricingOf(r.agreementId).price;
        uint256 kept = succeeded ? escrow : price.failedFee;
        _credit(price.token, PAYEE, kept);
        _credit(price.token, r.requester, escrow - kept);
        _results[taskId] = abi.encode(result, publicOutputs);
        emit TaskFulfilled(taskId, r.agreementId, address(this), digest, result, "");
        if (publicOutputs.length != 0) emit PublicOutputs(taskId, publicOutputs);
        if (r.callback != address(0)) _callBack(t, r, result, publicOutputs);
    }

    function _callBack(Task storage t, TaskRequest memory r, Result memory result, bytes[] memory publicOutputs)
        private
    {
        bytes memory data = abi.encodeCall(
            IComputeConsumer.onComputeResult, (result.taskId, result.outcome, result, publicOutputs)
        );
        _checkGas(r.callbackGas);
        if (_call(r.callback, r.callbackGas, data)) return;
        t.callback = true;
        emit CallbackFailed(result.taskId, r.callback);
    }

    function _checkGas(uint256 callbackGas) private view {
        uint256 needed = callbackGas * 64 / 63 + CALLBACK_RESERVE;
        uint256 available = gasleft();
        if (available < needed) revert ComputeOracle_NotEnoughGas(available, needed);
    }

    function _call(address callback, uint256 gasCap, bytes memory data) private returns (bool called) {
        assembly ("memory-safe") {
            called := call(gasCap, callback, 0, add(data, 0x20), mload(data), 0, 0)
        }
    }

    function _expire(bytes32 taskId, bytes32 agreementId, address requester) private {
        Price memory price = pricingOf(agreementId).price;
        uint256 escrow = _close(_tasks[agreementId][taskId], TaskState.EXPIRED);
        _credit(price.token, PAYEE, price.minFee);
        _credit(price.token, requester, escrow - price.minFee);
        emit TaskExpired(taskId, agreementId, requester);
    }

    /// @dev What is kept of a task that ended.
    function _close(Task storage t, uint8 state) private returns (uint256 escrow) {
        escrow = t.escrow;
        t.state = state;
        t.requestBlock = 0;
        t.deadline = 0;
        t.cancelUntil = 0;
        t.escrow = 0;
        t.callback = false;
    }

    function _checkPublicOutputs(Result calldata result, bytes[] calldata outputs) private pure {
        uint256 count;
        for (uint256 i; i < result.outputs.length; ++i) {
            if (result.outputs[i].recipientsDigest != PUBLIC) continue;
            if (count == outputs.length) revert ComputeOracle_WrongPublicOutputCount(outputs.length, count + 1);
            bytes32 got = sha256(outputs[count++]);
            bytes32 expected = result.outputs[i].digest;
            if (got != expected) revert ComputeOracle_WrongPublicOutput(i, got, expected);
        }
        if (count != outputs.length) revert ComputeOracle_WrongPublicOutputCount(outputs.length, count);
    }

    function _credit(address token, address account, uint256 amount) private {
        if (amount != 0) balanceOf[token][account] += amount;
    }
}
