// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as R} from "../src/interfaces/IAgreementRegistry.sol";
import {IDatasetStreams as I} from "../src/interfaces/IDatasetStreams.sol";
import {DatasetPolicy, TaskState} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Versions of a stream, and which of them a request may name (R7b).
contract StreamsTest is Fixture {
    bytes32 private constant STREAM = keccak256("tumours, daily");
    bytes32 private constant SHARES = keccak256("shares");

    Agreement private a;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        a.data[0].idOrStream = STREAM;
        a.data[0].sharesDigest = 0;
    }

    // publish

    function test_publishesVersionsInOrder() public {
        for (uint64 i = 1; i <= 3; ++i) {
            vm.expectEmit(address(streams));
            emit I.VersionPublished(hospitalA, STREAM, i, _id(i), _shares(i));
            vm.prank(hospitalA);
            assertEq(streams.publish(STREAM, _id(i), _shares(i)), i);
            assertEq(streams.versionCount(hospitalA, STREAM), i);
            _finds(_id(i), i, i);
        }
        I.Version memory v = streams.version(hospitalA, STREAM, 2);
        assertEq(v.datasetId, _id(2));
        assertEq(v.shares, _shares(2));
        assertFalse(v.withdrawn);
    }

    function test_aStreamIsItsOwnersAlone() public {
        _publish(1);
        vm.prank(stranger);
        assertEq(streams.publish(STREAM, _id(2), SHARES), 1);
        assertEq(streams.versionCount(hospitalA, STREAM), 1);
        _finds(_id(2), 0, 1);
        (uint64 number, uint64 latest) = streams.find(stranger, STREAM, _id(2));
        assertEq(number, 1);
        assertEq(latest, 1);
        (number, latest) = streams.find(stranger, STREAM, _id(1));
        assertEq(number, 0);
    }

    function test_anOwnersStreamsAreApart() public {
        _publish(1);
        vm.prank(hospitalA);
        assertEq(streams.publish(keccak256("another"), _id(1), SHARES), 1);
        (uint64 number, uint64 latest) = streams.find(hospitalA, keccak256("a third"), _id(1));
        assertEq(number, 0);
        assertEq(latest, 0);
    }

    function test_refusesNothing() public {
        vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_Zero.selector, "datasetId"));
        streams.publish(STREAM, 0, SHARES);
        vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_Zero.selector, "shares"));
        streams.publish(STREAM, _id(1), 0);
    }

    /// Its number says how new it is.
    function test_refusesAVersionTwice() public {
        _publish(1);
        _publish(2);
        bytes memory twice =
            abi.encodeWithSelector(I.DatasetStreams_AlreadyPublished.selector, STREAM, _id(1), uint64(1));
        vm.expectRevert(twice);
        vm.prank(hospitalA);
        streams.publish(STREAM, _id(1), SHARES);
        // Nor does it come back by the back door.
        _withdraw(1);
        vm.expectRevert(twice);
        vm.prank(hospitalA);
        streams.publish(STREAM, _id(1), SHARES);
    }

    // withdraw

    function test_withdrawsAVersion() public {
        _publish(1);
        _publish(2);
        vm.expectEmit(address(streams));
        emit I.VersionWithdrawn(hospitalA, STREAM, 1, _id(1));
        _withdraw(1);
        _finds(_id(1), 0, 2);
        _finds(_id(2), 2, 2);
        assertTrue(streams.version(hospitalA, STREAM, 1).withdrawn);
        assertEq(streams.versionCount(hospitalA, STREAM), 2);
    }

    function test_theLatestIsTheNewestThatIsLeft() public {
        _publish(1);
        _publish(2);
        _publish(3);
        _withdraw(2);
        _finds(_id(3), 3, 3);
        _withdraw(3);
        _finds(_id(1), 1, 1);
        _withdraw(1);
        _finds(_id(1), 0, 0);
        _publish(4);
        _finds(_id(4), 4, 4);
    }

    function testFuzz_theLatestIsTheNewestThatIsLeftInAnyOrder(uint8[24] memory moves) public {
        bool[25] memory withdrawn;
        uint64 count;
        for (uint256 i; i < moves.length; ++i) {
            uint64 number = uint64(moves[i] % 32);
            if (moves[i] >= 128 || count == 0) {
                ++count;
                _publish(count);
            } else if (number == 0 || number > count) {
                vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_NoSuchVersion.selector, STREAM, number));
                _withdraw(number);
            } else if (withdrawn[number]) {
                vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_AlreadyWithdrawn.selector, STREAM, number));
                _withdraw(number);
            } else {
                _withdraw(number);
                withdrawn[number] = true;
            }
            uint64 latest = count;
            while (latest != 0 && withdrawn[latest]) --latest;
            for (uint64 j = 1; j <= count; ++j) {
                _finds(_id(j), withdrawn[j] ? 0 : j, latest);
            }
        }
    }

    function test_refusesToWithdrawWhatIsNotThere() public {
        _publish(1);
        bytes4 noSuch = I.DatasetStreams_NoSuchVersion.selector;
        vm.startPrank(hospitalA);
        vm.expectRevert(abi.encodeWithSelector(noSuch, STREAM, 0));
        streams.withdraw(STREAM, 0);
        vm.expectRevert(abi.encodeWithSelector(noSuch, STREAM, 2));
        streams.withdraw(STREAM, 2);
        vm.expectRevert(abi.encodeWithSelector(noSuch, STREAM, 0));
        streams.version(hospitalA, STREAM, 0);
        vm.expectRevert(abi.encodeWithSelector(noSuch, STREAM, 2));
        streams.version(hospitalA, STREAM, 2);
    }

    function test_refusesToWithdrawAnothersVersion() public {
        _publish(1);
        vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_NoSuchVersion.selector, STREAM, 1));
        vm.prank(stranger);
        streams.withdraw(STREAM, 1);
    }

    function test_refusesToWithdrawTwice() public {
        _publish(1);
        _withdraw(1);
        vm.expectRevert(abi.encodeWithSelector(I.DatasetStreams_AlreadyWithdrawn.selector, STREAM, 1));
        _withdraw(1);
    }

    function test_tellsItsInterfaces() public view {
        assertTrue(streams.supportsInterface(type(I).interfaceId));
        assertTrue(streams.supportsInterface(type(IERC165).interfaceId));
        assertFalse(streams.supportsInterface(0xffffffff));
    }

    // Which version a request may name

    function test_fixedTakesItsDatasetOnly() public {
        // Beside a stream, so that the terms are shown one by one.
        a.data[1].policy = DatasetPolicy.LATEST;
        a.data[1].sharesDigest = 0;
        a.data[0] = _dataset("tumours", hospitalA, DATASET_A);
        vm.prank(hospitalB);
        streams.publish(a.data[1].idOrStream, DATASET_B, SHARES);
        bytes32 id = _activate(a);
        _takes(id, DATASET_A);
        _refuses(id, keccak256("another"), 0, 0);
    }

    function test_pinnedTakesItsVersionOnly() public {
        bytes32 id = _threeVersions(DatasetPolicy.PINNED, 2);
        _refuses(id, _id(1), 1, 3);
        _takes(id, _id(2));
        _refuses(id, _id(3), 3, 3);
        _withdraw(2);
        _refuses(id, _id(2), 0, 3);
    }

    function test_atLeastTakesItsVersionAndNewer() public {
        bytes32 id = _threeVersions(DatasetPolicy.AT_LEAST, 2);
        _refuses(id, _id(1), 1, 3);
        _takes(id, _id(2));
        _takes(id, _id(3));
        _publish(4);
        _takes(id, _id(3));
        _takes(id, _id(4));
        _withdraw(3);
        _refuses(id, _id(3), 0, 4);
        _takes(id, _id(2));
    }

    function test_latestTakesTheNewestOnly() public {
        bytes32 id = _threeVersions(DatasetPolicy.LATEST, 0);
        _refuses(id, _id(1), 1, 3);
        _refuses(id, _id(2), 2, 3);
        _takes(id, _id(3));
        _publish(4);
        _refuses(id, _id(3), 3, 4);
        _takes(id, _id(4));
        _withdraw(4);
        _refuses(id, _id(4), 0, 3);
        _takes(id, _id(3));
    }

    /// A withdrawal of what is newest must not bring back what the owner would no longer have read.
    function test_latestDoesNotFallBelowItsLeast() public {
        bytes32 id = _threeVersions(DatasetPolicy.LATEST, 3);
        _takes(id, _id(3));
        _withdraw(3);
        _refuses(id, _id(2), 2, 2);
    }

    function test_noPolicyTakesWhatTheStreamDoesNotHave() public {
        bytes32 elsewhere = keccak256("of another owner, in a stream of this name");
        vm.prank(stranger);
        streams.publish(STREAM, elsewhere, SHARES);
        vm.prank(hospitalA);
        streams.publish(keccak256("another stream"), keccak256("of another stream"), SHARES);
        _publish(1);
        _publish(2);
        for (uint8 policy = DatasetPolicy.PINNED; policy <= DatasetPolicy.LATEST; ++policy) {
            bytes32 id = _withPolicy(policy, 1);
            _refuses(id, elsewhere, 0, 2);
            _refuses(id, keccak256("of another stream"), 0, 2);
            _refuses(id, keccak256("unknown"), 0, 2);
            _refuses(id, 0, 0, 2);
            // The stream's name is no dataset.
            _refuses(id, STREAM, 0, 2);
        }
    }

    function test_noPolicyTakesAnythingOfAnEmptyStream() public {
        for (uint8 policy = DatasetPolicy.PINNED; policy <= DatasetPolicy.LATEST; ++policy) {
            bytes32 id = _withPolicy(policy, policy == DatasetPolicy.LATEST ? 0 : 1);
            _refuses(id, 0, 0, 0);
            _refuses(id, _id(1), 0, 0);
        }
    }

    function test_noPolicyTakesAnythingOfAWithdrawnStream() public {
        _publish(1);
        _withdraw(1);
        for (uint8 policy = DatasetPolicy.PINNED; policy <= DatasetPolicy.LATEST; ++policy) {
            _refuses(_withPolicy(policy, policy == DatasetPolicy.LATEST ? 0 : 1), _id(1), 0, 0);
        }
    }

    function testFuzz_takesExactlyWhatThePolicySays(uint8 policy, uint8 min, uint8 named, uint8 withdrawn) public {
        policy = uint8(bound(policy, DatasetPolicy.PINNED, DatasetPolicy.LATEST));
        min = uint8(bound(min, policy == DatasetPolicy.LATEST ? 0 : 1, 5));
        named = uint8(bound(named, 1, 4));
        uint64 latest;
        for (uint64 i = 1; i <= 4; ++i) {
            _publish(i);
            if (withdrawn & (1 << i) == 0) latest = i;
            else _withdraw(i);
        }
        bool taken = withdrawn & (1 << named) == 0;
        if (policy == DatasetPolicy.PINNED) taken = taken && named == min;
        else taken = taken && named >= min;
        if (policy == DatasetPolicy.LATEST) taken = taken && named == latest;

        bytes32 id = _withPolicy(policy, min);
        if (taken) _takes(id, _id(named));
        else _refuses(id, _id(named), withdrawn & (1 << named) == 0 ? named : 0, latest);
    }

    /// Each by its own term.
    function test_twoStreamsAreCheckedByTheirOwnTerms() public {
        a.data[1].policy = DatasetPolicy.PINNED;
        a.data[1].minVersion = 1;
        a.data[1].sharesDigest = 0;
        vm.startPrank(hospitalB);
        streams.publish(a.data[1].idOrStream, DATASET_B, SHARES);
        streams.publish(a.data[1].idOrStream, keccak256("newer"), SHARES);
        vm.stopPrank();
        bytes32 id = _threeVersions(DatasetPolicy.LATEST, 0);
        _takes(id, _id(3));
        TaskRequest memory r = _naming(id, _id(3));
        r.versions[1] = keccak256("newer");
        _refusesRequest(r, _notTaken(1, keccak256("newer"), 2, 2));
        (r.versions[0], r.versions[1]) = (DATASET_B, _id(3));
        _refusesRequest(r, _notTaken(0, DATASET_B, 0, 3));
    }

    // What was requested before

    function test_versionWithdrawnAfterTheRequestStillSettles() public {
        bytes32 id = _threeVersions(DatasetPolicy.LATEST, 0);
        TaskRequest memory r = _naming(id, _id(3));
        _ask(r);
        _withdraw(3);
        _publish(4);
        _register();
        _fulfil(a, r, _result(r));
        assertEq(_state(r), TaskState.FULFILLED);
    }

    function test_versionWithdrawnAfterTheRequestIsStillCancelled() public {
        bytes32 id = _threeVersions(DatasetPolicy.PINNED, 3);
        TaskRequest memory r = _naming(id, _id(3));
        _ask(r);
        _withdraw(3);
        vm.prank(requester);
        oracle.cancel(r, _admission(a));
        assertEq(_state(r), TaskState.CANCELLED);
        assertEq(registry.agreement(id).used, 0);
    }

    function _id(uint64 number) private pure returns (bytes32) {
        return keccak256(abi.encode("version", number));
    }

    function _shares(uint64 number) private pure returns (bytes32) {
        return keccak256(abi.encode("shares", number));
    }

    function _publish(uint64 number) private {
        vm.prank(hospitalA);
        streams.publish(STREAM, _id(number), _shares(number));
    }

    function _withdraw(uint64 number) private {
        vm.prank(hospitalA);
        streams.withdraw(STREAM, number);
    }

    function _finds(bytes32 datasetId, uint64 number, uint64 latest) private view {
        (uint64 gotNumber, uint64 gotLatest) = streams.find(hospitalA, STREAM, datasetId);
        assertEq(gotNumber, number);
        assertEq(gotLatest, latest);
    }

    function _withPolicy(uint8 policy, uint64 minVersion) private returns (bytes32) {
        a.data[0].policy = policy;
        a.data[0].minVersion = minVersion;
        a.access.quota = 100;
        a.access.quotaPerRequester = 100;
        return _activate(a);
    }

    function _threeVersions(uint8 policy, uint64 minVersion) private returns (bytes32) {
        _publish(1);
        _publish(2);
        _publish(3);
        return _withPolicy(policy, minVersion);
    }

    function _naming(bytes32 id, bytes32 version) private view returns (TaskRequest memory r) {
        r = _taskRequest(id);
        r.versions[0] = version;
        r.nonce = keccak256(abi.encode(version, registry.agreement(id).used));
    }

    function _ask(TaskRequest memory r) private {
        vm.prank(requester);
        oracle.request{value: FEE}(r, _admission(a), "");
    }

    function _takes(bytes32 id, bytes32 version) private {
        TaskRequest memory r = _naming(id, version);
        _ask(r);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function _refuses(bytes32 id, bytes32 version, uint64 number, uint64 latest) private {
        _refusesRequest(_naming(id, version), _notTaken(0, version, number, latest));
    }

    function _notTaken(uint256 index, bytes32 version, uint64 number, uint64 latest)
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeWithSelector(R.AgreementRegistry_VersionNotTaken.selector, index, version, number, latest);
    }

    function _refusesRequest(TaskRequest memory r, bytes memory err) private {
        vm.expectRevert(err);
        _ask(r);
    }
}
