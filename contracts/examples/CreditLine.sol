// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC4626} from "@openzeppelin/contracts/token/ERC20/extensions/ERC4626.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {BPS, Outcome, TaskState} from "../src/libraries/Constants.sol";
import {Hashing} from "../src/libraries/Hashing.sol";

/// @title CreditLine
/// @notice A lending pool without collateral: what a borrower may draw depends on a risk score that is computed from private
/// data of banks, of which nobody sees anything but the score and the limit. No owner.
///
/// Lenders deposit an ERC-20 token and hold shares (ERC-4626). A borrower applies and pays the computation's fee. The agreed
/// function gets one parameter, `subject` (see `subjectOf`), looks for it in the banks' data, and answers with one public
/// output of two integers: score and limit, the limit in the token's smallest unit. A good enough score opens a line, from
/// which the borrower draws until it closes. Debt grows at one rate for all. What is not paid back in time anyone writes off:
/// the lenders bear the loss, and what the borrower still pays is a gain, which comes over `VESTING`: nobody joins for a block to take it.
///
/// | an application ends as | when                                                  | the fee                            |
/// |------------------------|-------------------------------------------------------|------------------------------------|
/// | Opened                 | the score and the limit suffice                       | is spent                           |
/// | Declined               | they do not, or the borrower is in default by now: an older line closes, too | is spent    |
/// | Unreadable             | the answer is not two integers                        | is spent                           |
/// | Stale                  | the answer arrived later than `FRESH_FOR`             | is spent                           |
/// | Failed                 | the computation failed                                | less `failedFee` to `refund`       |
/// | Expired                | nobody answered, `reclaim`                            | less `minFee` to `refund`          |
/// | Cancelled              | the borrower `cancel`led                              | to `refund`                        |
///
/// @dev The applicant is bound by the subject, which is made from the caller: nobody applies with another's data. WARNING: score
/// and limit are public, and so is who asked. WARNING: the asset must move what it says, and must not rebase. WARNING: overdue debt
/// counts in full until somebody writes it off, so whoever sees a loss coming leaves before it.
contract CreditLine is ERC4626, ComputeConsumer, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    enum Stage {
        None,
        Asked,
        Opened,
        Declined,
        Unreadable,
        Stale,
        Failed,
        Expired,
        Cancelled,
        Refunded
    }

    struct Application {
        address borrower;
        uint40 askedAt;
        Stage stage;
    }

    /// @param limit what may be owed, interest included, when drawing
    /// @param closesAt unix seconds: until then it can be drawn from, and then all is due; it moves only while nothing is owed
    /// @param scaledDebt debt, by the index of when it was drawn
    /// @param writtenOff debt that no longer counts as the pool's
    struct Line {
        uint128 limit;
        uint40 closesAt;
        uint256 scaledDebt;
        uint256 writtenOff;
    }

    /// @dev It takes about 60,000.
    uint32 public constant CALLBACK_GAS = 150_000;
    uint256 public constant ANSWER_TIME = 6 hours;
    /// @notice From application to answer. Longer than `ANSWER_TIME` only where the callback had to be made again.
    uint256 public constant FRESH_FOR = 1 days;
    uint256 public constant TERM = 90 days;
    uint256 public constant GRACE = 30 days;
    uint256 public constant VESTING = 30 days;
    /// @dev The most that a parameter of type decimal holds before its point, less than which no two customers will meet by accident.
    /// WARNING: about 2^52 hashes find two accounts of one's own that share a subject, and so one customer's score. Where a second
    /// line is worth that, ask for two such parameters.
    uint256 private constant SUBJECTS = 10 ** 31;
    uint256 private constant ANSWER_SIZE = 64;
    uint256 private constant ONE = 1e27;

    bytes32 public immutable agreementId;
    /// @notice What an application costs; the token is zero for the native coin.
    address public immutable feeToken;
    uint128 public immutable fee;
    int256 public immutable minScore;
    uint128 public immutable maxLimit;
    /// @notice Interest in basis points a year.
    uint256 public immutable rate;

    mapping(bytes32 taskId => Application) public applications;
    /// @notice The task that a borrower waits for, or zero.
    mapping(address borrower => bytes32) public openApplication;
    mapping(address borrower => Line) public lines;

    /// @notice What is lent out can neither be withdrawn nor drawn: this can.
    uint256 public cash;
    /// @dev Of debt that was written off, and when `_locked` of it was last counted.
    uint256 private _recovered;
    uint256 private _recoveredAt;
    uint256 private _asked;
    uint256 private _scaledDebt;
    uint256 private _index = ONE;
    uint256 private _indexedAt = block.timestamp;

    event Applied(bytes32 indexed taskId, address indexed borrower, uint256 subject);
    event Closed(bytes32 indexed taskId, address indexed borrower, Stage stage);
    event Opened(bytes32 indexed taskId, address indexed borrower, int256 score, uint256 limit, uint256 closesAt);
    event Drawn(address indexed borrower, uint256 amount);
    event Repaid(address indexed borrower, address indexed by, uint256 amount);
    event WrittenOff(address indexed borrower, uint256 amount);
    event Refunded(bytes32 indexed taskId, address indexed borrower, uint256 amount);

    error CreditLine_NotActive(bytes32 agreementId);
    error CreditLine_BadTerms();
    error CreditLine_Waiting(address borrower, bytes32 taskId);
    error CreditLine_InDefault(address borrower, uint256 writtenOff);
    error CreditLine_WrongFee(uint256 got, uint256 fee);
    error CreditLine_NotBorrower(address caller, address borrower);
    error CreditLine_LineClosed(address borrower, uint256 closesAt);
    error CreditLine_AboveLimit(uint256 debt, uint256 limit);
    error CreditLine_NotEnoughCash(uint256 asked, uint256 cash);
    error CreditLine_NoDebt(address borrower);
    error CreditLine_NotOverdue(address borrower, uint256 until);
    error CreditLine_NothingToRefund(bytes32 taskId, Stage stage);
    error CreditLine_WrongPricing(bytes32 got, bytes32 expected);

    /// @param agreementId_ an active agreement, whose only public output is two integers
    /// @param minScore_ the least score that opens a line
    /// @param maxLimit_ the most that a line is opened for, whatever the answer says
    /// @param rate_ interest in basis points a year
    constructor(
        IComputeOracle oracle,
        bytes32 agreementId_,
        IERC20 asset_,
        int256 minScore_,
        uint128 maxLimit_,
        uint256 rate_
    ) ERC20("Credit line share", "CLS") ERC4626(asset_) ComputeConsumer(oracle) {
        IAgreementRegistry.Record memory record = oracle.agreements().agreement(agreementId_);
        if (record.status != IAgreementRegistry.Status.Active || record.oracle != address(oracle)) {
            revert CreditLine_NotActive(agreementId_);
        }
        if (address(asset_).code.length == 0 || maxLimit_ == 0 || rate_ > BPS) revert CreditLine_BadTerms();
        agreementId = agreementId_;
        feeToken = record.token;
        fee = record.fee;
        minScore = minScore_;
        maxLimit = maxLimit_;
        rate = rate_;
    }

    // Borrowers

    /// @notice Asks for the caller's score. The fee comes with the call, or out of the caller's allowance of `feeToken`.
    /// @param versions the agreement's dataset versions
    /// @param admission what of the agreement the request is checked by
    /// @dev Whoever is called by the fee's token inside of `_request` finds this function closed, and the task not pending yet:
    /// nothing can end it.
    // slither-disable-next-line reentrancy-eth
    function applyForCredit(bytes32[] calldata versions, IAgreementRegistry.Admission calldata admission)
        external
        payable
        nonReentrant
        returns (bytes32 taskId)
    {
        bytes32 waiting = openApplication[msg.sender];
        if (waiting != 0) revert CreditLine_Waiting(msg.sender, waiting);
        uint256 writtenOff = lines[msg.sender].writtenOff;
        if (writtenOff != 0) revert CreditLine_InDefault(msg.sender, writtenOff);
        uint256 native = feeToken == address(0) ? fee : 0;
        if (msg.value != native) revert CreditLine_WrongFee(msg.value, native);
        if (native != fee) IERC20(feeToken).safeTransferFrom(msg.sender, address(this), fee);

        uint256 subject = subjectOf(msg.sender);
        // Fields that are not set hold their off value, zero.
        // slither-disable-next-line uninitialized-local
        TaskRequest memory r;
        r.agreementId = agreementId;
        r.nonce = bytes32(++_asked);
        r.versions = versions;
        r.params = bytes(string.concat('{"subject":"', Strings.toString(subject), '"}'));
        r.maxFee = fee;
        r.deadline = uint64(block.timestamp + ANSWER_TIME);
        r.callbackGas = CALLBACK_GAS;
        taskId = _request(r, admission, "", feeToken);

        applications[taskId] = Application(msg.sender, uint40(block.timestamp), Stage.Asked);
        openApplication[msg.sender] = taskId;
        emit Applied(taskId, msg.sender, subject);
    }

    /// @notice Takes the caller's application back, where the agreement still allows it.
    function cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external nonReentrant {
        address borrower = applications[computeOracle.taskIdOf(r)].borrower;
        if (msg.sender != borrower) revert CreditLine_NotBorrower(msg.sender, borrower);
        _cancel(r, admission);
    }

    /// @notice Pays the borrower what came back of the fee of an application without an answer. Anyone may.
    /// @param pricing the agreement's: how much came back is said there
    function refund(bytes32 taskId, IComputeOracle.Pricing calldata pricing)
        external
        nonReentrant
        returns (uint256 amount)
    {
        _checkPricing(pricing);
        Application storage application = applications[taskId];
        Stage stage = application.stage;
        if (stage == Stage.Failed) amount = fee - pricing.price.failedFee;
        else if (stage == Stage.Expired) amount = fee - pricing.price.minFee;
        else if (stage == Stage.Cancelled) amount = fee;
        if (amount == 0) revert CreditLine_NothingToRefund(taskId, stage);

        application.stage = Stage.Refunded;
        address borrower = application.borrower;
        emit Refunded(taskId, borrower, amount);
        // Whatever waits there: others' refunds then wait here.
        if (computeOracle.balanceOf(feeToken, address(this)) != 0) {
            // slither-disable-next-line unused-return
            computeOracle.withdraw(feeToken, address(this));
        }
        if (feeToken == address(0)) Address.sendValue(payable(borrower), amount);
        else IERC20(feeToken).safeTransfer(borrower, amount);
    }

    /// @notice Draws from the caller's line.
    function draw(uint256 amount) external nonReentrant {
        Line storage line = lines[msg.sender];
        if (line.writtenOff != 0) revert CreditLine_InDefault(msg.sender, line.writtenOff);
        if (block.timestamp >= line.closesAt) revert CreditLine_LineClosed(msg.sender, line.closesAt);
        if (amount > cash) revert CreditLine_NotEnoughCash(amount, cash);
        uint256 index = _accrue();
        uint256 scaled = Math.mulDiv(amount, ONE, index, Math.Rounding.Ceil);
        line.scaledDebt += scaled;
        _scaledDebt += scaled;
        uint256 debt = Math.mulDiv(line.scaledDebt, index, ONE, Math.Rounding.Ceil);
        if (debt > line.limit) revert CreditLine_AboveLimit(debt, line.limit);
        emit Drawn(msg.sender, amount);
        _transferOut(msg.sender, amount);
    }

    /// @notice Pays a borrower's debt back, as much as `amount` and as there is; what was written off comes last. Anyone may.
    function repay(address borrower, uint256 amount) external nonReentrant returns (uint256 paid) {
        Line storage line = lines[borrower];
        uint256 index = _accrue();
        uint256 debt = Math.mulDiv(line.scaledDebt, index, ONE, Math.Rounding.Ceil);
        paid = Math.min(amount, debt + line.writtenOff);
        // Asked for nothing, or owing nothing.
        // slither-disable-next-line incorrect-equality
        if (paid == 0) revert CreditLine_NoDebt(borrower);
        if (paid >= debt) {
            _scaledDebt -= line.scaledDebt;
            line.scaledDebt = 0;
            uint256 recovered = paid - debt;
            if (recovered != 0) {
                line.writtenOff -= recovered;
                (_recovered, _recoveredAt) = (_locked() + recovered, block.timestamp);
            }
        } else {
            uint256 scaled = Math.mulDiv(paid, ONE, index);
            line.scaledDebt -= scaled;
            _scaledDebt -= scaled;
        }
        emit Repaid(borrower, msg.sender, paid);
        _transferIn(msg.sender, paid);
    }

    /// @notice Ends what was not paid back within `GRACE` of its line's close as an asset of the pool. Anyone may.
    function writeOff(address borrower) external nonReentrant {
        Line storage line = lines[borrower];
        if (line.scaledDebt == 0) revert CreditLine_NoDebt(borrower);
        uint256 until = line.closesAt + GRACE;
        if (block.timestamp <= until) revert CreditLine_NotOverdue(borrower, until);
        uint256 debt = Math.mulDiv(line.scaledDebt, _accrue(), ONE, Math.Rounding.Ceil);
        _scaledDebt -= line.scaledDebt;
        line.scaledDebt = 0;
        line.writtenOff += debt;
        line.limit = 0;
        emit WrittenOff(borrower, debt);
    }

    // Views

    /// @notice By what the banks' data knows an account: their customers tell them the account, and they write this beside.
    function subjectOf(address account) public pure returns (uint256) {
        return uint256(keccak256(abi.encode(account))) % SUBJECTS;
    }

    /// @notice What `borrower` has to pay to owe nothing, in the token's smallest unit.
    function debtOf(address borrower) external view returns (uint256) {
        Line storage line = lines[borrower];
        return Math.mulDiv(line.scaledDebt, _indexNow(), ONE, Math.Rounding.Ceil) + line.writtenOff;
    }

    /// @notice What is here, and what is owed with its interest, less what is still to come of recovered losses.
    function totalAssets() public view override returns (uint256) {
        // More is locked than there is where it was drawn, and lost.
        return Math.saturatingSub(cash + Math.mulDiv(_scaledDebt, _indexNow(), ONE), _locked());
    }

    function maxRedeem(address holder) public view override returns (uint256) {
        return Math.min(balanceOf(holder), _convertToShares(cash, Math.Rounding.Floor));
    }

    function maxWithdraw(address holder) public view override returns (uint256) {
        return Math.min(_convertToAssets(balanceOf(holder), Math.Rounding.Floor), cash);
    }

    // Inside

    /// @dev Which agreement the answer is of needs no check: a task's id commits to its request, and this contract asks under
    /// one agreement only.
    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata, bytes[] calldata publicOutputs)
        internal
        override
    {
        if (outcome != Outcome.SUCCEEDED) {
            _close(taskId, Stage.Failed);
            return;
        }
        (bool found, bytes calldata output) = _publicOutput(publicOutputs, ANSWER_SIZE);
        if (!found) {
            _close(taskId, Stage.Unreadable);
            return;
        }
        Application storage application = applications[taskId];
        if (block.timestamp > application.askedAt + FRESH_FOR) {
            _close(taskId, Stage.Stale);
            return;
        }
        (int256 score, int256 answer) = abi.decode(output, (int256, int256));
        Line storage line = lines[application.borrower];
        // In default since it applied.
        if (score < minScore || answer <= 0 || line.writtenOff != 0) {
            line.limit = 0;
            _close(taskId, Stage.Declined);
            return;
        }
        // Above zero, as was just checked.
        uint256 limit = Math.min(uint256(answer), maxLimit);
        line.limit = uint128(limit);
        // What is owed stays due when it was.
        if (line.scaledDebt == 0) line.closesAt = uint40(block.timestamp + TERM);
        emit Opened(taskId, application.borrower, score, limit, line.closesAt);
        _close(taskId, Stage.Opened);
    }

    function _unanswered(bytes32 taskId, uint8 state) internal override {
        _close(taskId, state == TaskState.CANCELLED ? Stage.Cancelled : Stage.Expired);
    }

    function _close(bytes32 taskId, Stage stage) private {
        Application storage application = applications[taskId];
        application.stage = stage;
        delete openApplication[application.borrower];
        emit Closed(taskId, application.borrower, stage);
    }

    function _checkPricing(IComputeOracle.Pricing calldata pricing) private view {
        bytes32 got = Hashing.settlementHash(pricing.enclaveRegistry, pricing.teeHash, pricing.price);
        bytes32 expected = computeOracle.agreements().settlementHashOf(agreementId);
        if (got != expected) revert CreditLine_WrongPricing(got, expected);
    }

    function _accrue() private returns (uint256 index) {
        index = _indexNow();
        (_index, _indexedAt) = (index, block.timestamp);
    }

    /// @dev Simple interest from one move of debt to the next.
    function _indexNow() private view returns (uint256) {
        return _index + _index * rate * (block.timestamp - _indexedAt) / (BPS * 365 days);
    }

    function _locked() private view returns (uint256) {
        uint256 left = Math.saturatingSub(_recoveredAt + VESTING, block.timestamp);
        return Math.mulDiv(_recovered, left, VESTING);
    }

    function _deposit(address caller, address receiver, uint256 assets, uint256 shares) internal override nonReentrant {
        super._deposit(caller, receiver, assets, shares);
    }

    function _withdraw(address caller, address receiver, address holder, uint256 assets, uint256 shares)
        internal
        override
        nonReentrant
    {
        super._withdraw(caller, receiver, holder, assets, shares);
    }

    function _transferIn(address from, uint256 assets) internal override {
        cash += assets;
        super._transferIn(from, assets);
    }

    function _transferOut(address to, uint256 assets) internal override {
        cash -= assets;
        super._transferOut(to, assets);
    }
}
