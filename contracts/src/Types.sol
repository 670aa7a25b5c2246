// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The signed structures of the protocol
/// @notice Field order and names are consensus: they are the EIP-712 types of docs/protocol.md. The same types are
/// written down in Python in `enclave_app/protocol/structs.py`; `tests/vectors/eip712.json` keeps both honest.

/// @dev What the sandbox may use, per task.
struct Limits {
    uint32 memoryMiB;
    uint32 timeSeconds;
    uint64 outputBytes;
    uint64 outputRows;
}

/// @dev `sealedId` and `sharesDigest` are zero for a function that hosts may read (R17b).
struct Function {
    bytes32 id;
    bytes32 sealedId;
    bytes32 sharesDigest;
    address owner;
    uint8 kind;
    bool deterministic;
    Limits limits;
}

/// @dev `policy`: 1 fixed, 2 pinned version, 3 at least `minVersion`, 4 latest (R7b). `columns` are the released ones.
struct Dataset {
    string name;
    address owner;
    bytes32 idOrStream;
    bytes32 lineage;
    bytes32 sharesDigest;
    uint8 policy;
    uint64 minVersion;
    string[] columns;
    uint256 budget;
}

/// @dev Which enclaves may run (R3, R4, R5). `statusMask` has bit 1 << TcbStatus set for each status taken.
struct Enclaves {
    bytes32[] measurements;
    bytes32[] anchors;
    uint32 statusMask;
    uint32 evalFloor;
    uint32 graceDays;
    uint64 maxEvidenceAge;
    bool anyHost;
    address[] operators;
    bytes32[] platforms;
}

/// @dev `hpkeKey` is the digest of the broker's HPKE public key; `signer` signs its statements.
struct Broker {
    bytes32 hpkeKey;
    address signer;
}

/// @dev `confirmation`: 1 latest less `confirmBlocks`, 2 safe, 3 finalized. `releaseDelay` in blocks (R9).
struct KeyRelease {
    Broker[] brokers;
    uint8 threshold;
    uint8 maxReleases;
    uint8 confirmation;
    uint32 confirmBlocks;
    uint32 releaseDelay;
}

/// @dev A recipient is the digest of an HPKE public key, or zero for the request's `resultKey`. No recipients: public.
struct Output {
    string name;
    uint8 kind;
    bytes32[] recipients;
    address[] owners;
    uint32 sizeClass;
}

/// @dev `requesters`: Merkle root of the allowed addresses (OpenZeppelin's StandardMerkleTree leaves), or ANYONE.
struct Access {
    bytes32 requesters;
    uint64 quota;
    uint64 quotaPerRequester;
}

/// @dev `to[i]` gets `bps[i]` of the fee, the payee the rest; a signed failure pays the payee `failedFee`.
struct Price {
    address token;
    uint256 fee;
    uint256 minFee;
    uint256 failedFee;
    address[] to;
    uint16[] bps;
}

struct Agreement {
    address oracle;
    address enclaveRegistry;
    Function fn;
    Dataset[] data;
    Enclaves tee;
    KeyRelease keys;
    bytes32 paramDomain;
    Output[] outputs;
    Access access;
    Price price;
    uint64 notBefore;
    uint64 notAfter;
    uint64 activateBefore;
    bytes32 supersedes;
    bytes32 auditors;
    bytes32 salt;
}

struct TaskRequest {
    bytes32 agreementId;
    address requester;
    bytes32 nonce;
    bytes32[] versions;
    bytes32 inputsId;
    bytes32 inputShares;
    bytes params;
    bytes32 resultKey;
    uint256 spend;
    uint256 maxFee;
    uint64 asOf;
    uint64 deadline;
    address callback;
    uint32 callbackGas;
}

/// @dev `length` is the padded plaintext length in bytes; `digest` the output's dataset id (its manifest's digest).
struct Out {
    string name;
    uint8 kind;
    bytes32 recipientsDigest;
    uint64 length;
    bytes32 digest;
}

/// @dev `outcome`: 1 succeeded, 2 failed (R19: invalid parameters or a deterministic function error; no outputs).
struct Result {
    bytes32 agreementId;
    bytes32 taskId;
    uint8 outcome;
    Out[] outputs;
    address payee;
    bytes32 anchor;
}

/// @dev An appraiser's statement about evidence. Times are unix seconds; `platform` is the digest of a PPID or chip id.
struct VerifierStatement {
    uint8 tee;
    bytes32 measurement;
    bytes32 reportData;
    bytes32 root;
    uint8 tcbStatus;
    uint32 evaluation;
    bytes32 platform;
    bytes32 svnDigest;
    bytes32 collateral;
    uint64 appraisedAt;
    uint64 validUntil;
}

/// @dev The enclave key's proof of possession at registration, in the EnclaveRegistry's domain.
struct Enrolment {
    address signer;
    bytes32 sealingKey;
    bytes32 blockHash;
    address operator;
}

/// @dev One signature for many tasks of one agreement that succeeded without public outputs: `results[i]` is the digest of
/// the Result of `tasks[i]`, each of which names `payee` and `anchor`.
struct Batch {
    bytes32 agreementId;
    address payee;
    bytes32 anchor;
    bytes32[] tasks;
    bytes32[] results;
}

/// @dev An auditor's word about a function: `report` is the digest of what it wrote.
struct Audit {
    bytes32 functionId;
    bytes32 report;
}
