// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Result, TaskRequest} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "./interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "./interfaces/IComputeOracle.sol";
import {TaskState} from "./libraries/Constants.sol";

/// @title ComputeConsumer
/// @notice The base of a contract that asks for computations and gets their answers. Inherit it, call `_request`, and
/// implement `_fulfilled` and `_unanswered`. Each task ends in exactly one of the two:
///
/// | what happened                                     | who calls what                              | ends in       |
/// |---------------------------------------------------|---------------------------------------------|---------------|
/// | an enclave's result was settled, also a failure   | the oracle: the callback                    | `_fulfilled`  |
/// | that callback reverted, or ran out of its gas     | anyone: the oracle's `retryCallback`        | `_fulfilled`  |
/// | nobody settled before the deadline                | anyone: `reclaim`                           | `_unanswered` |
/// | taken back within the agreement's release delay   | the inheritor: `_cancel`                    | `_unanswered` |
///
/// An answer after the deadline is not taken by the oracle. What comes back of a fee is this contract's balance at the oracle,
/// until anyone calls `collect`.
/// @dev WARNING: within a callback no state-changing function of the oracle can be entered; ask again in a later
/// transaction. What `_fulfilled` needs must fit the request's `callbackGas`, or waits for a `retryCallback` with more, which may
/// come at any later time, after the deadline, too. Whoever retries chooses how much more: do not swallow the failure of a
/// call inside that needs more than `callbackGas`.
/// WARNING: a `_fulfilled` that reverts whatever its gas leaves its task pending for ever.
abstract contract ComputeConsumer is IComputeConsumer {
    using SafeERC20 for IERC20;

    IComputeOracle public immutable computeOracle;

    /// @notice Tasks that this contract asked for and that have not ended here.
    mapping(bytes32 taskId => bool) public isPending;

    // An answer is the oracle's own, and comes once (R20)
    error ComputeConsumer_NotAContract(address value);
    error ComputeConsumer_NotOracle(address caller);
    error ComputeConsumer_NotPending(bytes32 taskId);
    error ComputeConsumer_NotEnded(bytes32 taskId, uint8 state);

    constructor(IComputeOracle oracle) {
        if (address(oracle).code.length == 0) revert ComputeConsumer_NotAContract(address(oracle));
        computeOracle = oracle;
    }

    /// @notice What `collect` brings in. Override it to take the native coin from others, too.
    receive() external payable virtual {
        if (msg.sender != address(computeOracle)) revert ComputeConsumer_NotOracle(msg.sender);
    }

    /// @inheritdoc IComputeConsumer
    function onComputeResult(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata publicOutputs)
        external
    {
        if (msg.sender != address(computeOracle)) revert ComputeConsumer_NotOracle(msg.sender);
        _end(taskId);
        _fulfilled(taskId, outcome, result, publicOutputs);
    }

    /// @notice Ends a task that was not settled before its deadline, or that was cancelled at the oracle. Anyone may.
    /// @param pricing not read where the task expired before
    function reclaim(TaskRequest calldata r, IComputeOracle.Pricing calldata pricing) external {
        bytes32 taskId = computeOracle.taskIdOf(r);
        _end(taskId);
        uint8 state = computeOracle.task(r.agreementId, taskId).state;
        if (state == TaskState.REQUESTED) {
            computeOracle.expire(r, pricing);
            state = TaskState.EXPIRED;
        }
        if (state != TaskState.EXPIRED && state != TaskState.CANCELLED) revert ComputeConsumer_NotEnded(taskId, state);
        _unanswered(taskId, state);
    }

    /// @notice Takes this contract's balance at the oracle in. Anyone may.
    /// @param token zero for the native coin
    function collect(address token) external returns (uint256 amount) {
        return computeOracle.withdraw(token, address(this));
    }

    /// @dev Fills in `requester`, `callback` and `asOf`; the rest of `r` is the caller's. Pays `r.maxFee`, which has to be the
    /// agreement's fee, out of this contract's balance.
    /// WARNING: under an agreement of a stranger's choice, check what `token` and `r.maxFee` are worth.
    /// @param admission what of the agreement the request is checked by
    /// @param token what the agreement is paid in; zero for the native coin
    function _request(
        TaskRequest memory r,
        IAgreementRegistry.Admission memory admission,
        string memory uri,
        address token
    ) internal returns (bytes32 taskId) {
        r.requester = address(this);
        r.callback = address(this);
        r.asOf = uint64(block.timestamp);
        if (token == address(0)) {
            taskId = computeOracle.request{value: r.maxFee}(r, admission, uri);
        } else {
            IERC20(token).forceApprove(address(computeOracle), r.maxFee);
            taskId = computeOracle.request(r, admission, uri);
            // Where the fee was less, nothing stays allowed.
            if (IERC20(token).allowance(address(this), address(computeOracle)) != 0) {
                IERC20(token).forceApprove(address(computeOracle), 0);
            }
        }
        isPending[taskId] = true;
    }

    /// @dev Takes a request back, where the agreement still allows it, and ends the task here.
    function _cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission)
        internal
        returns (bytes32 taskId)
    {
        taskId = computeOracle.taskIdOf(r);
        _end(taskId);
        computeOracle.cancel(r, admission);
        _unanswered(taskId, TaskState.CANCELLED);
    }

    /// @dev The task is settled: `outcome` 1 succeeded, 2 failed. `publicOutputs` are the outputs without recipients.
    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata result, bytes[] calldata publicOutputs)
        internal
        virtual;

    /// @dev The answer never comes: `state` is TaskState.EXPIRED or CANCELLED.
    function _unanswered(bytes32 taskId, uint8 state) internal virtual;

    /// @dev The only public output, to be given to `abi.decode`, which would revert for bytes of another shape.
    /// @param size of it in bytes: 32 for each `int256`, `uint256` or `bool`
    /// @return found false where the task failed, or has another number of public outputs, or one of another size
    function _publicOutput(bytes[] calldata publicOutputs, uint256 size)
        internal
        pure
        returns (bool found, bytes calldata output)
    {
        found = publicOutputs.length == 1 && publicOutputs[0].length == size;
        output = found ? publicOutputs[0] : msg.data[:0];
    }

    function _end(bytes32 taskId) private {
        if (!isPending[taskId]) revert ComputeConsumer_NotPending(taskId);
        delete isPending[taskId];
    }
}
