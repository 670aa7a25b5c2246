// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {
    Access,
    Agreement,
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
import {EIP712_NAME, EIP712_VERSION} from "../src/libraries/Constants.sol";
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

    HashingHarness private hashing = HashingHarness(deploy("HashingHarness.sol:HashingHarness", ""));

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
        string[7] memory names =
            ["Agreement", "TaskRequest", "Result", "VerifierStatement", "Enrolment", "Host", "Retire"];
        for (uint256 i; i < names.length; ++i) {
            bool found;
            uint256 j;
            for (string memory path = _case(0); vm.keyExistsJson(json, path); path = _case(++j)) {
                found = found || _same(vm.parseJsonString(json, string.concat(path, ".type")), names[i]);
            }
            assertTrue(found, names[i]);
        }
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
