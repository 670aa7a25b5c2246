// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {
    Access,
    Agreement,
    Audit,
    Batch,
    Broker,
    Dataset,
    Enclaves,
    Enrolment,
    Function,
    KeyRelease,
    Limits,
    Out,
    Output,
    Price,
    Result,
    TaskRequest,
    VerifierStatement
} from "../src/Types.sol";
import {AgreementRegistry} from "../src/AgreementRegistry.sol";
import {DatasetStreams} from "../src/DatasetStreams.sol";
import {FunctionAudits} from "../src/FunctionAudits.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {DatasetPolicy, EIP712_NAME, EIP712_VERSION} from "../src/libraries/Constants.sol";
import {HashingHarness} from "./utils/HashingHarness.sol";
import {Deploy} from "./utils/Deploy.sol";

/// @notice The digests that Python and Solidity must agree on, from `tests/vectors/eip712.json`:
///
///     {"domain": {"chainId": 31337, "verifyingContract": "0x..", "separator": "0x.."},
///      "cases": [{"type": "Agreement", "typeString": "Agreement(..", "typeHash": "0x..", "abi": "0x..",
///                  "structHash": "0x..", "digest": "0x.."}, ...]}
///
/// `abi` is Solidity's `abi.encode(value)` of one value of that type (in eth_abi: `encode([tuple type], [value])`), for Host
/// and Retire of the address. `digest` is the full EIP-712 digest in `domain`. Other keys are for readers.
contract VectorsTest is Deploy {
    string private constant PATH = "tests/vectors/eip712.json";
    /// @dev As ComputeOracle has it, where it is private.
    bytes32 private constant PUBLIC = 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d;
    bytes32 private constant RECIPIENTS_TAG = sha256("enclave-oracle/recipients/1");

    HashingHarness private hashing = HashingHarness(deploy("HashingHarness.sol:HashingHarness", ""));
    DatasetStreams private streams = DatasetStreams(deploy("DatasetStreams.sol:DatasetStreams", ""));
    FunctionAudits private audits = FunctionAudits(deploy("FunctionAudits.sol:FunctionAudits", ""));
    AgreementRegistry private registry =
        AgreementRegistry(deploy("AgreementRegistry.sol:AgreementRegistry", abi.encode(streams, audits)));

    function test_everyVector() public view {
        string memory json = vm.readFile(PATH);
        bytes32 domain = _domain(json);
        uint256 count;
        for (string memory path = _case(0); vm.keyExistsJson(json, path); path = _case(++count)) {
            string memory name = vm.parseJsonString(json, string.concat(path, ".type"));
            string memory typeString = vm.parseJsonString(json, string.concat(path, ".typeString"));
            bytes memory data = vm.parseJsonBytes(json, string.concat(path, ".abi"));
            bytes32 structHash = vm.parseJsonBytes32(json, string.concat(path, ".structHash"));
            bytes32 digest = vm.parseJsonBytes32(json, string.concat(path, ".digest"));
            string memory message = string.concat(name, " ", path);
            assertEq(
                vm.eip712HashType(typeString), vm.parseJsonBytes32(json, string.concat(path, ".typeHash")), message
            );
            assertEq(vm.eip712HashStruct(typeString, data), structHash, message);
            if (!_isOffChain(name)) assertEq(_hash(name, data), structHash, message);
            assertEq(MessageHashUtils.toTypedDataHash(domain, structHash), digest, message);
        }
        assertGt(count, 0);
    }

    /// @dev A vector file that lost the signed types would pass the test above.
    function test_everySignedTypeHasAVector() public view {
        string memory json = vm.readFile(PATH);
        string[9] memory names = [
            "Agreement", "TaskRequest", "Result", "Batch", "Audit", "VerifierStatement", "Enrolment", "Host", "Retire"
        ];
        for (uint256 i; i < names.length; ++i) {
            bool found;
            uint256 j;
            for (string memory path = _case(0); vm.keyExistsJson(json, path); path = _case(++j)) {
                found = found || _same(vm.parseJsonString(json, string.concat(path, ".type")), names[i]);
            }
            assertTrue(found, names[i]);
        }
    }

    /// @dev From `tests/vectors/onchain.json`: each agreement is activated, and asked under by a requester that it lists.
    function test_whatARegistryKeepsOfAnAgreement() public {
        string memory json = vm.readFile("tests/vectors/onchain.json");
        uint256 count;
        for (; vm.keyExistsJson(json, _agreement(count, "")); ++count) {
            Agreement memory a = abi.decode(vm.parseJsonBytes(json, _agreement(count, ".abi")), (Agreement));
            bytes32 agreementId = _activate(a, json, count);
            IAgreementRegistry.Record memory kept = registry.agreement(agreementId);
            assertEq(kept.settlementHash, vm.parseJsonBytes32(json, _agreement(count, ".settlementHash")), "settlement");
            assertEq(kept.admissionHash, vm.parseJsonBytes32(json, _agreement(count, ".admissionHash")), "admission");
            assertEq(hashing.enclaves(a.tee), vm.parseJsonBytes32(json, _agreement(count, ".teeHash")), "tee");
            assertEq(hashing.price(a.price), vm.parseJsonBytes32(json, _agreement(count, ".priceHash")), "price");
            assertEq(a.auditors, vm.parseJsonBytes32(json, _agreement(count, ".auditorsDigest")), "auditors");
            _ask(a, agreementId, json, count);
        }
        assertEq(count, 2);
    }

    function test_requestersAreLeavesOfTheirTree() public view {
        string memory json = vm.readFile("tests/vectors/onchain.json");
        bytes32 root = vm.parseJsonBytes32(json, ".requesters.root");
        uint256 count;
        for (string memory path = _listed(0); vm.keyExistsJson(json, path); path = _listed(++count)) {
            address requester = vm.parseJsonAddress(json, string.concat(path, ".address"));
            uint256 quota = vm.parseJsonUint(json, string.concat(path, ".quota"));
            bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(requester, uint64(quota)))));
            assertEq(leaf, vm.parseJsonBytes32(json, string.concat(path, ".leaf")), path);
            bytes32[] memory proof = vm.parseJsonBytes32Array(json, string.concat(path, ".proof"));
            assertTrue(MerkleProof.verify(proof, root, leaf), path);
        }
        assertEq(count, 7);
    }

    function test_recipientsDigests() public view {
        string memory json = vm.readFile("tests/vectors/onchain.json");
        assertEq(sha256(abi.encode(RECIPIENTS_TAG, new bytes32[](0))), PUBLIC);
        uint256 count;
        for (string memory path = _recipients(0); vm.keyExistsJson(json, path); path = _recipients(++count)) {
            bytes32[] memory recipients = vm.parseJsonBytes32Array(json, string.concat(path, ".recipients"));
            bytes32 resultKey = vm.parseJsonBytes32(json, string.concat(path, ".resultKey"));
            for (uint256 i; i < recipients.length; ++i) {
                if (recipients[i] == 0) recipients[i] = resultKey;
            }
            bytes32 digest = vm.parseJsonBytes32(json, string.concat(path, ".digest"));
            assertEq(sha256(abi.encode(RECIPIENTS_TAG, recipients)), digest, path);
        }
        assertEq(count, 3);
    }

    /// @dev The vector's accounts have no keys here, so they approve. Where it names a contract, something has to be.
    function _activate(Agreement memory a, string memory json, uint256 i) private returns (bytes32 agreementId) {
        vm.warp(a.notBefore);
        vm.etch(a.oracle, hex"00");
        vm.etch(a.enclaveRegistry, hex"00");
        if (a.price.token != address(0)) vm.etch(a.price.token, hex"00");
        IAgreementRegistry.Auditors memory auditors;
        auditors.accounts = vm.parseJsonAddressArray(json, _agreement(i, ".auditors.accounts"));
        auditors.threshold = uint8(vm.parseJsonUint(json, _agreement(i, ".auditors.threshold")));
        for (uint256 j; j < auditors.accounts.length; ++j) {
            vm.prank(auditors.accounts[j]);
            audits.approve(Audit(a.fn.id, keccak256("report")));
        }
        agreementId = registry.agreementIdOf(a);
        address[] memory parties = registry.partiesOf(a);
        for (uint256 j; j < parties.length; ++j) {
            vm.prank(parties[j]);
            registry.approve(agreementId);
        }
        assertEq(registry.activate(a, new bytes[](parties.length), auditors), agreementId);
    }

    function _ask(Agreement memory a, bytes32 agreementId, string memory json, uint256 i) private {
        IAgreementRegistry.Admission memory admission =
            abi.decode(vm.parseJsonBytes(json, _agreement(i, ".admissionAbi")), (IAgreementRegistry.Admission));
        bytes32[] memory versions = new bytes32[](a.data.length);
        bool budgeted;
        for (uint256 j; j < versions.length; ++j) {
            versions[j] = a.data[j].idOrStream;
            if (a.data[j].budget != 0) budgeted = true;
            if (a.data[j].policy == DatasetPolicy.FIXED) continue;
            for (uint256 k; k < a.data[j].minVersion; ++k) {
                versions[j] = keccak256(abi.encode("version", k));
                vm.prank(a.data[j].owner);
                streams.publish(a.data[j].idOrStream, versions[j], keccak256("shares"));
            }
        }
        address listed = vm.parseJsonAddress(json, ".requesters.listed[0].address");
        vm.prank(a.oracle);
        registry.spend(agreementId, listed, versions, budgeted ? 1 : 0, admission);
        assertEq(registry.agreement(agreementId).used, 1);
    }

    function _agreement(uint256 i, string memory key) private pure returns (string memory) {
        return string.concat(".agreements[", vm.toString(i), "]", key);
    }

    function _listed(uint256 i) private pure returns (string memory) {
        return string.concat(".requesters.listed[", vm.toString(i), "]");
    }

    function _recipients(uint256 i) private pure returns (string memory) {
        return string.concat(".recipients[", vm.toString(i), "]");
    }

    function _domain(string memory json) private pure returns (bytes32 separator) {
        separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(EIP712_NAME)),
                keccak256(bytes(EIP712_VERSION)),
                vm.parseJsonUint(json, ".domain.chainId"),
                vm.parseJsonAddress(json, ".domain.verifyingContract")
            )
        );
        assertEq(separator, vm.parseJsonBytes32(json, ".domain.separator"), "domain");
    }

    function _hash(string memory name, bytes memory data) private view returns (bytes32) {
        if (_same(name, "Limits")) return hashing.limits(abi.decode(data, (Limits)));
        if (_same(name, "Function")) return hashing.fn(abi.decode(data, (Function)));
        if (_same(name, "Dataset")) return hashing.dataset(abi.decode(data, (Dataset)));
        if (_same(name, "Enclaves")) return hashing.enclaves(abi.decode(data, (Enclaves)));
        if (_same(name, "Broker")) return hashing.broker(abi.decode(data, (Broker)));
        if (_same(name, "KeyRelease")) return hashing.keyRelease(abi.decode(data, (KeyRelease)));
        if (_same(name, "Output")) return hashing.output(abi.decode(data, (Output)));
        if (_same(name, "Access")) return hashing.access(abi.decode(data, (Access)));
        if (_same(name, "Price")) return hashing.price(abi.decode(data, (Price)));
        if (_same(name, "Agreement")) return hashing.agreement(abi.decode(data, (Agreement)));
        if (_same(name, "TaskRequest")) return hashing.taskRequest(abi.decode(data, (TaskRequest)));
        if (_same(name, "Out")) return hashing.out(abi.decode(data, (Out)));
        if (_same(name, "Result")) return hashing.result(abi.decode(data, (Result)));
        if (_same(name, "Batch")) return hashing.batch(abi.decode(data, (Batch)));
        if (_same(name, "Audit")) return hashing.audit(abi.decode(data, (Audit)));
        if (_same(name, "VerifierStatement")) {
            return hashing.verifierStatement(abi.decode(data, (VerifierStatement)));
        }
        if (_same(name, "Enrolment")) return hashing.enrolment(abi.decode(data, (Enrolment)));
        if (_same(name, "Host")) return hashing.host(abi.decode(data, (address)));
        if (_same(name, "Retire")) return hashing.retire(abi.decode(data, (address)));
        revert(string.concat("a vector of an unknown type: ", name));
    }

    /// @dev What brokers and enclaves sign to each other: no contract ever hashes these, forge's implementation does here.
    function _isOffChain(string memory name) private pure returns (bool) {
        return _same(name, "ReleaseRequest") || _same(name, "ReleaseStatement") || _same(name, "OutputShares");
    }

    function _case(uint256 i) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(i), "]");
    }

    function _same(string memory a, string memory b) private pure returns (bool) {
        return keccak256(bytes(a)) == keccak256(bytes(b));
    }
}
