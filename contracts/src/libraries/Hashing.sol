// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

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
} from "../Types.sol";

/// @title EIP-712 struct hashes of every signed structure
/// @notice An array of structs hashes the concatenated struct hashes, `string[]` the concatenated hashes of its strings,
/// arrays of one-word values their elements padded to 32 bytes (EIP-712, "Definition of encodeData").
/// @dev Structs of static fields only are encoded in place by `abi.encode`, so their encoding is already `encodeData`. What a task
/// pays for is hashed as it stands in calldata: its words, with a hash in the place of each offset. A caller's word with bits beyond
/// its type gives the digest of nothing that was signed; who acts on a field reads it as Solidity does, which refuses such a word.
/// A structure has to begin inside calldata: Solidity's offsets wrap around, and from a start near 2^256 zeros would be copied, while
/// its fields are read from calldata's other end.
library Hashing {
    // keccak256 of the types, as EIP-712 writes those of Types.sol. Written out because the compiler would hash most of the texts at
    // each use; Hashing.t.sol compares.
    bytes32 internal constant LIMITS_TYPEHASH = 0xad9fb80bfabf7e492e146abe0a5a10117363e8c55574b201a1deb0af0ee8bf81;
    bytes32 internal constant FUNCTION_TYPEHASH = 0x8cbf7ff96ea3e6502c0f7dc2b027f5bb83a3b0b82c7e666e89bf31becdfe0b35;
    bytes32 internal constant DATASET_TYPEHASH = 0x64f4835030a1201f138eb19eeb746bc21c89e3a5d2bceb77afaec3f03293c59c;
    bytes32 internal constant ENCLAVES_TYPEHASH = 0xa99e7a57a711be28c55442e2969ae6ae58f09bc76998a21c21349be122c0fe25;
    bytes32 internal constant BROKER_TYPEHASH = 0x34406d72c76c320c77547086351cefb0924477771a215615ed8e9d7701e9c4af;
    bytes32 internal constant KEY_RELEASE_TYPEHASH = 0x4e5c89853c04329341fbb8d075da1fe7254d81afce36e8cbb67290e163a104fb;
    bytes32 internal constant OUTPUT_TYPEHASH = 0x2a66011a2c049c39b7c9dd85fe1ad7c066420816b6bf0bf23b71ad777b9c3b8f;
    bytes32 internal constant ACCESS_TYPEHASH = 0x76f5ae26e948deaa4df6c876673882b3e9b393cc6640480ec8a16392eb5d8c2f;
    bytes32 internal constant PRICE_TYPEHASH = 0x69eb5c0269f9c38dbb950f1cda456711106b10a87224179e1af4d4905a34aad0;
    bytes32 internal constant AGREEMENT_TYPEHASH = 0xd7932794e16088ef30161bde5f2e0e37ac4511a77d46f42d990851349ecb1ba0;
    bytes32 internal constant TASK_REQUEST_TYPEHASH =
        0x1ce49ee20615516110ca9cb8ab7d8d7db58e49477d6eb5f2127ffe8bb6b60f7e;
    bytes32 internal constant OUT_TYPEHASH = 0x0697392e6dc693d331a59b3a33c35b0c637dfea85ed486c4a38f1f490ea3c892;
    bytes32 internal constant RESULT_TYPEHASH = 0x46b6c3a01c82efa309d2df3c4deb3f758657d9a4c015afa1c8bb1857e977b27e;
    bytes32 internal constant BATCH_TYPEHASH = 0x5f224faa04c7f3e95c8336f26382b44e41582282822b4e717eae3bcc33627fd0;
    bytes32 internal constant AUDIT_TYPEHASH = 0xdd60f79c4cf873786fb5ab87567e2142d6dfd4d8f1fbe51e6ce52ea1fcfdad9a;
    bytes32 internal constant VERIFIER_STATEMENT_TYPEHASH =
        0xa8d53610a6c6129a6d0f7944de642097f652e03d9a54e7ce87f99259fb74c39b;
    bytes32 internal constant ENROLMENT_TYPEHASH = 0xe36450eb5738c2daa74f9f4c23fe50bc8a0eef755feec3a65c413c1f17780a1a;
    bytes32 internal constant HOST_TYPEHASH = 0xa2aa7ca43764e0ae74f3fdd4ef3ef7c27150a252c65b545da00188cf3d8e2235;
    bytes32 internal constant RETIRE_TYPEHASH = 0xb0ff47304d7f32278697c7c669cda2c5e0a5c7859f44b763263ca0f2c077f21f;

    function hash(Limits calldata l) internal pure returns (bytes32) {
        return keccak256(abi.encode(LIMITS_TYPEHASH, l));
    }

    function hash(Function calldata f) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                FUNCTION_TYPEHASH, f.id, f.sealedId, f.sharesDigest, f.owner, f.kind, f.deterministic, hash(f.limits)
            )
        );
    }

    function hash(Dataset calldata d) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                DATASET_TYPEHASH,
                keccak256(bytes(d.name)),
                d.owner,
                d.idOrStream,
                d.lineage,
                d.sharesDigest,
                d.policy,
                d.minVersion,
                hash(d.columns),
                d.budget
            )
        );
    }

    function hash(Dataset[] calldata data) internal pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](data.length);
        for (uint256 i; i < data.length; ++i) {
            hashes[i] = hash(data[i]);
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function hash(Enclaves calldata e) internal pure returns (bytes32 digest) {
        bytes32 typeHash = ENCLAVES_TYPEHASH;
        bytes32 measurements = _words(e.measurements);
        bytes32 anchors = _words(e.anchors);
        bytes32 operators = _words(e.operators);
        bytes32 platforms = _words(e.platforms);
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(e, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), e, 0x120)
            mstore(add(ptr, 0x20), measurements)
            mstore(add(ptr, 0x40), anchors)
            mstore(add(ptr, 0x100), operators)
            mstore(add(ptr, 0x120), platforms)
            digest := keccak256(ptr, 0x140)
        }
    }

    function hash(Broker calldata b) internal pure returns (bytes32) {
        return keccak256(abi.encode(BROKER_TYPEHASH, b));
    }

    function hash(KeyRelease calldata k) internal pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](k.brokers.length);
        for (uint256 i; i < k.brokers.length; ++i) {
            hashes[i] = hash(k.brokers[i]);
        }
        return keccak256(
            abi.encode(
                KEY_RELEASE_TYPEHASH,
                keccak256(abi.encodePacked(hashes)),
                k.threshold,
                k.maxReleases,
                k.confirmation,
                k.confirmBlocks,
                k.releaseDelay
            )
        );
    }

    function hash(Output calldata o) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                OUTPUT_TYPEHASH,
                keccak256(bytes(o.name)),
                o.kind,
                keccak256(abi.encodePacked(o.recipients)),
                keccak256(abi.encodePacked(o.owners)),
                o.sizeClass
            )
        );
    }

    function hash(Output[] calldata outputs) internal pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](outputs.length);
        for (uint256 i; i < outputs.length; ++i) {
            hashes[i] = hash(outputs[i]);
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function hash(Access calldata a) internal pure returns (bytes32) {
        return keccak256(abi.encode(ACCESS_TYPEHASH, a));
    }

    function hash(Price calldata p) internal pure returns (bytes32 digest) {
        bytes32 typeHash = PRICE_TYPEHASH;
        bytes32 to = _words(p.to);
        bytes32 bps = _words(p.bps);
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(p, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), p, 0xc0)
            mstore(add(ptr, 0xa0), to)
            mstore(add(ptr, 0xc0), bps)
            digest := keccak256(ptr, 0xe0)
        }
    }

    /// @dev In two halves: the stack does not hold seventeen words.
    function hash(Agreement calldata a) internal pure returns (bytes32) {
        bytes memory head = abi.encode(
            AGREEMENT_TYPEHASH,
            a.oracle,
            a.enclaveRegistry,
            hash(a.fn),
            hash(a.data),
            hash(a.tee),
            hash(a.keys),
            a.paramDomain,
            hash(a.outputs)
        );
        bytes memory tail = abi.encode(
            hash(a.access), hash(a.price), a.notBefore, a.notAfter, a.activateBefore, a.supersedes, a.auditors, a.salt
        );
        return keccak256(bytes.concat(head, tail));
    }

    function hash(TaskRequest calldata r) internal pure returns (bytes32 digest) {
        bytes32 typeHash = TASK_REQUEST_TYPEHASH;
        bytes32 versions = _words(r.versions);
        bytes32 params = keccak256(r.params);
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(r, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), r, 0x1c0)
            mstore(add(ptr, 0x80), versions)
            mstore(add(ptr, 0xe0), params)
            digest := keccak256(ptr, 0x1e0)
        }
    }

    function hash(Out calldata o) internal pure returns (bytes32 digest) {
        bytes32 typeHash = OUT_TYPEHASH;
        bytes32 name = keccak256(bytes(o.name));
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(o, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), o, 0xa0)
            mstore(add(ptr, 0x20), name)
            digest := keccak256(ptr, 0xc0)
        }
    }

    function hash(Result calldata r) internal pure returns (bytes32 digest) {
        bytes32 typeHash = RESULT_TYPEHASH;
        Out[] calldata outputs = r.outputs;
        bytes32[] memory hashes = new bytes32[](outputs.length);
        for (uint256 i; i < outputs.length; ++i) {
            hashes[i] = hash(outputs[i]);
        }
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(r, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), r, 0xc0)
            mstore(add(ptr, 0x80), keccak256(add(hashes, 0x20), shl(5, mload(hashes))))
            digest := keccak256(ptr, 0xe0)
        }
    }

    function hash(Batch calldata b) internal pure returns (bytes32 digest) {
        bytes32 typeHash = BATCH_TYPEHASH;
        bytes32 tasks = _words(b.tasks);
        bytes32 results = _words(b.results);
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, typeHash)
            if iszero(lt(b, calldatasize())) { revert(0, 0) }
            calldatacopy(add(ptr, 0x20), b, 0xa0)
            mstore(add(ptr, 0x80), tasks)
            mstore(add(ptr, 0xa0), results)
            digest := keccak256(ptr, 0xc0)
        }
    }

    function hash(Audit calldata a) internal pure returns (bytes32) {
        return keccak256(abi.encode(AUDIT_TYPEHASH, a));
    }

    function hash(VerifierStatement memory s) internal pure returns (bytes32) {
        return keccak256(abi.encode(VERIFIER_STATEMENT_TYPEHASH, s));
    }

    function hash(Enrolment memory e) internal pure returns (bytes32) {
        return keccak256(abi.encode(ENROLMENT_TYPEHASH, e));
    }

    /// @notice Struct hash of `Host(address signer)`: an operator takes responsibility for hosting `signer` (R5).
    function hashHost(address signer) internal pure returns (bytes32) {
        return keccak256(abi.encode(HOST_TYPEHASH, signer));
    }

    /// @notice Struct hash of `Retire(address signer)`.
    function hashRetire(address signer) internal pure returns (bytes32) {
        return keccak256(abi.encode(RETIRE_TYPEHASH, signer));
    }

    /// @notice What activation keeps of the parts that `fulfil`'s caller supplies again.
    function settlementHash(address enclaveRegistry, bytes32 teeHash, Price calldata price)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(enclaveRegistry, teeHash, hash(price)));
    }

    function hash(string[] calldata strings) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](strings.length);
        for (uint256 i; i < strings.length; ++i) {
            hashes[i] = keccak256(bytes(strings[i]));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function _words(bytes32[] calldata list) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            calldatacopy(ptr, list.offset, shl(5, list.length))
            digest := keccak256(ptr, shl(5, list.length))
        }
    }

    function _words(address[] calldata list) private pure returns (bytes32) {
        bytes32[] calldata words;
        assembly ("memory-safe") {
            words.offset := list.offset
            words.length := list.length
        }
        return _words(words);
    }

    function _words(uint16[] calldata list) private pure returns (bytes32) {
        bytes32[] calldata words;
        assembly ("memory-safe") {
            words.offset := list.offset
            words.length := list.length
        }
        return _words(words);
    }
}
