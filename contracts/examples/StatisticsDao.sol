// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ComputeConsumer} from "../src/ComputeConsumer.sol";
import {Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {Outcome} from "../src/libraries/Constants.sol";

/// @title StatisticsDao
/// @notice Members pay out of a common treasury when a statistic over private data says so: a grant to a hospital network if at
/// least so many patients were screened, a bounty if a rate fell. They see the number, and nobody sees the data. No owner.
///
/// | stage  | move    | by                                     | to                                                   |
/// |--------|---------|----------------------------------------|------------------------------------------------------|
/// | None   | propose | a member                               | Voting                                               |
/// | Voting | vote    | more than half of the members, in time | Passed                                               |
/// | Passed | ask     | a member, in time, not before `askFrom` | Asked: the amount is reserved                        |
/// | Asked  |         | the answer reaches `atLeast`           | Paid: the amount is the recipient's, to be `claim`ed |
/// | Asked  |         | the answer does not                    | Missed                                               |
/// | Asked  |         | the computation failed, or answered otherwise than by one integer | Failed            |
/// | Asked  | reclaim | anyone, where nobody answered in time  | Passed: it can be asked again                        |
///
/// Nothing leaves Paid, Missed or Failed; a proposal that is not voted for, or not asked about, in time stays as it is. What is
/// not reserved or owed is free for others.
/// @dev A proposal's id commits to all its terms: who asks cannot change what is asked. WARNING: the statistic is public.
/// WARNING: members judge the agreement before they vote, its parties can end it at any time. Where it leaves a choice of
/// dataset versions, a proposal without `versions` leaves that choice to the member who asks.
contract StatisticsDao is ComputeConsumer {
    enum Stage {
        None,
        Voting,
        Passed,
        Asked,
        Paid,
        Missed,
        Failed
    }

    /// @param amount in wei
    /// @param fee the agreement's, in wei
    /// @param versions the datasets' versions, or none to take those of the day
    /// @param askFrom unix seconds: nobody asks before, so that no member makes the one answer come too early
    /// @param atLeast what the agreement's only public output, one integer, has to reach
    struct Terms {
        address recipient;
        uint128 amount;
        bytes32 agreementId;
        uint256 fee;
        bytes params;
        bytes32[] versions;
        uint40 askFrom;
        int256 atLeast;
        bytes32 salt;
    }

    /// @param until unix seconds: of the vote while it lasts, of asking once it passed
    struct Proposal {
        address recipient;
        uint40 until;
        uint40 askFrom;
        uint16 votes;
        uint8 asked;
        Stage stage;
        uint128 amount;
        int256 atLeast;
    }

    /// @dev It takes about 85,000.
    uint32 public constant CALLBACK_GAS = 150_000;
    uint256 public constant VOTE_TIME = 7 days;
    uint256 public constant ASK_TIME = 30 days;
    uint256 public constant ANSWER_TIME = 1 days;
    uint256 public constant MAX_WAIT = 365 days;
    /// @notice Each unanswered question may cost the agreement's least fee.
    uint256 public constant MAX_ASKED = 3;
    uint256 private constant MAX_MEMBERS = 1000;
    uint256 private constant ANSWER_SIZE = 32;

    uint256 public immutable members;
    mapping(address account => bool) public isMember;
    mapping(bytes32 proposalId => Proposal) private _proposals;
    mapping(bytes32 proposalId => mapping(address member => bool)) public hasVoted;
    mapping(bytes32 taskId => bytes32 proposalId) public proposalOf;

    /// @notice For proposals that were asked about, in wei.
    uint256 public reserved;
    /// @notice To recipients, in wei.
    uint256 public owed;
    mapping(address recipient => uint256) public owedTo;

    event Funded(address indexed by, uint256 amount);
    event Proposed(bytes32 indexed proposalId, address indexed by, Terms terms, uint256 until);
    event Voted(bytes32 indexed proposalId, address indexed member, uint256 votes);
    event Passed(bytes32 indexed proposalId, uint256 until);
    event Asked(bytes32 indexed proposalId, bytes32 indexed taskId);
    event Answered(bytes32 indexed proposalId, int256 value, Stage stage);
    event Unanswered(bytes32 indexed proposalId, bytes32 indexed taskId, Stage stage);
    event Claimed(address indexed recipient, uint256 amount);

    error StatisticsDao_BadMembers(uint256 count);
    error StatisticsDao_BadMember(address account);
    error StatisticsDao_NotMember(address caller);
    error StatisticsDao_BadTerms();
    error StatisticsDao_WrongStage(bytes32 proposalId, Stage stage);
    error StatisticsDao_TooEarly(bytes32 proposalId, uint256 askFrom);
    error StatisticsDao_TooLate(bytes32 proposalId, uint256 until);
    error StatisticsDao_AlreadyVoted(bytes32 proposalId, address member);
    error StatisticsDao_AskedTooOften(bytes32 proposalId);
    error StatisticsDao_WrongVersions(bytes32 proposalId);
    error StatisticsDao_NotEnough(uint256 free, uint256 needed);
    error StatisticsDao_NothingOwed(address recipient);

    modifier onlyMember() {
        if (!isMember[msg.sender]) revert StatisticsDao_NotMember(msg.sender);
        _;
    }

    /// @param members_ who votes, for ever, one vote each
    constructor(IComputeOracle oracle, address[] memory members_) payable ComputeConsumer(oracle) {
        if (members_.length == 0 || members_.length > MAX_MEMBERS) revert StatisticsDao_BadMembers(members_.length);
        for (uint256 i; i < members_.length; ++i) {
            if (members_[i] == address(0) || isMember[members_[i]]) revert StatisticsDao_BadMember(members_[i]);
            isMember[members_[i]] = true;
        }
        members = members_.length;
    }

    /// @notice The treasury takes from anyone, and what comes back of fees.
    receive() external payable override {
        emit Funded(msg.sender, msg.value);
    }

    /// @notice Puts a payout to the vote.
    function propose(Terms calldata terms) external onlyMember returns (bytes32 proposalId) {
        if (terms.recipient == address(0) || terms.amount == 0 || terms.askFrom > block.timestamp + MAX_WAIT) {
            revert StatisticsDao_BadTerms();
        }
        proposalId = proposalIdOf(terms);
        Proposal storage proposal = _proposals[proposalId];
        if (proposal.stage != Stage.None) revert StatisticsDao_WrongStage(proposalId, proposal.stage);
        proposal.stage = Stage.Voting;
        proposal.until = uint40(block.timestamp + VOTE_TIME);
        proposal.recipient = terms.recipient;
        proposal.amount = terms.amount;
        proposal.askFrom = terms.askFrom;
        proposal.atLeast = terms.atLeast;
        emit Proposed(proposalId, msg.sender, terms, proposal.until);
    }

    /// @notice Votes for a proposal; it passes with the vote that makes more than half of the members.
    function vote(bytes32 proposalId) external onlyMember {
        Proposal storage proposal = _inTime(proposalId, Stage.Voting);
        if (hasVoted[proposalId][msg.sender]) revert StatisticsDao_AlreadyVoted(proposalId, msg.sender);
        hasVoted[proposalId][msg.sender] = true;
        uint256 votes = ++proposal.votes;
        emit Voted(proposalId, msg.sender, votes);
        if (votes * 2 <= members) return;
        proposal.stage = Stage.Passed;
        proposal.until = uint40(Math.max(block.timestamp, proposal.askFrom) + ASK_TIME);
        emit Passed(proposalId, proposal.until);
    }

    /// @notice Asks for the statistic of a proposal that passed, and reserves its amount.
    /// @param versions the datasets' versions, as the terms say where they do
    /// @param admission what of the agreement the request is checked by
    function ask(Terms calldata terms, bytes32[] calldata versions, IAgreementRegistry.Admission calldata admission)
        external
        onlyMember
        returns (bytes32 taskId)
    {
        bytes32 proposalId = proposalIdOf(terms);
        Proposal storage proposal = _inTime(proposalId, Stage.Passed);
        if (block.timestamp < terms.askFrom) revert StatisticsDao_TooEarly(proposalId, terms.askFrom);
        if (proposal.asked == MAX_ASKED) revert StatisticsDao_AskedTooOften(proposalId);
        if (
            terms.versions.length != 0
                && keccak256(abi.encodePacked(terms.versions)) != keccak256(abi.encodePacked(versions))
        ) {
            revert StatisticsDao_WrongVersions(proposalId);
        }
        uint256 needed = terms.amount + terms.fee;
        if (free() < needed) revert StatisticsDao_NotEnough(free(), needed);

        proposal.stage = Stage.Asked;
        reserved += terms.amount;
        // Fields that are not set hold their off value, zero.
        // slither-disable-next-line uninitialized-local
        TaskRequest memory r;
        r.agreementId = terms.agreementId;
        r.nonce = keccak256(abi.encode(proposalId, ++proposal.asked));
        r.versions = versions;
        r.params = terms.params;
        r.maxFee = terms.fee;
        r.deadline = uint64(block.timestamp + ANSWER_TIME);
        r.callbackGas = CALLBACK_GAS;
        // In the native coin: under an agreement that is paid otherwise, the oracle refuses.
        taskId = _request(r, admission, "", address(0));
        proposalOf[taskId] = proposalId;
        emit Asked(proposalId, taskId);
    }

    /// @notice Pays what is owed to a recipient. Anyone may.
    function claim(address recipient) external returns (uint256 amount) {
        amount = owedTo[recipient];
        if (amount == 0) revert StatisticsDao_NothingOwed(recipient);
        owedTo[recipient] = 0;
        owed -= amount;
        emit Claimed(recipient, amount);
        Address.sendValue(payable(recipient), amount);
    }

    function proposalIdOf(Terms calldata terms) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), terms));
    }

    function proposalAt(bytes32 proposalId) external view returns (Proposal memory) {
        return _proposals[proposalId];
    }

    /// @notice What the treasury holds beyond `reserved` and `owed`, in wei.
    function free() public view returns (uint256) {
        return address(this).balance - reserved - owed;
    }

    /// @dev The recipient is not called from here: that would let it decide whether the answer counts.
    function _fulfilled(bytes32 taskId, uint8 outcome, Result calldata, bytes[] calldata publicOutputs)
        internal
        override
    {
        bytes32 proposalId = proposalOf[taskId];
        Proposal storage proposal = _proposals[proposalId];
        uint256 amount = proposal.amount;
        reserved -= amount;
        (bool found, bytes calldata output) = _publicOutput(publicOutputs, ANSWER_SIZE);
        if (outcome != Outcome.SUCCEEDED || !found) {
            proposal.stage = Stage.Failed;
            emit Unanswered(proposalId, taskId, Stage.Failed);
            return;
        }
        int256 value = abi.decode(output, (int256));
        bool reached = value >= proposal.atLeast;
        proposal.stage = reached ? Stage.Paid : Stage.Missed;
        if (reached) {
            owed += amount;
            owedTo[proposal.recipient] += amount;
        }
        emit Answered(proposalId, value, proposal.stage);
    }

    function _unanswered(bytes32 taskId, uint8) internal override {
        bytes32 proposalId = proposalOf[taskId];
        Proposal storage proposal = _proposals[proposalId];
        reserved -= proposal.amount;
        proposal.stage = Stage.Passed;
        emit Unanswered(proposalId, taskId, Stage.Passed);
    }

    function _inTime(bytes32 proposalId, Stage stage) private view returns (Proposal storage proposal) {
        proposal = _proposals[proposalId];
        if (proposal.stage != stage) revert StatisticsDao_WrongStage(proposalId, proposal.stage);
        if (block.timestamp > proposal.until) revert StatisticsDao_TooLate(proposalId, proposal.until);
    }
}
