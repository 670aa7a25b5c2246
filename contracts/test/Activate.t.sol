// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Agreement, Broker, Dataset, Output} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {TcbStatus} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

contract ActivateTest is Fixture {
    bytes32[] private zeros = new bytes32[](1);

    // Consent

    function test_activatesWithEverySignature() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        bytes32 id = registry.agreementIdOf(a);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, author, 1);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, hospitalA, 1);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, hospitalB, 1);
        vm.expectEmit(address(registry));
        emit I.AgreementActivated(id, a, signatures);
        vm.prank(stranger);
        assertEq(registry.activate(a, signatures), id);

        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
        assertEq(registry.consentOf(id, author), 1);
        assertEq(registry.consentOf(id, hospitalA), 1);
        assertEq(registry.consentOf(id, hospitalB), 1);
        assertEq(registry.consentOf(id, stranger), 0);
    }

    function test_recordsWhatLaterStepsRead() public {
        Agreement memory a = _agreement();
        I.Record memory record = registry.agreement(_activate(a));
        assertEq(record.oracle, a.oracle);
        assertEq(record.enclaveRegistry, a.enclaveRegistry);
        assertEq(record.notBefore, a.notBefore);
        assertEq(record.notAfter, a.notAfter);
        assertEq(record.suspensions, 0);
        assertEq(uint8(record.status), uint8(I.Status.Active));
        assertEq(record.releaseDelay, a.keys.releaseDelay);
        assertEq(record.quota, a.access.quota);
        assertEq(record.quotaPerRequester, a.access.quotaPerRequester);
        assertEq(record.used, 0);
        assertEq(record.fee, a.price.fee);
        assertEq(record.requesters, a.access.requesters);
        assertEq(record.versionsHash, keccak256(bytes.concat(DATASET_A, DATASET_B)));
        assertEq(record.settlementHash, keccak256(abi.encode(hashing.enclaves(a.tee), hashing.price(a.price))));
        (address enclaveRegistry, bytes32 settlementHash) = registry.settlementOf(registry.agreementIdOf(a));
        assertEq(enclaveRegistry, a.enclaveRegistry);
        assertEq(settlementHash, record.settlementHash);
    }

    function test_idIsTheDigestInTheRegistrysDomain() public view {
        Agreement memory a = _agreement();
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Enclave Oracle"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        assertEq(registry.domainSeparator(), domain);
        assertEq(registry.agreementIdOf(a), MessageHashUtils.toTypedDataHash(domain, hashing.agreement(a)));
    }

    function test_partiesAreTheOwnersInOrderWithoutRepeats() public view {
        Agreement memory a = _agreement();
        a.data = new Dataset[](4);
        a.data[0] = _dataset("a", hospitalA, DATASET_A);
        a.data[1] = _dataset("b", author, DATASET_B);
        a.data[2] = _dataset("c", hospitalA, DATASET_A);
        a.data[3] = _dataset("d", hospitalB, DATASET_B);
        address[] memory parties = registry.partiesOf(a);
        assertEq(parties.length, 3);
        assertEq(parties[0], author);
        assertEq(parties[1], hospitalA);
        assertEq(parties[2], hospitalB);
    }

    function test_onePartyInThreeRolesSignsOnce() public {
        Agreement memory a = _agreement();
        a.fn.owner = hospitalA;
        a.data[1].owner = hospitalA;
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = sign(hospitalAKey, registry.agreementIdOf(a));
        bytes32 id = registry.activate(a, signatures);
        assertEq(registry.consentOf(id, hospitalA), 1);
    }

    function test_callerConsentsByCalling() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[1] = "";
        vm.prank(hospitalA);
        assertEq(registry.consentOf(registry.activate(a, signatures), hospitalA), 3);
    }

    function test_contractConsentsByERC1271() public {
        Agreement memory a = _agreement();
        a.data[0].owner = address(new Wallet(hospitalA));
        bytes32 id = _activate(a);
        assertEq(registry.consentOf(id, a.data[0].owner), 2);
    }

    function test_accountDelegatedByEIP7702ConsentsByECDSA() public {
        Agreement memory a = _agreement();
        vm.etch(hospitalA, abi.encodePacked(hex"ef0100", address(new Wallet(stranger))));
        assertGt(hospitalA.code.length, 0);
        assertEq(registry.consentOf(_activate(a), hospitalA), 1);
    }

    function test_refusesSignatureOfAnotherParty() public {
        Agreement memory a = _agreement();
        bytes32 id = registry.agreementIdOf(a);
        bytes[] memory signatures = _signatures(a);
        signatures[1] = signatures[0];
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.activate(a, signatures);
    }

    function test_refusesWalletWhoseOwnerDidNotSign() public {
        Agreement memory a = _agreement();
        a.data[0].owner = address(new Wallet(stranger));
        _refuses(
            a,
            abi.encodeWithSelector(
                I.AgreementRegistry_BadSignature.selector, a.data[0].owner, registry.agreementIdOf(a)
            )
        );
    }

    function test_refusesHighS() public {
        Agreement memory a = _agreement();
        bytes32 id = registry.agreementIdOf(a);
        bytes[] memory signatures = _signatures(a);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(hospitalAKey, id);
        bytes32 n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        signatures[1] = abi.encodePacked(r, uint256(n) - uint256(s), v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.activate(a, signatures);
    }

    function test_refusesSignaturesInAnotherOrder() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        (signatures[1], signatures[2]) = (signatures[2], signatures[1]);
        vm.expectRevert(
            abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, registry.agreementIdOf(a))
        );
        registry.activate(a, signatures);
    }

    function test_refusesSilentParty() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[2] = "";
        bytes32 id = registry.agreementIdOf(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalB, id));
        registry.activate(a, signatures);
    }

    function test_refusesAnotherNumberOfSignatures() public {
        Agreement memory a = _agreement();
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_WrongSignatureCount.selector, 2, 3));
        registry.activate(a, new bytes[](2));
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_WrongSignatureCount.selector, 4, 3));
        registry.activate(a, new bytes[](4));
    }

    function test_refusesTwice() public {
        Agreement memory a = _agreement();
        bytes32 id = _activate(a);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, id));
    }

    function test_refusesSignatureOfAnotherChain() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        vm.chainId(1);
        bytes32 id = registry.agreementIdOf(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, author, id));
        registry.activate(a, signatures);
    }

    // Addresses and times

    function test_refusesAddressesWithoutCode() public {
        Agreement memory a = _agreement();
        a.oracle = stranger;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_NotAContract.selector, "oracle", stranger));
        a = _agreement();
        a.enclaveRegistry = address(0);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_NotAContract.selector, "enclaveRegistry", address(0)));
    }

    function test_activatesUntilActivateBefore() public {
        Agreement memory a = _agreement();
        vm.warp(a.activateBefore);
        _activate(a);
    }

    function test_refusesAfterActivateBefore() public {
        Agreement memory a = _agreement();
        vm.warp(uint256(a.activateBefore) + 1);
        _refuses(
            a,
            abi.encodeWithSelector(
                I.AgreementRegistry_ActivationClosed.selector, a.activateBefore, uint256(a.activateBefore) + 1
            )
        );
    }

    function test_refusesBadWindow() public {
        Agreement memory a = _agreement();
        a.notBefore = a.notAfter;
        _refusesWindow(a);
        a = _agreement();
        a.notBefore = 1;
        a.notAfter = uint64(vm.getBlockTimestamp());
        _refusesWindow(a);
        a = _agreement();
        a.notAfter = 1 << 40;
        _refusesWindow(a);
    }

    // Function and data

    function test_refusesBadFunction() public {
        Agreement memory a = _agreement();
        a.fn.id = 0;
        _refusesZero(a, "fn.id");
        a = _agreement();
        a.fn.owner = address(0);
        _refusesZero(a, "fn.owner");
        a = _agreement();
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

    function test_refusesBadDatasets() public {
        Agreement memory a = _agreement();
        a.data = new Dataset[](0);
        _refusesCount(a, "data", 0, 1, 16);
        a = _agreement();
        a.data = new Dataset[](17);
        _refusesCount(a, "data", 17, 1, 16);
        a = _agreement();
        a.data[1].name = "";
        _refusesZero(a, "data.name");
        a = _agreement();
        a.data[1].name = a.data[0].name;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Duplicate.selector, "data.name", 1));
        a = _agreement();
        a.data[1].owner = address(0);
        _refusesZero(a, "data.owner");
        a = _agreement();
        a.data[1].idOrStream = 0;
        _refusesZero(a, "data.idOrStream");
        a = _agreement();
        a.data[1].lineage = 0;
        _refusesZero(a, "data.lineage");
        a = _agreement();
        a.data[1].sharesDigest = 0;
        _refusesZero(a, "data.sharesDigest");
        a = _agreement();
        a.data[1].columns = new string[](0);
        _refusesCount(a, "data.columns", 0, 1, 1024);
        a = _agreement();
        a.data[1].columns[1] = "";
        _refusesZero(a, "data.columns");
    }

    // Enclaves and hosts

    function test_refusesEmptyEnclavePolicy() public {
        Agreement memory a = _agreement();
        a.tee.measurements = _noProof();
        _refusesCount(a, "tee.measurements", 0, 1, 64);
        a = _agreement();
        a.tee.measurements = zeros;
        _refusesZero(a, "tee.measurements");
        a = _agreement();
        a.tee.anchors = _noProof();
        _refusesCount(a, "tee.anchors", 0, 1, 64);
        a = _agreement();
        a.tee.anchors = zeros;
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

    function test_refusesRevokedStatus() public {
        Agreement memory a = _agreement();
        a.tee.statusMask |= uint32(1) << TcbStatus.REVOKED;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadStatusMask.selector, a.tee.statusMask, 0x37E));
    }

    function test_refusesHostsThatAreNeitherNamedNorAny() public {
        Agreement memory a = _agreement();
        a.tee.operators = new address[](0);
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadHosts.selector, false, 0, 0));
    }

    function test_refusesHostsThatAreBothNamedAndAny() public {
        Agreement memory a = _agreement();
        a.tee.anyHost = true;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_BadHosts.selector, true, 1, 0));
    }

    function test_takesAnyHostWrittenOut() public {
        Agreement memory a = _agreement();
        a.tee.anyHost = true;
        a.tee.operators = new address[](0);
        _activate(a);
    }

    function test_refusesZeroHosts() public {
        Agreement memory a = _agreement();
        a.tee.operators[0] = address(0);
        _refusesZero(a, "tee.operators");
        a = _agreement();
        a.tee.platforms = zeros;
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

    function test_refusesBadBrokers() public {
        Agreement memory a = _agreement();
        a.keys.brokers = new Broker[](0);
        _refusesCount(a, "keys.brokers", 0, 1, 16);
        a = _agreement();
        a.keys.brokers = new Broker[](17);
        _refusesCount(a, "keys.brokers", 17, 1, 16);
        a = _agreement();
        a.keys.brokers[1].hpkeKey = 0;
        _refusesZero(a, "keys.brokers.hpkeKey");
        a = _agreement();
        a.keys.brokers[1].signer = address(0);
        _refusesZero(a, "keys.brokers.signer");
        a = _agreement();
        a.keys.brokers[2].hpkeKey = a.keys.brokers[0].hpkeKey;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Duplicate.selector, "keys.brokers.hpkeKey", 2));
        a = _agreement();
        a.keys.brokers[2].signer = a.keys.brokers[0].signer;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Duplicate.selector, "keys.brokers.signer", 2));
    }

    function test_refusesBadReleasePolicy() public {
        Agreement memory a = _agreement();
        a.keys.threshold = 0;
        _refusesRange(a, "keys.threshold", 0, 1, 3);
        a = _agreement();
        a.keys.threshold = 4;
        _refusesRange(a, "keys.threshold", 4, 1, 3);
        a = _agreement();
        a.keys.maxReleases = 0;
        _refusesRange(a, "keys.maxReleases", 0, 1, 255);
        a = _agreement();
        a.keys.confirmation = 0;
        _refusesRange(a, "keys.confirmation", 0, 1, 3);
        a = _agreement();
        a.keys.confirmation = 4;
        _refusesRange(a, "keys.confirmation", 4, 1, 3);
        a = _agreement();
        a.keys.confirmation = 2;
        _refusesRange(a, "keys.confirmBlocks", 1, 0, 0);
    }

    // Outputs

    function test_refusesBadOutputs() public {
        Agreement memory a = _agreement();
        a.outputs = new Output[](0);
        _refusesCount(a, "outputs", 0, 1, 16);
        a = _agreement();
        a.outputs = new Output[](17);
        _refusesCount(a, "outputs", 17, 1, 16);
        a = _agreement();
        a.outputs[0].name = "";
        _refusesZero(a, "outputs.name");
        a = _agreement();
        a.outputs = new Output[](2);
        a.outputs[0] = _output("table");
        a.outputs[1] = _output("table");
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Duplicate.selector, "outputs.name", 1));
        a = _agreement();
        a.outputs[0].recipients = new bytes32[](65);
        _refusesCount(a, "outputs.recipients", 65, 1, 64);
        a = _agreement();
        a.outputs[0].owners = new address[](0);
        _refusesCount(a, "outputs.owners", 0, 1, 17);
        a = _agreement();
        a.outputs[0].owners[1] = address(0);
        _refusesZero(a, "outputs.owners");
        a = _agreement();
        a.outputs[0].sizeClass = 0;
        _refusesRange(a, "outputs.sizeClass", 0, 1, type(uint32).max);
    }

    // Access, price, salt

    function test_refusesBadAccess() public {
        Agreement memory a = _agreement();
        a.access.requesters = 0;
        _refusesZero(a, "access.requesters");
        a = _agreement();
        a.access.quota = 0;
        _refusesRange(a, "access.quota", 0, 1, type(uint64).max);
        a = _agreement();
        a.access.quotaPerRequester = 0;
        _refusesRange(a, "access.quotaPerRequester", 0, 1, 10);
        a = _agreement();
        a.access.quotaPerRequester = 11;
        _refusesRange(a, "access.quotaPerRequester", 11, 1, 10);
    }

    function test_refusesBadPrice() public {
        Agreement memory a = _agreement();
        a.price.fee = 1 << 128;
        _refusesRange(a, "price.fee", 1 << 128, 0, type(uint128).max);
        a = _agreement();
        a.price.failedFee = FEE + 1;
        _refusesRange(a, "price.failedFee", FEE + 1, 0, FEE);
        a = _agreement();
        a.price.bps = new uint16[](1);
        _refusesCount(a, "price.bps", 1, 2, 2);
        a = _agreement();
        a.price.to = new address[](17);
        _refusesCount(a, "price.to", 17, 0, 16);
        a = _agreement();
        a.price.to[1] = address(0);
        _refusesZero(a, "price.to");
        a = _agreement();
        a.price.bps[0] = 7501;
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_SharesExceedFee.selector, 10_001));
    }

    function test_takesSharesOfTheWholeFee() public {
        Agreement memory a = _agreement();
        a.price.bps[0] = 7500;
        _activate(a);
    }

    function test_refusesZeroParamDomainAndSalt() public {
        Agreement memory a = _agreement();
        a.paramDomain = 0;
        _refusesZero(a, "paramDomain");
        a = _agreement();
        a.salt = 0;
        _refusesZero(a, "salt");
    }

    // Fields that hold their off value

    function test_refusesWhatLaterVersionsDo() public {
        Agreement memory a = _agreement();
        a.fn.kind = 2;
        _refusesNotYet(a, "fn.kind");
        a = _agreement();
        a.fn.deterministic = false;
        _refusesNotYet(a, "fn.deterministic");
        a = _agreement();
        a.fn.sealedId = keccak256("sealed");
        _refusesNotYet(a, "fn.sealedId");
        a = _agreement();
        a.fn.sharesDigest = keccak256("shares");
        _refusesNotYet(a, "fn.sharesDigest");
        a = _agreement();
        a.data[1].policy = 2;
        _refusesNotYet(a, "data.policy");
        a = _agreement();
        a.data[1].minVersion = 1;
        _refusesNotYet(a, "data.minVersion");
        a = _agreement();
        a.data[1].budget = 1;
        _refusesNotYet(a, "data.budget");
        a = _agreement();
        a.outputs[0].kind = 2;
        _refusesNotYet(a, "outputs.kind");
        a = _agreement();
        a.outputs[0].recipients = new bytes32[](0);
        _refusesNotYet(a, "outputs.recipients");
        a = _agreement();
        a.price.token = address(registry);
        _refusesNotYet(a, "price.token");
        a = _agreement();
        a.price.minFee = 1;
        _refusesNotYet(a, "price.minFee");
        a = _agreement();
        a.supersedes = keccak256("another");
        _refusesNotYet(a, "supersedes");
        a = _agreement();
        a.auditors = keccak256("auditors");
        _refusesNotYet(a, "auditors");
    }

    function _refuses(Agreement memory a, bytes memory err) private {
        bytes[] memory signatures = _signatures(a);
        vm.expectRevert(err);
        registry.activate(a, signatures);
    }

    function _refusesZero(Agreement memory a, string memory field) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_Zero.selector, field));
    }

    function _refusesNotYet(Agreement memory a, string memory field) private {
        _refuses(a, abi.encodeWithSelector(I.AgreementRegistry_NotYetSupported.selector, field));
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
