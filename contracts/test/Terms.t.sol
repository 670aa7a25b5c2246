// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Broker, Dataset, Output} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {Confirmation, DatasetPolicy, OutputKind, TcbStatus} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @notice What AgreementTerms refuses at an activation, and the nearest that it takes (R7, R21). Terms are checked before
/// signatures, so what is refused here needs none.
contract TermsTest is Fixture {
    // Addresses and times

    function test_refusesAddressesWithoutCode() public {
        Agreement memory a = _agreement();
        a.oracle = stranger;
        _refusesNoContract(a, "oracle", stranger);
        a = _agreement();
        a.enclaveRegistry = address(0);
        _refusesNoContract(a, "enclaveRegistry", address(0));
        a = _agreement();
        a.price.token = stranger;
        _refusesNoContract(a, "price.token", stranger);
    }

    function test_takesATokenWithCode() public {
        Agreement memory a = _agreement();
        a.price.token = address(verifier);
        assertEq(registry.agreement(_activate(a)).token, address(verifier));
    }

    function test_activatesUntilActivateBefore() public {
        Agreement memory a = _agreement();
        vm.warp(a.activateBefore);
        _activate(a);
    }

    function test_refusesAfterActivateBefore() public {
        Agreement memory a = _agreement();
        uint256 late = uint256(a.activateBefore) + 1;
        vm.warp(late);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_ActivationClosed.selector, a.activateBefore, late));
    }

    function test_refusesAnEmptyWindow() public {
        Agreement memory a = _agreement();
        a.notBefore = a.notAfter;
        _refusesWindow(a);
        a.notBefore = a.notAfter - 1;
        _activate(a);
    }

    function test_refusesAWindowThatIsOver() public {
        Agreement memory a = _agreement();
        a.notBefore = 1;
        a.notAfter = uint64(vm.getBlockTimestamp());
        _refusesWindow(a);
        a.notAfter += 1;
        _activate(a);
    }

    function test_refusesAWindowThatIsNotKept() public {
        Agreement memory a = _agreement();
        a.notAfter = 1 << 40;
        _refusesWindow(a);
        a.notAfter -= 1;
        assertEq(registry.agreement(_activate(a)).notAfter, type(uint40).max);
    }

    // Function

    function test_refusesAFunctionOfNobody() public {
        Agreement memory a = _agreement();
        a.fn.id = 0;
        _refusesZero(a, "fn.id");
        a = _agreement();
        a.fn.owner = address(0);
        _refusesZero(a, "fn.owner");
    }

    function testFuzz_takesTheFiveKindsOfFunction(uint8 kind) public {
        Agreement memory a = _agreement();
        a.fn.kind = kind;
        if (kind >= 1 && kind <= 5) _activate(a);
        else _refusesRange(a, "fn.kind", kind, 1, 5);
    }

    function test_refusesKindsOfFunctionPastTheEnds() public {
        testFuzz_takesTheFiveKindsOfFunction(0);
        testFuzz_takesTheFiveKindsOfFunction(6);
    }

    /// R17b
    function test_aSealedFunctionHasSharesAndAnotherHasNone() public {
        Agreement memory a = _agreement();
        a.fn.sealedId = keccak256("sealed");
        _refusesConflict(a, "fn.sharesDigest");
        a.fn.sharesDigest = keccak256("shares");
        _activate(a);
        a.fn.sealedId = 0;
        _refusesConflict(a, "fn.sharesDigest");
    }

    function test_refusesLimitsOfNothing() public {
        Agreement memory a = _agreement();
        a.fn.limits.memoryMiB = 0;
        _refusesRange(a, "fn.limits.memoryMiB", 0, 1, type(uint32).max);
        a = _agreement();
        a.fn.limits.timeSeconds = 0;
        _refusesRange(a, "fn.limits.timeSeconds", 0, 1, type(uint32).max);
        a = _agreement();
        a.fn.limits.outputBytes = 0;
        _refusesRange(a, "fn.limits.outputBytes", 0, 1, type(uint64).max);
        a = _agreement();
        a.fn.limits.outputRows = 0;
        _refusesRange(a, "fn.limits.outputRows", 0, 1, type(uint64).max);
    }

    // Datasets

    function test_refusesNoDatasets() public {
        Agreement memory a = _agreement();
        a.data = new Dataset[](0);
        _refusesCount(a, "data", 0, 1, 16);
    }

    function test_takesSixteenDatasetsAndNoMore() public {
        Agreement memory a = _agreement();
        a.data = _many(16);
        _activateAlone(a);
        a.data = _many(17);
        _refusesCount(a, "data", 17, 1, 16);
    }

    function test_refusesDatasetsWithoutANameOfTheirOwn() public {
        Agreement memory a = _agreement();
        a.data[1].name = "";
        _refusesZero(a, "data.name");
        a.data[1].name = a.data[0].name;
        _refusesDuplicate(a, "data.name", 1);
    }

    function test_refusesDatasetsOfNobodyOrNothing() public {
        Agreement memory a = _agreement();
        a.data[1].owner = address(0);
        _refusesZero(a, "data.owner");
        a = _agreement();
        a.data[1].idOrStream = 0;
        _refusesZero(a, "data.idOrStream");
        a = _agreement();
        a.data[1].lineage = 0;
        _refusesZero(a, "data.lineage");
    }

    function test_refusesAnUnknownPolicy() public {
        Agreement memory a = _agreement();
        a.data[1].policy = 0;
        _refusesRange(a, "data.policy", 0, 1, 4);
        a.data[1].policy = 5;
        _refusesRange(a, "data.policy", 5, 1, 4);
    }

    /// R10: a stream's versions have shares of their own, each.
    function test_aFixedDatasetHasSharesAndAStreamHasNone() public {
        Agreement memory a = _agreement();
        a.data[1].sharesDigest = 0;
        _refusesConflict(a, "data.sharesDigest");
        a.data[1].policy = DatasetPolicy.LATEST;
        _activate(a);
        a.data[1].sharesDigest = keccak256("shares");
        _refusesConflict(a, "data.sharesDigest");
    }

    function test_aFixedDatasetHasNoVersion() public {
        Agreement memory a = _agreement();
        a.data[1].minVersion = 1;
        _refusesRange(a, "data.minVersion", 1, 0, 0);
    }

    function test_aPinnedVersionIsNamed() public {
        _needsAVersion(DatasetPolicy.PINNED);
    }

    function test_aLeastVersionIsNamed() public {
        _needsAVersion(DatasetPolicy.AT_LEAST);
    }

    function test_theLatestVersionMayHaveALeastToo() public {
        Agreement memory a = _agreement();
        a.data[1].policy = DatasetPolicy.LATEST;
        a.data[1].sharesDigest = 0;
        _activate(a);
        a.data[1].minVersion = 7;
        _activate(a);
    }

    function test_refusesColumnsOfNothing() public {
        Agreement memory a = _agreement();
        a.data[1].columns = new string[](0);
        _refusesCount(a, "data.columns", 0, 1, 1024);
        a.data[1].columns = new string[](1025);
        _refusesCount(a, "data.columns", 1025, 1, 1024);
        a = _agreement();
        a.data[1].columns[1] = "";
        _refusesZero(a, "data.columns");
    }

    // Enclaves and hosts

    function test_refusesAnEmptyEnclavePolicy() public {
        Agreement memory a = _agreement();
        a.tee.measurements = new bytes32[](0);
        _refusesCount(a, "tee.measurements", 0, 1, 64);
        a.tee.measurements = new bytes32[](1);
        _refusesZero(a, "tee.measurements");
        a = _agreement();
        a.tee.anchors = new bytes32[](0);
        _refusesCount(a, "tee.anchors", 0, 1, 64);
        a.tee.anchors = new bytes32[](1);
        _refusesZero(a, "tee.anchors");
        a = _agreement();
        a.tee.evalFloor = 0;
        _refusesRange(a, "tee.evalFloor", 0, 1, type(uint32).max);
        a = _agreement();
        a.tee.maxEvidenceAge = 0;
        _refusesRange(a, "tee.maxEvidenceAge", 0, 1, type(uint64).max);
    }

    function testFuzz_takesExactlyTheMasksOfUnrevokedStatuses(uint32 mask) public {
        mask = uint32(bound(mask, 0, 4095));
        Agreement memory a = _agreement();
        a.tee.statusMask = mask;
        if (mask != 0 && mask & ~uint32(0x37E) == 0) _activate(a);
        else _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadStatusMask.selector, mask, 0x37E));
    }

    function test_refusesNoStatusAndTheRevokedOne() public {
        Agreement memory a = _agreement();
        a.tee.statusMask = 0;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadStatusMask.selector, 0, 0x37E));
        a.tee.statusMask = uint32(1) << TcbStatus.UP_TO_DATE | uint32(1) << TcbStatus.REVOKED;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadStatusMask.selector, a.tee.statusMask, 0x37E));
    }

    /// R5
    function test_refusesHostsThatAreNeitherNamedNorAny() public {
        Agreement memory a = _agreement();
        a.tee.operators = new address[](0);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadHosts.selector, false, 0, 0));
        a.tee.platforms = _one(PLATFORM);
        _activate(a);
    }

    /// R5
    function test_refusesHostsThatAreBothNamedAndAny() public {
        Agreement memory a = _agreement();
        a.tee.anyHost = true;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadHosts.selector, true, 1, 0));
        a.tee.operators = new address[](0);
        _activate(a);
        a.tee.platforms = _one(PLATFORM);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadHosts.selector, true, 0, 1));
    }

    /// Zero is what an identity without an operator or platform has.
    function test_refusesZeroHosts() public {
        Agreement memory a = _agreement();
        a.tee.operators[0] = address(0);
        _refusesZero(a, "tee.operators");
        a = _agreement();
        a.tee.platforms = new bytes32[](1);
        _refusesZero(a, "tee.platforms");
    }

    function test_refusesLongPolicyLists() public {
        Agreement memory a = _agreement();
        a.tee.measurements = new bytes32[](65);
        _refusesCount(a, "tee.measurements", 65, 1, 64);
        a = _agreement();
        a.tee.anchors = new bytes32[](65);
        _refusesCount(a, "tee.anchors", 65, 1, 64);
        a = _agreement();
        a.tee.operators = new address[](65);
        _refusesCount(a, "tee.operators", 65, 0, 64);
        a = _agreement();
        a.tee.platforms = new bytes32[](65);
        _refusesCount(a, "tee.platforms", 65, 0, 64);
    }

    // Key release

    function test_refusesNoBrokersAndSeventeen() public {
        Agreement memory a = _agreement();
        a.keys.brokers = new Broker[](0);
        _refusesCount(a, "keys.brokers", 0, 1, 16);
        a.keys.brokers = new Broker[](17);
        _refusesCount(a, "keys.brokers", 17, 1, 16);
    }

    function test_refusesZeroBrokers() public {
        Agreement memory a = _agreement();
        a.keys.brokers[1].hpkeKey = 0;
        _refusesZero(a, "keys.brokers.hpkeKey");
        a = _agreement();
        a.keys.brokers[1].signer = address(0);
        _refusesZero(a, "keys.brokers.signer");
    }

    /// One broker listed twice would count twice towards the threshold.
    function test_refusesOneBrokerTwice() public {
        Agreement memory a = _agreement();
        a.keys.brokers[2].hpkeKey = a.keys.brokers[0].hpkeKey;
        _refusesDuplicate(a, "keys.brokers.hpkeKey", 2);
        a = _agreement();
        a.keys.brokers[2].signer = a.keys.brokers[0].signer;
        _refusesDuplicate(a, "keys.brokers.signer", 2);
    }

    function test_takesAThresholdOfOneAndOfAllBrokers() public {
        testFuzz_takesThresholdsThatTheBrokersCanMeet(1);
        testFuzz_takesThresholdsThatTheBrokersCanMeet(3);
    }

    function testFuzz_takesThresholdsThatTheBrokersCanMeet(uint8 threshold) public {
        threshold = uint8(bound(threshold, 0, 5));
        Agreement memory a = _agreement();
        a.keys.threshold = threshold;
        if (threshold >= 1 && threshold <= 3) _activate(a);
        else _refusesRange(a, "keys.threshold", threshold, 1, 3);
    }

    function test_refusesBadReleasePolicy() public {
        Agreement memory a = _agreement();
        a.keys.maxReleases = 0;
        _refusesRange(a, "keys.maxReleases", 0, 1, 255);
        a = _agreement();
        a.keys.confirmation = 0;
        _refusesRange(a, "keys.confirmation", 0, 1, 3);
        a.keys.confirmation = 4;
        _refusesRange(a, "keys.confirmation", 4, 1, 3);
    }

    function test_onlyTheLatestBlockIsCountedBackFrom() public {
        Agreement memory a = _agreement();
        a.keys.confirmation = Confirmation.SAFE;
        _refusesRange(a, "keys.confirmBlocks", 1, 0, 0);
        a.keys.confirmBlocks = 0;
        _activate(a);
    }

    // What cannot be taken back (R9, R16)

    function test_aBudgetNeedsFinality() public {
        Agreement memory a = _agreement();
        a.data[1].budget = 1;
        _needsFinality(a);
    }

    function test_aPublicOutputNeedsFinality() public {
        Agreement memory a = _agreement();
        _openUp(a.outputs[0]);
        _needsFinality(a);
    }

    function test_oneOutputOfTwoInPublicNeedsFinality() public {
        Agreement memory a = _agreement();
        a.outputs = new Output[](2);
        a.outputs[0] = _output("table");
        a.outputs[1] = _output("mean");
        _openUp(a.outputs[1]);
        _needsFinality(a);
    }

    function test_aBudgetNeedsADeterministicFunction() public {
        Agreement memory a = _agreement();
        a.fn.deterministic = false;
        _activate(a);
        a.data[0].budget = 1;
        a.keys.confirmation = Confirmation.FINALIZED;
        a.keys.confirmBlocks = 0;
        _refusesConflict(a, "fn.deterministic");
        a.fn.deterministic = true;
        _activate(a);
    }

    // Outputs

    function test_refusesNoOutputsAndSeventeen() public {
        Agreement memory a = _agreement();
        a.outputs = new Output[](0);
        _refusesCount(a, "outputs", 0, 1, 16);
        a.outputs = new Output[](17);
        _refusesCount(a, "outputs", 17, 1, 16);
    }

    function test_refusesOutputsWithoutANameOfTheirOwn() public {
        Agreement memory a = _agreement();
        a.outputs[0].name = "";
        _refusesZero(a, "outputs.name");
        a.outputs = new Output[](2);
        a.outputs[0] = _output("table");
        a.outputs[1] = _output("table");
        _refusesDuplicate(a, "outputs.name", 1);
    }

    function test_refusesAnUnknownKindOfOutput() public {
        Agreement memory a = _agreement();
        a.outputs[0].kind = 0;
        _refusesRange(a, "outputs.kind", 0, 1, 2);
        a.outputs[0].kind = 3;
        _refusesRange(a, "outputs.kind", 3, 1, 2);
    }

    function test_abiValuesArePublicAndTablesAreNot() public {
        Agreement memory a = _agreement();
        a.outputs[0].kind = OutputKind.ABI_VALUES;
        _refusesConflict(a, "outputs.kind");
        a = _agreement();
        a.outputs[0].recipients = new bytes32[](0);
        _refusesConflict(a, "outputs.kind");
    }

    /// Its length is known anyway.
    function test_aPublicOutputIsNotPadded() public {
        Agreement memory a = _agreement();
        a.outputs[0].sizeClass = 2;
        _activate(a);
        _openUp(a.outputs[0]);
        a.outputs[0].sizeClass = 2;
        _refusesConflict(a, "outputs.sizeClass");
    }

    function test_refusesASealedOutputOfNoSize() public {
        Agreement memory a = _agreement();
        a.outputs[0].sizeClass = 0;
        _refusesRange(a, "outputs.sizeClass", 0, 1, type(uint32).max);
    }

    function test_refusesMoreThanSixtyFourRecipients() public {
        Agreement memory a = _agreement();
        a.outputs[0].recipients = new bytes32[](65);
        _refusesCount(a, "outputs.recipients", 65, 0, 64);
        a.outputs[0].recipients = new bytes32[](64);
        _activate(a);
    }

    function test_refusesOutputsOfNobody() public {
        Agreement memory a = _agreement();
        a.outputs[0].owners = new address[](0);
        _refusesCount(a, "outputs.owners", 0, 1, 17);
        a.outputs[0].owners = new address[](18);
        _refusesCount(a, "outputs.owners", 18, 1, 17);
        a = _agreement();
        a.outputs[0].owners[1] = address(0);
        _refusesZero(a, "outputs.owners");
    }

    // Access

    /// R21: whoever may ask is written out.
    function test_refusesRequestersLeftOut() public {
        Agreement memory a = _agreement();
        a.access.requesters = 0;
        _refusesZero(a, "access.requesters");
    }

    function test_refusesNoQuota() public {
        Agreement memory a = _agreement();
        a.access.quota = 0;
        _refusesRange(a, "access.quota", 0, 1, type(uint64).max);
        a = _agreement();
        a.access.quotaPerRequester = 0;
        _refusesRange(a, "access.quotaPerRequester", 0, 1, 10);
        a.access.quotaPerRequester = 11;
        _refusesRange(a, "access.quotaPerRequester", 11, 1, 10);
    }

    // Price

    function test_takesFeesOf128BitsAndNoMore() public {
        Agreement memory a = _agreement();
        a.price.fee = type(uint128).max;
        assertEq(registry.agreement(_activate(a)).fee, type(uint128).max);
        a.price.fee += 1;
        _refusesRange(a, "price.fee", 1 << 128, 0, type(uint128).max);
    }

    function test_partsOfTheFeeAreNoMoreThanTheFee() public {
        Agreement memory a = _agreement();
        a.price.failedFee = FEE + 1;
        _refusesRange(a, "price.failedFee", FEE + 1, 0, FEE);
        a = _agreement();
        a.price.minFee = FEE + 1;
        _refusesRange(a, "price.minFee", FEE + 1, 0, FEE);
        a.price.minFee = FEE;
        a.price.failedFee = FEE;
        _activate(a);
    }

    function test_aMinimumFeeGoesToSomebody() public {
        Agreement memory a = _agreement();
        a.price.bps = new uint16[](2);
        _activate(a);
        a.price.minFee = 1;
        _refusesConflict(a, "price.minFee");
        a.price.bps[1] = 1;
        _activate(a);
    }

    function test_refusesSharesOfNobody() public {
        Agreement memory a = _agreement();
        a.price.bps = new uint16[](1);
        _refusesCount(a, "price.bps", 1, 2, 2);
        a = _agreement();
        a.price.to = new address[](17);
        _refusesCount(a, "price.to", 17, 0, 16);
        a = _agreement();
        a.price.to[1] = address(0);
        _refusesZero(a, "price.to");
    }

    function testFuzz_takesSharesOfUpToTheWholeFee(uint16 first, uint16 second) public {
        Agreement memory a = _agreement();
        (a.price.bps[0], a.price.bps[1]) = (first, second);
        uint256 sum = uint256(first) + second;
        if (sum <= 10_000) _activate(a);
        else _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_SharesExceedFee.selector, sum));
    }

    function test_refusesOneBasisPointMoreThanTheFee() public {
        testFuzz_takesSharesOfUpToTheWholeFee(7500, 2500);
        testFuzz_takesSharesOfUpToTheWholeFee(7501, 2500);
    }

    function test_refusesZeroParamDomainAndSalt() public {
        Agreement memory a = _agreement();
        a.paramDomain = 0;
        _refusesZero(a, "paramDomain");
        a = _agreement();
        a.salt = 0;
        _refusesZero(a, "salt");
    }

    // Valid cases

    function _many(uint256 count) private view returns (Dataset[] memory data) {
        data = new Dataset[](count);
        for (uint256 i; i < count; ++i) {
            data[i] = _dataset(vm.toString(i), author, bytes32(i + 1));
        }
    }

    function _activateAlone(Agreement memory a) private {
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = sign(authorKey, registry.agreementIdOf(a));
        registry.activate(a, signatures, _noAuditors());
    }

    function _openUp(Output memory o) private pure {
        o.kind = OutputKind.ABI_VALUES;
        o.recipients = new bytes32[](0);
    }

    // Expectations

    function _needsAVersion(uint8 policy) private {
        Agreement memory a = _agreement();
        a.data[1].policy = policy;
        a.data[1].sharesDigest = 0;
        _refusesRange(a, "data.minVersion", 0, 1, type(uint64).max);
        a.data[1].minVersion = 1;
        _activate(a);
    }

    function _needsFinality(Agreement memory a) private {
        _refusesConflict(a, "keys.confirmation");
        a.keys.confirmBlocks = 0;
        a.keys.confirmation = Confirmation.SAFE;
        _refusesConflict(a, "keys.confirmation");
        a.keys.confirmation = Confirmation.FINALIZED;
        _activate(a);
    }

    function _refuses(Agreement memory a, bytes memory err) private {
        vm.expectRevert(err);
        registry.activate(a, new bytes[](0), _noAuditors());
    }

    function _refusesZero(Agreement memory a, string memory field) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Zero.selector, field));
    }

    function _refusesConflict(Agreement memory a, string memory field) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Conflict.selector, field));
    }

    function _refusesNoContract(Agreement memory a, string memory field, address value) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_NotAContract.selector, field, value));
    }

    function _refusesDuplicate(Agreement memory a, string memory field, uint256 index) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Duplicate.selector, field, index));
    }

    function _refusesCount(Agreement memory a, string memory field, uint256 got, uint256 min, uint256 max) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadCount.selector, field, got, min, max));
    }

    function _refusesRange(Agreement memory a, string memory field, uint256 got, uint256 min, uint256 max) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_OutOfRange.selector, field, got, min, max));
    }

    function _refusesWindow(Agreement memory a) private {
        _refuses(
            a,
            abi.encodeWithSelector(
                I.AgreementRegistry_BadWindow.selector, a.notBefore, a.notAfter, vm.getBlockTimestamp()
            )
        );
    }
}
