// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {AgreementRegistry} from "../src/AgreementRegistry.sol";
import {Agreement, Dataset} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {IDatasetStreams} from "../src/interfaces/IDatasetStreams.sol";
import {IFunctionAudits} from "../src/interfaces/IFunctionAudits.sol";
import {ConsentKind, DatasetPolicy} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

/// @notice activate, and what it keeps (R7). What terms it takes is in Terms.t.sol, auditors in Audits.t.sol, predecessors in
/// Supersede.t.sol.
contract ActivateTest is Fixture {
    function test_anyoneActivatesWithEverySignature() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        bytes32 id = registry.agreementIdOf(a);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, author, ConsentKind.ECDSA);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, hospitalA, ConsentKind.ECDSA);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, hospitalB, ConsentKind.ECDSA);
        vm.expectEmit(address(registry));
        emit I.AgreementActivated(id, a, signatures);
        vm.prank(stranger);
        assertEq(registry.activate(a, signatures, _noAuditors()), id);

        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
        assertEq(registry.consentOf(id, author), ConsentKind.ECDSA);
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ECDSA);
        assertEq(registry.consentOf(id, hospitalB), ConsentKind.ECDSA);
        assertEq(registry.consentOf(id, stranger), ConsentKind.NONE);
    }

    function test_keepsWhatLaterStepsRead() public {
        Agreement memory a = _agreement();
        a.price.token = address(verifier);
        bytes32 id = registry.agreementIdOf(a);
        assertEq(uint8(registry.agreement(id).status), uint8(I.Status.None));
        assertEq(registry.settlementHashOf(id), 0);

        I.Record memory record = registry.agreement(_activate(a));
        assertEq(record.oracle, a.oracle);
        assertEq(record.notBefore, a.notBefore);
        assertEq(record.notAfter, a.notAfter);
        assertEq(record.suspensions, 0);
        assertEq(uint8(record.status), uint8(I.Status.Active));
        assertEq(record.token, a.price.token);
        assertEq(record.releaseDelay, a.keys.releaseDelay);
        assertEq(record.quota, a.access.quota);
        assertEq(record.quotaPerRequester, a.access.quotaPerRequester);
        assertEq(record.used, 0);
        assertEq(record.fee, a.price.fee);
        assertEq(
            record.settlementHash,
            keccak256(abi.encode(a.enclaveRegistry, hashing.enclaves(a.tee), hashing.price(a.price)))
        );
        assertEq(registry.settlementHashOf(id), record.settlementHash);
    }

    function test_keepsThePlainDatasetsAsTheirIds() public {
        Agreement memory a = _agreement();
        I.Record memory record = registry.agreement(_activate(a));
        bytes32 ids = keccak256(bytes.concat(DATASET_A, DATASET_B));
        assertEq(record.admissionHash, keccak256(abi.encode(a.access.requesters, ids)));
    }

    /// One budget, or one stream, and every term is kept.
    function test_keepsTheTermsOfBudgetedAndStreamedDatasets() public {
        Agreement memory a = _agreement();
        a.keys.confirmation = 3;
        a.keys.confirmBlocks = 0;
        a.data[1].budget = 100;
        _keepsTerms(a);
        a = _agreement();
        a.data[0].policy = DatasetPolicy.AT_LEAST;
        a.data[0].minVersion = 4;
        a.data[0].sharesDigest = 0;
        _keepsTerms(a);
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

    function testFuzz_eachOwnerIsOnePartyWhateverTheOrder(uint8[16] memory owners, uint8 count) public view {
        Agreement memory a = _agreement();
        a.fn.owner = address(1);
        a.data = new Dataset[](bound(count, 1, 16));
        uint256 seen = 2;
        uint256 distinct = 1;
        for (uint256 i; i < a.data.length; ++i) {
            uint256 owner = 1 + owners[i] % 5;
            a.data[i] = _dataset("data", address(uint160(owner)), DATASET_A);
            if (seen & (1 << owner) == 0) ++distinct;
            seen |= 1 << owner;
        }
        address[] memory parties = registry.partiesOf(a);
        assertEq(parties.length, distinct);
        for (uint256 i; i < parties.length; ++i) {
            uint256 mask = 1 << uint160(parties[i]);
            assertEq(seen & mask, mask);
            seen &= ~mask;
        }
        assertEq(seen, 0);
    }

    function test_onePartyInThreeRolesSignsOnce() public {
        Agreement memory a = _agreement();
        a.fn.owner = hospitalA;
        a.data[1].owner = hospitalA;
        bytes[] memory signatures = new bytes[](1);
        signatures[0] = sign(hospitalAKey, registry.agreementIdOf(a));
        bytes32 id = registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.ECDSA);
    }

    function test_callerConsentsByCalling() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[1] = "";
        vm.prank(hospitalA);
        bytes32 id = registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.OWN_TRANSACTION);
    }

    /// A copy of the caller's transaction is not the caller's: it lacks that consent.
    function test_frontRunningACallThatConsentsIsRefused() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[1] = "";
        bytes32 id = registry.agreementIdOf(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalA, id));
        vm.prank(stranger);
        registry.activate(a, signatures, _noAuditors());
    }

    /// A copy with every signature activates the same agreement with the same consents.
    function test_frontRunningAnActivationChangesNothing() public {
        Agreement memory a = _agreement();
        uint256 snapshot = vm.snapshotState();
        bytes32 record = keccak256(abi.encode(registry.agreement(_activate(a))));
        vm.revertToState(snapshot);
        bytes[] memory signatures = _signatures(a);
        vm.prank(stranger);
        bytes32 id = registry.activate(a, signatures, _noAuditors());
        assertEq(keccak256(abi.encode(registry.agreement(id))), record);
        assertEq(registry.consentOf(id, stranger), ConsentKind.NONE);
        _refuses(a, signatures, abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, id));
    }

    function test_contractConsentsByERC1271() public {
        Agreement memory a = _agreement();
        a.data[0].owner = address(new Wallet(hospitalA));
        bytes32 id = _activate(a);
        assertEq(registry.consentOf(id, a.data[0].owner), ConsentKind.ERC1271);
    }

    function test_refusesSignatureOfAnotherParty() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[1] = signatures[0];
        _refuses(a, signatures, _badSignature(hospitalA, a));
    }

    function test_refusesWalletWhoseOwnerDidNotSign() public {
        Agreement memory a = _agreement();
        a.data[0].owner = address(new Wallet(stranger));
        _refuses(a, _signatures(a), _badSignature(a.data[0].owner, a));
    }

    function test_refusesSignaturesInAnotherOrder() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        (signatures[1], signatures[2]) = (signatures[2], signatures[1]);
        _refuses(a, signatures, _badSignature(hospitalA, a));
    }

    function test_refusesSilentParty() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        signatures[2] = "";
        bytes32 id = registry.agreementIdOf(a);
        _refuses(a, signatures, abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalB, id));
    }

    function test_refusesAnotherNumberOfSignatures() public {
        Agreement memory a = _agreement();
        bytes[] memory signatures = _signatures(a);
        bytes[] memory fewer = new bytes[](2);
        (fewer[0], fewer[1]) = (signatures[0], signatures[1]);
        _refuses(a, fewer, abi.encodeWithSelector(I.AgreementRegistry_WrongSignatureCount.selector, 2, 3));
        bytes[] memory more = new bytes[](4);
        (more[0], more[1], more[2], more[3]) = (signatures[0], signatures[1], signatures[2], signatures[2]);
        _refuses(a, more, abi.encodeWithSelector(I.AgreementRegistry_WrongSignatureCount.selector, 4, 3));
    }

    function test_refusesTwice() public {
        Agreement memory a = _agreement();
        bytes32 id = _activate(a);
        _refuses(a, _signatures(a), abi.encodeWithSelector(I.AgreementRegistry_AlreadyActivated.selector, id));
    }

    // The registry itself

    function test_refusesStreamsAndAuditsWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAContract.selector, "streams", stranger));
        this.deployRegistry(IDatasetStreams(stranger), audits);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAContract.selector, "audits", stranger));
        this.deployRegistry(streams, IFunctionAudits(stranger));
        AgreementRegistry deployed = this.deployRegistry(streams, audits);
        assertEq(address(deployed.streams()), address(streams));
        assertEq(address(deployed.audits()), address(audits));
    }

    /// A call, so that its revert can be expected.
    function deployRegistry(IDatasetStreams s, IFunctionAudits f) external returns (AgreementRegistry) {
        return AgreementRegistry(deploy("AgreementRegistry.sol:AgreementRegistry", abi.encode(s, f)));
    }

    function test_tellsItsInterfaces() public view {
        assertTrue(registry.supportsInterface(type(I).interfaceId));
        assertTrue(registry.supportsInterface(type(IERC165).interfaceId));
        assertFalse(registry.supportsInterface(0xffffffff));
    }

    function _keepsTerms(Agreement memory a) private {
        I.Record memory record = registry.agreement(_activate(a));
        bytes32 terms = keccak256(bytes.concat(abi.encode(_admission(a).data), hex"01"));
        assertEq(record.admissionHash, keccak256(abi.encode(a.access.requesters, terms)));
    }

    function _badSignature(address party, Agreement memory a) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, party, registry.agreementIdOf(a));
    }

    function _refuses(Agreement memory a, bytes[] memory signatures, bytes memory err) private {
        vm.expectRevert(err);
        registry.activate(a, signatures, _noAuditors());
    }
}
