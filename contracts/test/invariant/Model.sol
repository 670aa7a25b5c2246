// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../../src/interfaces/IEnclaveRegistry.sol";
import {DatasetPolicy, TaskState, TcbStatus, TeeKind} from "../../src/libraries/Constants.sol";
import {Caller} from "../utils/Caller.sol";
import {Coin} from "../utils/Tokens.sol";
import {Vm} from "../utils/Vm.sol";
import {Indexer} from "./Indexer.sol";
import {World} from "./World.sol";

/// @title What should be so: a second account of agreements, tasks, enclaves and money, kept from the interfaces' prose
/// @notice Each action asks the model first whether it must succeed, and `_judge` reverts where the contracts disagree, with
/// the number of the invariant (README.md). `fail_on_revert` makes that a failure.
abstract contract Model is World {
    /// @dev As IAgreementRegistry.Status without Suspended; DEAD is a draft that a party revoked.
    enum Life {
        Draft,
        Active,
        Revoked,
        Superseded,
        Dead
    }

    struct Deal {
        Draft draft;
        bytes32 id;
        Life life;
        /// @dev One bit per party, in their order.
        uint8 suspendedBy;
        uint8 approvedBy;
        uint8 revokedBy;
        uint64 requested;
        uint64 cancelled;
        // As signed.
        address token;
        uint256 fee;
        uint256 minFee;
        uint256 failedFee;
        uint256 shares;
        uint256 releaseDelay;
        uint256 quota;
        uint256 quotaPerRequester;
        uint256 pool;
    }

    struct Job {
        uint256 deal;
        bytes32 id;
        uint8 state;
        uint256 requestBlock;
        uint256 cancelUntil;
        uint256 escrow;
        bool callbackFailed;
        // Once settled.
        bytes32 digest;
        uint8 outcome;
        address payee;
        bytes32 anchor;
    }

    struct Boot {
        uint256 key;
        address signer;
        bytes32 anchor;
        IEnclaveRegistry.Identity identity;
        uint256 evidenceAt;
        uint256 validUntil;
        bool retired;
        uint8 status;
        uint32 evaluation;
        // How it stood best under an evaluation before, and until when that one was the last.
        uint8 earlierStatus;
        uint32 earlierEvaluation;
        uint256 changedAt;
    }

    struct Published {
        bytes32 id;
        bool withdrawn;
    }

    struct Holder {
        address token;
        address account;
    }

    uint256 internal constant MAX_DEALS = 40;

    Indexer internal indexer;

    Deal[] internal deals;
    Job[] internal jobs;
    TaskRequest[] internal requests;
    Boot[] internal boots;
    /// @dev The two boots that work now: by place.
    uint256[2] internal working;
    uint256 internal rogue;
    uint256 internal evaluationNow = 17;

    mapping(uint256 era => Published[]) internal published;
    mapping(address owner => mapping(bytes32 lineage => uint256)) internal spentOf;
    mapping(uint256 deal => mapping(address account => uint64)) internal askedBy;
    mapping(uint256 deal => bytes32[]) internal dropped;
    mapping(uint256 deal => mapping(bytes32 => bool)) internal isDropped;

    mapping(address token => mapping(address account => uint256)) internal creditOf;
    mapping(address token => uint256) internal moneyIn;
    mapping(address token => uint256) internal moneyOut;
    mapping(address token => uint256) internal given;
    mapping(address token => uint256) internal escrowed;
    mapping(address token => uint256) internal pooled;
    mapping(address token => uint256) internal credited;

    // What the last action touched, which is looked at after it; everything is at the end.
    uint256[] internal touchedDeals;
    uint256[] internal touchedJobs;
    Holder[] internal touchedHolders;

    /// @dev How often each move was tried, and how often it went through.
    mapping(string move => uint256) public tried;
    mapping(string move => uint256) public done;

    modifier action() {
        delete touchedDeals;
        delete touchedJobs;
        delete touchedHolders;
        vm.recordLogs();
        _;
        indexer.read(vm.getRecordedLogs());
    }

    function setUp() public virtual override {
        super.setUp();
        indexer = new Indexer(address(registry), address(oracle));
        vm.recordLogs();
        _boot(0);
        _boot(1);
        rogue = boots.length;
        _boot(2);
    }

    /// @dev The contracts and the model have to agree on whether a move goes.
    function _judge(string memory invariant, string memory move, bool expected, bool got) internal {
        if (expected != got) {
            revert(string.concat(invariant, ": ", move, expected ? " was refused" : " went through"));
        }
        ++tried[move];
        if (got) ++done[move];
    }

    function _as(address who, address target, uint256 value, bytes memory data) internal returns (bool) {
        return _as(who, target, value, gasleft(), data);
    }

    function _as(address who, address target, uint256 value, uint256 gasLimit, bytes memory data)
        internal
        returns (bool went)
    {
        indexer.read(vm.getRecordedLogs());
        vm.prank(who);
        (went,) = target.call{value: value, gas: gasLimit}(data);
        // Forge records what was undone, too.
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (went) indexer.read(logs);
    }

    function _hold(string memory invariant, bool holds) internal pure {
        require(holds, invariant);
    }

    // Agreements

    function _draftFrom(uint256 seed) internal returns (uint256 deal) {
        deal = deals.length;
        Deal storage d = deals.push();
        uint256 kind = _mix(seed, 1) % KINDS;
        d.draft.kind = uint8(kind);
        d.draft.era = uint8(deal / 10);
        d.draft.from = _now() + uint40(_mix(seed, 2) % 8 == 0 ? 1 hours : 0);
        d.draft.until = d.draft.from + uint40(_mix(seed, 3) % 4 == 0 ? 6 hours : 4 days);
        d.draft.salt = keccak256(abi.encode("salt", deal));
        if (deal != 0 && _mix(seed, 4) % 3 == 0) {
            uint256 predecessor = _mix(seed, 5) % deal;
            Life life = deals[predecessor].life;
            if (life == Life.Active || life == Life.Revoked || life == Life.Superseded) {
                d.draft.predecessor = deals[predecessor].id;
            }
        }
        Agreement memory a = _termsOf(d.draft);
        d.id = registry.agreementIdOf(a);
        (d.token, d.fee, d.minFee, d.failedFee) = (a.price.token, a.price.fee, a.price.minFee, a.price.failedFee);
        for (uint256 i; i < a.price.bps.length; ++i) {
            d.shares += a.price.bps[i];
        }
        (d.releaseDelay, d.quota) = (a.keys.releaseDelay, a.access.quota);
        d.quotaPerRequester = a.access.quotaPerRequester;
        while (published[d.draft.era].length < 2) {
            _publish(d.draft.era);
        }
    }

    function _publish(uint256 era) internal {
        Published[] storage list = published[era];
        bytes32 id = keccak256(abi.encode("version", era, list.length));
        vm.prank(hospitalA);
        uint64 number = streams.publish(_streamName(era), id, keccak256("shares"));
        list.push(Published(id, false));
        _hold("I9: a version's number", number == list.length);
    }

    function _findDeal(bytes32 id) internal view returns (uint256 deal) {
        while (deals[deal].id != id) ++deal;
    }

    /// @dev R7, R8: what stands in the way of any request now, but for the requester and the data.
    function _isOpen(Deal storage d) internal view returns (bool) {
        return d.life == Life.Active && d.suspendedBy == 0 && _now() >= d.draft.from && _now() < d.draft.until
            && d.requested - d.cancelled < d.quota;
    }

    /// @dev Whether somebody's request can go through: the token pays, and the budget is not spent.
    function _isUsable(Deal storage d) private view returns (bool) {
        if (!_isOpen(d) || !_pays(d.token)) return false;
        if (d.draft.kind != BUDGETED && d.draft.kind != LISTED) return true;
        uint256 spent = spentOf[hospitalA][keccak256(abi.encode("lineage", uint256(d.draft.era)))];
        return spent + 2 <= (d.draft.kind == BUDGETED ? 20 : 30);
    }

    /// @dev One that takes requests, if there can be one.
    function _openDeal(uint256 seed) internal returns (uint256 deal) {
        for (uint256 i; i < deals.length; ++i) {
            deal = (seed % deals.length + i) % deals.length;
            if (_isUsable(deals[deal])) return deal;
        }
        if (deals.length >= MAX_DEALS) return seed % deals.length;
        return _opened(seed);
    }

    /// @dev One whose requests wait for nothing, if there is room for it.
    function _openPlainDeal(uint256 seed) internal {
        if (deals.length >= MAX_DEALS) return;
        while (_mix(seed, 1) % KINDS != PLAIN) ++seed;
        _opened(seed);
    }

    function _opened(uint256 seed) private returns (uint256 deal) {
        deal = _draftFrom(seed);
        deals[deal].draft.from = _now();
        _refresh(deal);
        _consentByAll(deal);
    }

    function _refresh(uint256 deal) private {
        deals[deal].id = registry.agreementIdOf(_termsOf(deals[deal].draft));
    }

    function _consentByAll(uint256 deal) private {
        Deal storage d = deals[deal];
        address[] memory parties = _partiesOf(d.draft.kind);
        bytes[] memory signatures = new bytes[](parties.length);
        for (uint256 i; i < parties.length; ++i) {
            signatures[i] = sign(_keyOf(parties[i]), d.id);
        }
        registry.activate(_termsOf(d.draft), signatures, _noAuditors());
        _activated(deal);
    }

    function _activated(uint256 deal) internal {
        Deal storage d = deals[deal];
        d.life = Life.Active;
        touchedDeals.push(deal);
        if (d.draft.predecessor == 0) return;
        uint256 predecessor = _findDeal(d.draft.predecessor);
        if (deals[predecessor].life == Life.Active) deals[predecessor].life = Life.Superseded;
        touchedDeals.push(predecessor);
    }

    // Requests

    /// @dev R7b: which version a request that does everything right names.
    function _goodVersions(Agreement memory a, uint256 era, uint256 seed)
        internal
        view
        returns (bytes32[] memory versions)
    {
        versions = new bytes32[](a.data.length);
        for (uint256 i; i < a.data.length; ++i) {
            versions[i] = a.data[i].idOrStream;
            if (a.data[i].policy == DatasetPolicy.FIXED) continue;
            Published[] storage list = published[era];
            uint256 index = list.length - 1;
            if (a.data[i].policy == DatasetPolicy.PINNED) index = a.data[i].minVersion - 1;
            else while (index != 0 && list[index].withdrawn) --index;
            if (a.data[i].policy == DatasetPolicy.AT_LEAST && seed % 2 == 0 && !list[1].withdrawn) index = 1;
            versions[i] = list[index].id;
        }
    }

    /// @dev I9
    function _areTaken(Agreement memory a, uint256 era, bytes32[] memory versions) internal view returns (bool) {
        for (uint256 i; i < a.data.length; ++i) {
            if (a.data[i].policy == DatasetPolicy.FIXED) {
                if (versions[i] != a.data[i].idOrStream) return false;
                continue;
            }
            Published[] storage list = published[era];
            uint256 number;
            uint256 latest;
            for (uint256 j; j < list.length; ++j) {
                if (list[j].withdrawn) continue;
                latest = j + 1;
                if (list[j].id == versions[i]) number = j + 1;
            }
            uint256 wanted = a.data[i].minVersion;
            if (number == 0 || number < wanted) return false;
            if (a.data[i].policy == DatasetPolicy.PINNED && number != wanted) return false;
            if (a.data[i].policy == DatasetPolicy.LATEST && number != latest) return false;
        }
        return true;
    }

    /// @dev I3: whether each dataset's ledger stays within what its owner signed; of one lineage they add up.
    function _isAffordable(Agreement memory a, uint256 amount) internal view returns (bool) {
        bool budgeted;
        for (uint256 i; i < a.data.length; ++i) {
            if (a.data[i].budget == 0) continue;
            budgeted = true;
            uint256 before = spentOf[a.data[i].owner][a.data[i].lineage];
            for (uint256 j; j < i; ++j) {
                if (
                    a.data[j].budget != 0 && a.data[j].owner == a.data[i].owner
                        && a.data[j].lineage == a.data[i].lineage
                ) before += amount;
            }
            if (amount > a.data[i].budget || before + amount > a.data[i].budget) return false;
        }
        return budgeted == (amount != 0);
    }

    /// @dev I3: the requester's own limit, as the list and the agreement give it.
    function _limitOf(Deal storage d, address who) internal view returns (uint256) {
        if (d.draft.kind != LISTED) return d.quotaPerRequester;
        if (who == requester) return 3;
        return who == listed ? d.quotaPerRequester : 0;
    }

    function _mayAsk(uint256 deal, Agreement memory a, TaskRequest memory r) internal view returns (bool) {
        Deal storage d = deals[deal];
        return _isOpen(d) && _areTaken(a, d.draft.era, r.versions) && _isAffordable(a, r.spend)
            && askedBy[deal][r.requester] < _limitOf(d, r.requester);
    }

    /// @dev Whether the token hands over what it is told to.
    function _pays(address token) internal view returns (bool) {
        if (token == address(taxed)) return taxed.bps() == 0;
        return token != address(refusing) || !refusing.refuses();
    }

    function _requested(uint256 deal, Agreement memory a, TaskRequest memory r) internal returns (uint256 job) {
        Deal storage d = deals[deal];
        job = jobs.length;
        Job storage j = jobs.push();
        requests.push(r);
        (j.deal, j.id, j.state) = (deal, oracle.taskIdOf(r), TaskState.REQUESTED);
        j.requestBlock = vm.getBlockNumber();
        if (d.releaseDelay != 0) j.cancelUntil = j.requestBlock + d.releaseDelay;
        j.escrow = d.fee;
        ++d.requested;
        ++askedBy[deal][r.requester];
        for (uint256 i; i < a.data.length; ++i) {
            if (a.data[i].budget != 0) spentOf[a.data[i].owner][a.data[i].lineage] += r.spend;
        }
        moneyIn[d.token] += d.fee;
        escrowed[d.token] += d.fee;
        touchedJobs.push(job);
        touchedDeals.push(deal);
    }

    // Ends of tasks

    function _closed(uint256 job, uint8 state) internal returns (Deal storage d) {
        Job storage j = jobs[job];
        d = deals[j.deal];
        _hold("I2: a task left a final state", j.state == TaskState.REQUESTED);
        j.state = state;
        escrowed[d.token] -= j.escrow;
        touchedJobs.push(job);
        touchedDeals.push(j.deal);
    }

    function _cancelled(uint256 job) internal {
        Deal storage d = _closed(job, TaskState.CANCELLED);
        TaskRequest storage r = requests[job];
        _credit(d.token, r.requester, jobs[job].escrow);
        ++d.cancelled;
        --askedBy[jobs[job].deal][r.requester];
        Agreement memory a = _termsOf(d.draft);
        for (uint256 i; i < a.data.length; ++i) {
            if (a.data[i].budget != 0) spentOf[a.data[i].owner][a.data[i].lineage] -= r.spend;
        }
    }

    function _expired(uint256 job) internal {
        Deal storage d = _closed(job, TaskState.EXPIRED);
        _pool(d, d.minFee);
        _credit(d.token, requests[job].requester, jobs[job].escrow - d.minFee);
    }

    function _succeeded(uint256 job, bytes32 digest, address to, bytes32 anchor) internal {
        Deal storage d = _closed(job, TaskState.FULFILLED);
        Job storage j = jobs[job];
        (j.digest, j.outcome, j.payee, j.anchor) = (digest, 1, to, anchor);
        uint256 shared = j.escrow * d.shares / 10_000;
        _pool(d, shared);
        _credit(d.token, to, j.escrow - shared);
    }

    function _failed(uint256 job, bytes32 digest, address to, bytes32 anchor) internal {
        Deal storage d = _closed(job, TaskState.FAILED);
        Job storage j = jobs[job];
        (j.digest, j.outcome, j.payee, j.anchor) = (digest, 2, to, anchor);
        _credit(d.token, to, d.failedFee);
        _credit(d.token, requests[job].requester, j.escrow - d.failedFee);
    }

    function _pool(Deal storage d, uint256 amount) internal {
        d.pool += amount;
        pooled[d.token] += amount;
    }

    function _credit(address token, address account, uint256 amount) internal {
        creditOf[token][account] += amount;
        credited[token] += amount;
        touchedHolders.push(Holder(token, account));
    }

    // Enclaves

    /// @param place 0 and 1 are agreed hosts and programs (R3, R5), 2 is a program nobody agreed to
    function _boot(uint256 place) internal {
        uint256 number = boots.length;
        Boot storage b = boots.push();
        (b.signer, b.key) = makeAddrAndKey(string.concat("boot ", vm.toString(number)));
        b.anchor = place == 1 ? OTHER_ANCHOR : ANCHOR;
        b.identity = IEnclaveRegistry.Identity({
            measurement: place == 0 ? MEASUREMENT : place == 1 ? OTHER_MEASUREMENT : ROGUE_MEASUREMENT,
            platform: place == 1 ? OTHER_PLATFORM : PLATFORM,
            sealingKey: keccak256(abi.encode("sealing key", number)),
            svnDigest: keccak256("svn"),
            verifier: 0,
            operator: place == 1 ? otherOperator : operator,
            tee: TeeKind.SGX
        });
        if (place < 2) working[place] = number;
        require(_register(number, TcbStatus.UP_TO_DATE), "boot");
    }

    /// @dev Registers or renews, over the last block.
    function _register(uint256 number, uint8 status) internal virtual returns (bool);

    /// @dev News of how a boot stands; a newer evaluation leaves what was known under the one before (R4).
    function _stands(Boot storage b, uint8 status, uint32 evaluation) internal {
        bool better = b.earlierStatus == 0 || b.status <= b.earlierStatus;
        if (evaluation > b.evaluation && b.status != 0 && b.status != TcbStatus.REVOKED && better) {
            (b.earlierStatus, b.earlierEvaluation, b.changedAt) = (b.status, b.evaluation, _now());
        }
        (b.status, b.evaluation) = (status, evaluation);
    }

    /// @dev I5: what an agreement asks of the enclave that settles, now.
    function _settles(Boot storage b, Agreement memory a) internal view returns (bool) {
        if (b.evidenceAt == 0 || b.retired || _now() > b.validUntil) return false;
        if (_now() - b.evidenceAt > a.tee.maxEvidenceAge || b.evaluation < a.tee.evalFloor) return false;
        if (!_has(a.tee.anchors, b.anchor) || !_has(a.tee.measurements, b.identity.measurement)) return false;
        bool taken = a.tee.statusMask >> b.status & 1 == 1;
        if (b.earlierStatus != 0 && a.tee.statusMask >> b.earlierStatus & 1 == 1) {
            taken = taken
                || (b.earlierEvaluation >= a.tee.evalFloor && _now() <= b.changedAt + uint256(a.tee.graceDays) * 1 days);
        }
        bool hosted = a.tee.anyHost || _has(a.tee.platforms, b.identity.platform);
        for (uint256 i; i < a.tee.operators.length; ++i) {
            if (a.tee.operators[i] == b.identity.operator) hosted = true;
        }
        return taken && hosted;
    }

    function _has(bytes32[] memory list, bytes32 value) private pure returns (bool) {
        for (uint256 i; i < list.length; ++i) {
            if (list[i] == value) return true;
        }
        return false;
    }

    // Looking

    function _checkMoney(address token) internal view {
        uint256 owed = escrowed[token] + pooled[token] + credited[token];
        _hold("I1: money in is money out and what is owed", moneyIn[token] == moneyOut[token] + owed);
        uint256 held = token == address(0) ? address(oracle).balance : Coin(token).balanceOf(address(oracle));
        _hold("I1: the oracle holds what it owes", held == owed + given[token]);
    }

    function _checkHolder(address token, address account) internal view {
        uint256 balance = oracle.balanceOf(token, account);
        _hold("I6: a balance", balance == creditOf[token][account]);
        _hold("I12: a balance by events", balance == indexer.balanceOf(token, account));
    }

    function _checkJob(uint256 job) internal view {
        Job storage j = jobs[job];
        IComputeOracle.Task memory t = oracle.task(deals[j.deal].id, j.id);
        _hold("I2: a task's state", t.state == j.state);
        _hold("I12: a task's state by events", t.state == indexer.stateOf(j.id));
        if (j.state == TaskState.REQUESTED) {
            _hold("I1: a task's escrow", t.escrow == j.escrow);
            _hold("I10: when a task can be cancelled", t.cancelUntil == j.cancelUntil);
            _hold("I2: a task's block", t.requestBlock == j.requestBlock && t.deadline == requests[job].deadline);
            _hold("I2: a task's callback", t.callback == (requests[job].callback != address(0)));
        } else {
            _hold("I2: a task's result", t.resultDigest == bytes31(j.digest));
            _hold("I8: a task's failed callback", t.callback == j.callbackFailed);
        }
    }

    function _checkDeal(uint256 deal) internal view {
        Deal storage d = deals[deal];
        IAgreementRegistry.Record memory record = registry.agreement(d.id);
        IAgreementRegistry.Status expected = d.life == Life.Active
            ? IAgreementRegistry.Status.Active
            : d.life == Life.Revoked
                ? IAgreementRegistry.Status.Revoked
                : d.life == Life.Superseded ? IAgreementRegistry.Status.Superseded : IAgreementRegistry.Status.None;
        _hold("I7: an agreement's status", record.status == expected);
        _hold("I12: an agreement's status by events", record.status == indexer.statusOf(d.id));
        _hold("I3: quota used", record.used == d.requested - d.cancelled && record.used <= d.quota);
        _hold("I12: quota used by events", record.used == indexer.usedOf(d.id));
        _hold("I6: a pool", oracle.poolOf(d.id) == d.pool);
        _hold("I12: a pool by events", oracle.poolOf(d.id) == indexer.poolOf(d.id));
        address[] memory parties = _partiesOf(d.draft.kind);
        for (uint256 i; i < parties.length; ++i) {
            bool suspended = d.suspendedBy >> i & 1 == 1;
            _hold("I4: a suspension", registry.isSuspendedBy(d.id, parties[i]) == suspended);
            bool revoked = d.revokedBy >> i & 1 == 1;
            _hold("I11: a revocation", registry.isRevokedBy(d.id, parties[i]) == revoked);
        }
        for (uint256 i; i < dropped[deal].length; ++i) {
            _hold("I11: what was dropped", registry.isDropped(d.id, dropped[deal][i]));
        }
        if (d.quotaPerRequester < d.quota) {
            for (uint256 i; i < 5; ++i) {
                uint64 used = registry.usedBy(d.id, people[i]);
                _hold("I3: a requester's quota", used == askedBy[deal][people[i]]);
                _hold("I3: a requester's limit", used <= _limitOf(d, people[i]));
            }
        }
        bytes32 lineage = keccak256(abi.encode("lineage", uint256(d.draft.era)));
        uint256 spent = registry.budgetSpent(hospitalA, lineage);
        _hold("I3: a budget", spent == spentOf[hospitalA][lineage]);
        _hold("I3: a budget's ceiling", spent <= 40);
        _hold("I12: a budget by events", spent == indexer.spentOf(hospitalA, lineage));
    }
}
