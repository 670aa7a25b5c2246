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
library Hashing {
    string private constant LIMITS = "Limits(uint32 memoryMiB,uint32 timeSeconds,uint64 outputBytes,uint64 outputRows)";
    string private constant FUNCTION =
        "Function(bytes32 id,bytes32 sealedId,bytes32 sharesDigest,address owner,uint8 kind,bool deterministic,Limits limits)";
    string private constant DATASET =
        "Dataset(string name,address owner,bytes32 idOrStream,bytes32 lineage,bytes32 sharesDigest,uint8 policy,uint64 minVersion,string[] columns,uint256 budget)";
    string private constant ENCLAVES =
        "Enclaves(bytes32[] measurements,bytes32[] anchors,uint32 statusMask,uint32 evalFloor,uint32 graceDays,uint64 maxEvidenceAge,bool anyHost,address[] operators,bytes32[] platforms)";
    string private constant BROKER = "Broker(bytes32 hpkeKey,address signer)";
    string private constant KEY_RELEASE =
        "KeyRelease(Broker[] brokers,uint8 threshold,uint8 maxReleases,uint8 confirmation,uint32 confirmBlocks,uint32 releaseDelay)";
    string private constant OUTPUT =
        "Output(string name,uint8 kind,bytes32[] recipients,address[] owners,uint32 sizeClass)";
    string private constant ACCESS = "Access(bytes32 requesters,uint64 quota,uint64 quotaPerRequester)";
    string private constant PRICE =
        "Price(address token,uint256 fee,uint256 minFee,uint256 failedFee,address[] to,uint16[] bps)";
    string private constant AGREEMENT =
        "Agreement(address oracle,address enclaveRegistry,Function fn,Dataset[] data,Enclaves tee,KeyRelease keys,bytes32 paramDomain,Output[] outputs,Access access,Price price,uint64 notBefore,uint64 notAfter,uint64 activateBefore,bytes32 supersedes,bytes32 auditors,bytes32 salt)";
    string private constant OUT = "Out(string name,uint8 kind,bytes32 recipientsDigest,uint64 length,bytes32 digest)";
    string private constant RESULT =
        "Result(bytes32 agreementId,bytes32 taskId,uint8 outcome,Out[] outputs,address payee,bytes32 anchor)";

    bytes32 internal constant LIMITS_TYPEHASH = keccak256(bytes(LIMITS));
    bytes32 internal constant FUNCTION_TYPEHASH = keccak256(abi.encodePacked(FUNCTION, LIMITS));
    bytes32 internal constant DATASET_TYPEHASH = keccak256(bytes(DATASET));
    bytes32 internal constant ENCLAVES_TYPEHASH = keccak256(bytes(ENCLAVES));
    bytes32 internal constant BROKER_TYPEHASH = keccak256(bytes(BROKER));
    bytes32 internal constant KEY_RELEASE_TYPEHASH = keccak256(abi.encodePacked(KEY_RELEASE, BROKER));
    bytes32 internal constant OUTPUT_TYPEHASH = keccak256(bytes(OUTPUT));
    bytes32 internal constant ACCESS_TYPEHASH = keccak256(bytes(ACCESS));
    bytes32 internal constant PRICE_TYPEHASH = keccak256(bytes(PRICE));
    bytes32 internal constant AGREEMENT_TYPEHASH = keccak256(
        abi.encodePacked(AGREEMENT, ACCESS, BROKER, DATASET, ENCLAVES, FUNCTION, KEY_RELEASE, LIMITS, OUTPUT, PRICE)
    );
    bytes32 internal constant TASK_REQUEST_TYPEHASH = keccak256(
        "TaskRequest(bytes32 agreementId,address requester,bytes32 nonce,bytes32[] versions,bytes32 inputsId,bytes32 inputShares,bytes params,bytes32 resultKey,uint256 spend,uint256 maxFee,uint64 asOf,uint64 deadline,address callback,uint32 callbackGas)"
    );
    bytes32 internal constant OUT_TYPEHASH = keccak256(bytes(OUT));
    bytes32 internal constant RESULT_TYPEHASH = keccak256(abi.encodePacked(RESULT, OUT));
    bytes32 internal constant BATCH_TYPEHASH =
        keccak256("Batch(bytes32 agreementId,address payee,bytes32 anchor,bytes32[] tasks,bytes32[] results)");
    bytes32 internal constant AUDIT_TYPEHASH = keccak256("Audit(bytes32 functionId,bytes32 report)");
    bytes32 internal constant VERIFIER_STATEMENT_TYPEHASH = keccak256(
        "VerifierStatement(uint8 tee,bytes32 measurement,bytes32 reportData,bytes32 root,uint8 tcbStatus,uint32 evaluation,bytes32 platform,bytes32 svnDigest,bytes32 collateral,uint64 appraisedAt,uint64 validUntil)"
    );
    bytes32 internal constant ENROLMENT_TYPEHASH =
        keccak256("Enrolment(address signer,bytes32 sealingKey,bytes32 blockHash,address operator)");
    bytes32 internal constant HOST_TYPEHASH = keccak256("Host(address signer)");
    bytes32 internal constant RETIRE_TYPEHASH = keccak256("Retire(address signer)");

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
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), e, 0x120)
            mstore(add(at, 0x20), measurements)
            mstore(add(at, 0x40), anchors)
            mstore(add(at, 0x100), operators)
            mstore(add(at, 0x120), platforms)
            digest := keccak256(at, 0x140)
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
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), p, 0xc0)
            mstore(add(at, 0xa0), to)
            mstore(add(at, 0xc0), bps)
            digest := keccak256(at, 0xe0)
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
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), r, 0x1c0)
            mstore(add(at, 0x80), versions)
            mstore(add(at, 0xe0), params)
            digest := keccak256(at, 0x1e0)
        }
    }

    function hash(Out calldata o) internal pure returns (bytes32 digest) {
        bytes32 typeHash = OUT_TYPEHASH;
        bytes32 name = keccak256(bytes(o.name));
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), o, 0xa0)
            mstore(add(at, 0x20), name)
            digest := keccak256(at, 0xc0)
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
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), r, 0xc0)
            mstore(add(at, 0x80), keccak256(add(hashes, 0x20), shl(5, mload(hashes))))
            digest := keccak256(at, 0xe0)
        }
    }

    function hash(Batch calldata b) internal pure returns (bytes32 digest) {
        bytes32 typeHash = BATCH_TYPEHASH;
        bytes32 tasks = _words(b.tasks);
        bytes32 results = _words(b.results);
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore(at, typeHash)
            calldatacopy(add(at, 0x20), b, 0xa0)
            mstore(add(at, 0x80), tasks)
            mstore(add(at, 0xa0), results)
            digest := keccak256(at, 0xc0)
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
            let at := mload(0x40)
            calldatacopy(at, list.offset, shl(5, list.length))
            digest := keccak256(at, shl(5, list.length))
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
