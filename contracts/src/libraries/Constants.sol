// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Numbers and tags with a meaning in the protocol
/// @notice The same names and values as in `enclave_app/protocol`; docs/protocol.md says what each means.

/// @dev `Function.kind`.
library FunctionKind {
    uint8 internal constant SQL = 1;
    uint8 internal constant PYTHON = 2;
    uint8 internal constant ONNX = 3;
    uint8 internal constant PADDLE = 4;
    uint8 internal constant WASM = 5;
}

/// @dev `Dataset.policy` (R7b).
library DatasetPolicy {
    uint8 internal constant FIXED = 1;
    uint8 internal constant PINNED = 2;
    uint8 internal constant AT_LEAST = 3;
    uint8 internal constant LATEST = 4;
}

/// @dev `Output.kind` and `Out.kind`.
library OutputKind {
    uint8 internal constant ARROW_TABLE = 1;
    /// @dev One row, as Solidity's ABI encodes it: public outputs only.
    uint8 internal constant ABI_VALUES = 2;
}

/// @dev How `requestFor` is paid in an ERC-20 token.
library PaymentKind {
    uint8 internal constant ALLOWANCE = 0;
    uint8 internal constant PERMIT = 1;
    uint8 internal constant AUTHORIZATION = 2;
}

/// @dev `KeyRelease.confirmation` (R9).
library Confirmation {
    uint8 internal constant LATEST = 1;
    uint8 internal constant SAFE = 2;
    uint8 internal constant FINALIZED = 3;
}

/// @dev `Result.outcome` (R19).
library Outcome {
    uint8 internal constant SUCCEEDED = 1;
    uint8 internal constant FAILED = 2;
}

/// @dev Intel's names. `Enclaves.statusMask` has bit `1 << status` set for each one taken.
library TcbStatus {
    uint8 internal constant UP_TO_DATE = 1;
    uint8 internal constant SW_HARDENING_NEEDED = 2;
    uint8 internal constant CONFIGURATION_NEEDED = 3;
    uint8 internal constant CONFIGURATION_AND_SW_HARDENING_NEEDED = 4;
    uint8 internal constant OUT_OF_DATE = 5;
    uint8 internal constant OUT_OF_DATE_CONFIGURATION_NEEDED = 6;
    uint8 internal constant REVOKED = 7;
    uint8 internal constant TD_RELAUNCH_ADVISED = 8;
    uint8 internal constant TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = 9;

    /// @dev One bit for each status that an agreement may take: 1 to 9 without REVOKED.
    uint32 internal constant ACCEPTABLE_MASK = 0x3FE & ~(uint32(1) << REVOKED);
}

/// @dev Kinds of TEE.
library TeeKind {
    uint8 internal constant SGX = 1;
    uint8 internal constant TDX = 2;
    uint8 internal constant SNP = 3;
    uint8 internal constant NITRO = 4;
}

/// @dev How a party's consent was proven at activation (R7).
library ConsentKind {
    uint8 internal constant NONE = 0;
    uint8 internal constant ECDSA = 1;
    uint8 internal constant ERC1271 = 2;
    uint8 internal constant OWN_TRANSACTION = 3;
}

/// @dev The moves between these are the table in IComputeOracle.
library TaskState {
    uint8 internal constant NONE = 0;
    uint8 internal constant REQUESTED = 1;
    uint8 internal constant FULFILLED = 2;
    uint8 internal constant FAILED = 3;
    uint8 internal constant CANCELLED = 4;
    uint8 internal constant EXPIRED = 5;
}

/// @dev Name and version of every EIP-712 domain of the protocol.
string constant EIP712_NAME = "Enclave Oracle";
string constant EIP712_VERSION = "1";

/// @dev `Access.requesters` of an agreement that lets any address request.
bytes32 constant ANYONE = keccak256("enclave-oracle/anyone");

/// @dev First word of what evidence binds (R2), with its version after it.
/// @dev SHA-256 of "enclave-oracle/evidence/1", written out because the compiler would call the precompile at each use.
bytes32 constant EVIDENCE_TAG = 0x739a1983e8e58ba5e0459246f3d995ae04a71c3c71f52f56c8f3fb034406fa7d;
uint256 constant EVIDENCE_VERSION = 1;

/// @dev First word of the anchor of an attested verifier (R4).
/// @dev SHA-256 of "enclave-oracle/attested-anchor/1", written out because the compiler would call the precompile at each use.
bytes32 constant ATTESTED_ANCHOR_TAG = 0xceab6f7c0cbf2baf0bd3349f3a5b180334abe2174619f8e8946c48d29ce4e383;

/// @dev First word of what a TCB status was judged by.
/// @dev SHA-256 of "enclave-oracle/svn/1", written out because the compiler would call the precompile at each use.
bytes32 constant SVN_TAG = 0x085b25dc85fab909a6d454a7b3a8bd942473902fe29d4dd4e9806cc67d52b5e0;

/// @dev Basis points of a whole, in `Price.bps`.
uint256 constant BPS = 10_000;
