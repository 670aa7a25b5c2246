// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Output, TaskRequest} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IEnclaveRegistry} from "../../src/interfaces/IEnclaveRegistry.sol";
import {Confirmation, DatasetPolicy, OutputKind, TcbStatus} from "../../src/libraries/Constants.sol";
import {Fixture} from "../Fixture.sol";
import {Caller} from "../utils/Caller.sol";
import {Coin, FalseReturning, FeeOnTransfer, Reentrant} from "../utils/Tokens.sol";
import {Wallet} from "../utils/Wallet.sol";

/// @title Who and what is there: accounts, tokens, enclaves, and eight kinds of agreement
abstract contract World is Fixture {
    /// @dev The kinds of agreement, by what each is about.
    uint256 internal constant PLAIN = 0;
    uint256 internal constant BUDGETED = 1;
    uint256 internal constant LISTED = 2;
    uint256 internal constant REENTRANT = 3;
    uint256 internal constant TAXED = 4;
    uint256 internal constant REFUSED = 5;
    uint256 internal constant PUBLISHED = 6;
    uint256 internal constant FREE = 7;
    uint256 internal constant KINDS = 8;

    bytes32 internal constant NO_RECIPIENTS = 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d;
    bytes32 internal constant OTHER_ANCHOR = keccak256("other anchor");
    bytes32 internal constant OTHER_MEASUREMENT = keccak256("other measurement");
    bytes32 internal constant ROGUE_MEASUREMENT = keccak256("rogue measurement");
    bytes32 internal constant OTHER_PLATFORM = keccak256("other platform");
    uint256 internal constant RICH = 1e30;

    /// @dev An agreement's own values; the rest follows from its kind.
    struct Draft {
        uint8 kind;
        uint8 era;
        uint40 from;
        uint40 until;
        bytes32 salt;
        bytes32 predecessor;
    }

    Coin internal coin;
    Reentrant internal reentrant;
    FeeOnTransfer internal taxed;
    FalseReturning internal refusing;
    address[] internal tokens;

    address internal other;
    uint256 internal otherKey;
    uint256 internal requesterKey;
    uint256 internal strangerKey;
    address internal listed;
    uint256 internal listedKey;
    address internal otherOperator;
    uint256 internal otherOperatorKey;
    address internal otherPayee;
    address internal relayer;
    Wallet internal wallet;
    Caller[2] internal callers;
    /// @dev Everyone who can come to hold a balance.
    address[] internal people;

    function setUp() public virtual override {
        super.setUp();
        (requester, requesterKey) = makeAddrAndKey("requester");
        (other, otherKey) = makeAddrAndKey("other requester");
        (stranger, strangerKey) = makeAddrAndKey("stranger");
        (listed, listedKey) = makeAddrAndKey("listed requester");
        (otherOperator, otherOperatorKey) = makeAddrAndKey("other operator");
        otherPayee = makeAddr("other payee");
        relayer = makeAddr("relayer");
        wallet = new Wallet(hospitalB);
        coin = Coin(deploy("Tokens.sol:Coin", ""));
        reentrant = Reentrant(deploy("Tokens.sol:Reentrant", ""));
        taxed = FeeOnTransfer(deploy("Tokens.sol:FeeOnTransfer", ""));
        refusing = FalseReturning(deploy("Tokens.sol:FalseReturning", ""));
        tokens = [address(0), address(coin), address(reentrant), address(taxed), address(refusing)];
        callers = [new Caller(oracle), new Caller(oracle)];
        people = [
            requester,
            other,
            listed,
            address(callers[0]),
            address(callers[1]),
            author,
            hospitalA,
            hospitalB,
            payee,
            otherPayee,
            relayer,
            stranger,
            address(reentrant)
        ];
        for (uint256 i; i < people.length; ++i) {
            vm.deal(people[i], RICH);
            if (i > 4) continue;
            for (uint256 j = 1; j < tokens.length; ++j) {
                Coin(tokens[j]).mint(people[i], RICH);
                vm.prank(people[i]);
                Coin(tokens[j]).approve(address(oracle), type(uint256).max);
            }
        }
    }

    // Agreements

    function _termsOf(Draft memory d) internal view returns (Agreement memory a) {
        a = _agreement();
        a.salt = d.salt;
        a.supersedes = d.predecessor;
        (a.notBefore, a.notAfter, a.activateBefore) = (d.from, d.until, d.from + 10 days);
        (a.access.quota, a.access.quotaPerRequester) = (12, 5);
        a.tee.statusMask |= uint32(1) << TcbStatus.SW_HARDENING_NEEDED;
        a.tee.maxEvidenceAge = 1 days;
        a.tee.operators = _two(operator, otherOperator);
        if (d.kind == PLAIN) {
            a.tee.statusMask = uint32(1) << TcbStatus.UP_TO_DATE;
            a.tee.maxEvidenceAge = 6 hours;
        } else if (d.kind != BUDGETED) {
            a.tee.anchors = _two(ANCHOR, OTHER_ANCHOR);
            a.tee.measurements = _two(MEASUREMENT, OTHER_MEASUREMENT);
        }
        if (d.kind == BUDGETED) _budgeted(a, d.era);
        if (d.kind == LISTED) _listed(a, d.era);
        if (d.kind == REENTRANT) {
            a.price.token = address(reentrant);
            a.data[1].owner = address(wallet);
            a.tee.graceDays = 2;
        }
        if (d.kind == TAXED) {
            a.price.token = address(taxed);
            a.price.failedFee = FEE;
            (a.price.bps[0], a.price.bps[1]) = (0, 10_000);
            a.keys.releaseDelay = 0;
            a.tee.operators = new address[](0);
            a.tee.platforms = _two(PLATFORM, OTHER_PLATFORM);
        }
        if (d.kind == REFUSED) {
            a.price.token = address(refusing);
            a.price.failedFee = 0;
            (a.price.to, a.price.bps) = (new address[](0), new uint16[](0));
            a.tee.operators = new address[](0);
            a.tee.anyHost = true;
            a.tee.evalFloor = 18;
        }
        if (d.kind == PUBLISHED) _published(a, d.era);
        if (d.kind == FREE) (a.price.fee, a.price.failedFee) = (0, 0);
    }

    /// @dev A budget that other agreements share, on a stream.
    function _budgeted(Agreement memory a, uint256 era) private view {
        a.price.token = address(coin);
        a.price.minFee = FEE / 10;
        (a.access.quota, a.access.quotaPerRequester) = (30, 30);
        (a.keys.confirmation, a.keys.confirmBlocks, a.keys.releaseDelay) = (Confirmation.FINALIZED, 0, 8);
        _stream(a, era, DatasetPolicy.AT_LEAST, 2);
        a.data[0].budget = 20;
    }

    /// @dev Two datasets of one lineage, and requesters from a list.
    function _listed(Agreement memory a, uint256 era) private view {
        a.price.minFee = FEE / 4;
        (a.keys.confirmation, a.keys.confirmBlocks, a.keys.releaseDelay) = (Confirmation.FINALIZED, 0, 3);
        _stream(a, era, DatasetPolicy.LATEST, 0);
        a.data[1].owner = hospitalA;
        a.data[1].lineage = a.data[0].lineage;
        (a.data[0].budget, a.data[1].budget) = (30, 40);
        a.access.requesters = _pair(_leaf(listed, 7), _leaf(requester, 3));
        a.tee.operators = new address[](1);
        a.tee.operators[0] = operator;
    }

    /// @dev Public outputs, a fee that does not divide, and a pinned version.
    function _published(Agreement memory a, uint256 era) private view {
        (a.price.fee, a.price.failedFee, a.price.minFee) = (7, 2, 3);
        a.price.to[1] = payee;
        (a.price.bps[0], a.price.bps[1]) = (3333, 3333);
        (a.access.quota, a.access.quotaPerRequester) = (8, 8);
        (a.keys.confirmation, a.keys.confirmBlocks) = (Confirmation.FINALIZED, 0);
        _stream(a, era, DatasetPolicy.PINNED, 1);
        Output memory o = a.outputs[0];
        (o.kind, o.recipients) = (OutputKind.ABI_VALUES, new bytes32[](0));
    }

    function _stream(Agreement memory a, uint256 era, uint8 policy, uint64 minVersion) private pure {
        a.data[0].idOrStream = _streamName(era);
        a.data[0].lineage = keccak256(abi.encode("lineage", era));
        a.data[0].sharesDigest = 0;
        (a.data[0].policy, a.data[0].minVersion) = (policy, minVersion);
    }

    /// @dev Each era has a stream and a lineage of its own, so that a spent budget does not end a run.
    function _streamName(uint256 era) internal pure returns (bytes32) {
        return keccak256(abi.encode("stream", era));
    }

    function _partiesOf(uint256 kind) internal view returns (address[] memory list) {
        list = new address[](kind == LISTED ? 2 : 3);
        (list[0], list[1]) = (author, hospitalA);
        if (kind != LISTED) list[2] = kind == REENTRANT ? address(wallet) : hospitalB;
    }

    function _keyOf(address account) internal view returns (uint256) {
        if (account == author) return authorKey;
        if (account == hospitalA) return hospitalAKey;
        if (account == hospitalB || account == address(wallet)) return hospitalBKey;
        if (account == requester) return requesterKey;
        if (account == other) return otherKey;
        if (account == listed) return listedKey;
        return strangerKey;
    }

    /// @dev What `who` shows when it asks under `a`.
    function _admissionOf(Agreement memory a, address who)
        internal
        view
        returns (IAgreementRegistry.Admission memory admission)
    {
        admission = _admission(a);
        if (a.access.requesters != _pair(_leaf(listed, 7), _leaf(requester, 3))) return admission;
        (admission.quota, admission.proof) =
            who == requester ? (uint64(3), _one(_leaf(listed, 7))) : (uint64(7), _one(_leaf(requester, 3)));
    }

    /// @dev OpenZeppelin's StandardMerkleTree of (address, uint64).
    function _leaf(address account, uint64 quota) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(account, quota))));
    }

    function _pair(bytes32 a, bytes32 b) internal pure returns (bytes32) {
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    // Small things

    function _two(bytes32 a, bytes32 b) internal pure returns (bytes32[] memory list) {
        list = new bytes32[](2);
        (list[0], list[1]) = (a, b);
    }

    function _two(address a, address b) internal pure returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = (a, b);
    }

    /// @dev Another number out of the same seed.
    function _mix(uint256 seed, uint256 salt) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, salt)));
    }

    function _now() internal view returns (uint40) {
        return uint40(vm.getBlockTimestamp());
    }
}
