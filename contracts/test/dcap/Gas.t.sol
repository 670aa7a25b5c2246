// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EnclaveRegistry} from "../../src/EnclaveRegistry.sol";
import {Enrolment} from "../../src/Types.sol";
import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "../../src/interfaces/IDcapVerifier.sol";
import {IEnclaveRegistry} from "../../src/interfaces/IEnclaveRegistry.sol";
import {Test} from "../utils/Test.sol";

/// @notice What attestation costs, of the bytecode that is shipped (`oracle/abi`). `scripts/test` fails where a cost is not the one
/// in `contracts/snapshots/attestation.json`; CONTRIBUTING.md says how to write that anew.
/// @dev Each call is a transaction of its own, its base and calldata included. The evidence comes from `scripts/vector_gas.py`.
/// forge-config: default.isolate = true
/// forge-config: ci.isolate = true
contract GasTest is Test {
    string private constant GROUP = "attestation";

    string private json = vm.readFile("tests/vectors/gas.json");
    IDcapCollateral private store;
    EnclaveRegistry private registry;
    address private verifier;

    function setUp() public {
        vm.warp(vm.parseJsonUint(json, ".now"));
        vm.roll(1000);
        store = IDcapCollateral(_deploy("DcapCollateral", abi.encode(_bytes(".minted.sgx.root"))));
        verifier = _deploy("DcapVerifier", abi.encode(store));
        address[] memory verifiers = new address[](1);
        verifiers[0] = verifier;
        registry = EnclaveRegistry(_deploy("EnclaveRegistry", abi.encode(verifiers)));
    }

    function test_registerAndRenew() public {
        _postAll(store, ".minted.sgx");
        _postAll(store, ".minted.tdx");
        _registerAndRenew("sgx");
        _registerAndRenew("tdx");
    }

    function test_post() public {
        vm.warp(1_787_894_484);
        IDcapCollateral intel = IDcapCollateral(_deploy("DcapCollateral", abi.encode(_bytes(".recorded.root"))));
        bytes32 ca = intel.postIssuer(_bytes(".recorded.ca"));
        vm.snapshotGasLastCall(GROUP, "postIssuer");
        bytes32 signer = intel.postIssuer(_bytes(".recorded.signer"));
        intel.postPck(_bytes(".recorded.pck"), ca);
        vm.snapshotGasLastCall(GROUP, "postPck");
        intel.postCrl(_bytes(".recorded.pckCrl"), ca);
        vm.snapshotGasLastCall(GROUP, "postCrl");
        intel.postTcbInfo(_bytes(".recorded.tcbInfo"), _bytes(".recorded.tcbSignature"), signer);
        vm.snapshotGasLastCall(GROUP, "postTcbInfo");
        intel.postQeIdentity(_bytes(".recorded.qeIdentity"), _bytes(".recorded.qeSignature"), signer);
        vm.snapshotGasLastCall(GROUP, "postQeIdentity");
    }

    function _registerAndRenew(string memory name) private {
        (address signer, uint256 key) = makeAddrAndKey(name);
        registry.register(_registration(name, signer, key, 998));
        vm.snapshotGasLastCall(GROUP, string.concat("register ", name));
        registry.register(_registration(name, signer, key, 999));
        vm.snapshotGasLastCall(GROUP, string.concat("renew ", name));
    }

    function _registration(string memory name, address signer, uint256 key, uint256 number)
        private
        returns (IEnclaveRegistry.Registration memory r)
    {
        r.signer = signer;
        r.sealingKey = keccak256("sealing key");
        r.blockNumber = number;
        r.blockHash = keccak256(abi.encode("block", number));
        vm.setBlockhash(number, r.blockHash);
        bytes32 digest = registry.enrolmentDigest(Enrolment(signer, r.sealingKey, r.blockHash, address(0)));
        (uint8 v, bytes32 first, bytes32 second) = vm.sign(key, digest);
        r.proofOfPossession = abi.encodePacked(first, second, v);
        r.verifier = verifier;
        r.evidence = _bind(string.concat(".minted.", name), registry.reportDataOf(signer, r.sealingKey, r.blockHash));
    }

    /// @dev The evidence with its quote over `reportData`.
    function _bind(string memory path, bytes32 reportData) private view returns (bytes memory) {
        IDcapVerifier.Evidence memory e = abi.decode(_bytes(string.concat(path, ".evidence")), (IDcapVerifier.Evidence));
        bytes memory quote = e.quote;
        _put(quote, _number(path, ".reportData"), reportData);
        bytes memory signed = new bytes(_number(path, ".signedEnd"));
        for (uint256 i; i < signed.length; ++i) {
            signed[i] = quote[i];
        }
        (bytes32 r, bytes32 s) = vm.signP256(_number(path, ".attestationKey"), sha256(signed));
        _put(quote, _number(path, ".signature"), r);
        _put(quote, _number(path, ".signature") + 32, s);
        return abi.encode(e);
    }

    function _postAll(IDcapCollateral to, string memory path) private {
        bytes32 ca = to.postIssuer(_bytes(string.concat(path, ".ca")));
        bytes32 signer = to.postIssuer(_bytes(string.concat(path, ".signer")));
        if (to.crl(ca).issuedAt == 0) {
            to.postCrl(_bytes(string.concat(path, ".rootCrl")), to.anchor());
            to.postCrl(_bytes(string.concat(path, ".pckCrl")), ca);
        }
        to.postPck(_bytes(string.concat(path, ".pck")), ca);
        to.postTcbInfo(_bytes(string.concat(path, ".tcbInfo")), _bytes(string.concat(path, ".tcbSignature")), signer);
        to.postQeIdentity(
            _bytes(string.concat(path, ".qeIdentity")), _bytes(string.concat(path, ".qeSignature")), signer
        );
    }

    /// @dev The shipped bytes: what forge compiles for tests may differ from them by what is compiled beside it.
    function _deploy(string memory name, bytes memory arguments) private returns (address deployed) {
        string memory artifact = vm.readFile(string.concat("oracle/abi/", name, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(artifact, ".bytecode"), arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
        }
        assertTrue(deployed != address(0), name);
    }

    function _bytes(string memory path) private view returns (bytes memory) {
        return vm.parseJsonBytes(json, path);
    }

    function _number(string memory path, string memory key) private view returns (uint256) {
        return vm.parseJsonUint(json, string.concat(path, key));
    }

    function _put(bytes memory target, uint256 start, bytes32 value) private pure {
        assembly ("memory-safe") {
            mstore(add(add(target, 0x20), start), value)
        }
    }
}
