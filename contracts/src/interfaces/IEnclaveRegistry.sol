// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Enrolment} from "../Types.sol";

/// @title EnclaveRegistry
/// @notice Keeps the identities of attested enclaves. Its one to four verifiers are fixed for ever, and it has no owner,
/// admin key, pause or proxy (R21).
///
/// An identity is (trust anchor, signer): each boot of an enclave is a new one (R1, R2). Anyone may relay a registration.
///
/// | state      | move     | by                                       | to         |
/// |------------|----------|------------------------------------------|------------|
/// | none       | register | anyone, with evidence and the key's proof | registered |
/// | registered | register | the same, over a newer block, with nothing of the identity changed | registered |
/// | registered | challenge | anyone, with newer collateral under which it stands lower | registered |
/// | registered | retire   | the signer                               | retired    |
///
/// Nothing leaves retired. A registered identity is valid until `validUntil`; renewing it moves that. A platform that was
/// patched or changed hands is another identity: its enclave starts again with new keys (R1).
interface IEnclaveRegistry {
    /// @param signer the enclave's secp256k1 address
    /// @param sealingKey digest of its HPKE public key
    /// @param blockNumber, blockHash a block that this chain still knows (256 back), which the evidence binds: a quote has no
    /// time of its own (R2)
    /// @param operator who hosts it, or zero for nobody named (R5)
    /// @param proofOfPossession the signer's ECDSA signature over Enrolment{signer, sealingKey, blockHash, operator}
    /// @param operatorSignature the operator's, over Host{signer}; empty exactly when `operator` is zero
    /// @param verifier one of this registry's
    /// @param evidence in that verifier's format
    struct Registration {
        address signer;
        bytes32 sealingKey;
        uint256 blockNumber;
        bytes32 blockHash;
        address operator;
        bytes proofOfPossession;
        bytes operatorSignature;
        address verifier;
        bytes evidence;
    }

    /// @notice What a registration says for good. The registry keeps its digest only; whoever needs the parts brings them.
    /// @param measurement, tee, platform, svnDigest, verifier as in IEvidenceVerifier.Claims
    /// @param operator who hosts it, or zero (R5)
    struct Identity {
        bytes32 measurement;
        bytes32 platform;
        bytes32 sealingKey;
        bytes32 svnDigest;
        bytes32 verifier;
        address operator;
        uint8 tee;
    }

    /// @notice What changes while it is registered.
    /// @param tcbStatus, evaluation under which collateral it stands how
    /// @param earlierStatus, earlierEvaluation, changedAt how it stood before that evaluation and since when there is a better
    /// level, as in IEvidenceVerifier.Judgement; agreements with a grace look at them
    /// @param evidenceAt unix seconds of the registration or its last renewal
    /// @param validUntil unix seconds, included
    /// @param blockNumber of the block that the evidence binds
    struct Standing {
        uint8 tcbStatus;
        bool retired;
        uint8 earlierStatus;
        uint32 evaluation;
        uint32 earlierEvaluation;
        uint40 changedAt;
        uint40 evidenceAt;
        uint40 validUntil;
        uint40 blockNumber;
    }

    /// @notice A registration or a renewal.
    event EnclaveRegistered(
        bytes32 indexed anchor,
        address indexed signer,
        bytes32 indexed measurement,
        Identity identity,
        Standing standing,
        address verifier
    );
    /// @notice A challenge lowered a standing.
    event EnclaveChallenged(bytes32 indexed anchor, address indexed signer, Standing standing, address challenger);
    event EnclaveRetired(bytes32 indexed anchor, address indexed signer);

    // Verifiers are fixed (R21)
    error EnclaveRegistry_BadVerifierCount(uint256 got, uint256 min, uint256 max);
    error EnclaveRegistry_NotAContract(address verifier);
    error EnclaveRegistry_DuplicateVerifier(address verifier);

    // Registration (R2)
    /// @dev R4
    error EnclaveRegistry_UnknownVerifier(address verifier);
    error EnclaveRegistry_WrongBlockHash(uint256 blockNumber, bytes32 got, bytes32 expected);
    error EnclaveRegistry_WrongReportData(bytes32 got, bytes32 expected);
    error EnclaveRegistry_WrongProofOfPossession(address got, address signer);
    /// @dev R5
    error EnclaveRegistry_BadOperatorSignature(address operator, address signer);
    error EnclaveRegistry_EvidenceExpired(uint40 validUntil, uint256 time);
    /// @dev R4
    error EnclaveRegistry_BadTcbStatus(uint8 status);
    /// @dev R4
    error EnclaveRegistry_BadTeeKind(uint8 tee);
    error EnclaveRegistry_Zero(string field);
    /// @dev Digests of identities.
    error EnclaveRegistry_IdentityChanged(bytes32 got, bytes32 registered);
    error EnclaveRegistry_NotNewer(uint256 blockNumber, uint256 registered);
    error EnclaveRegistry_OlderEvaluation(uint32 got, uint32 registered);
    /// @dev Digests of identities.
    error EnclaveRegistry_WrongIdentity(bytes32 got, bytes32 registered);
    error EnclaveRegistry_WrongChallenge(bytes32 gotAnchor, bytes32 gotSvnDigest, bytes32 anchor, bytes32 svnDigest);
    error EnclaveRegistry_NotLower(uint8 got, uint8 registered);
    error EnclaveRegistry_Retired(bytes32 anchor, address signer);
    error EnclaveRegistry_Unknown(bytes32 anchor, address signer);
    error EnclaveRegistry_WrongRetirement(address got, address signer);

    /// @notice Registers an identity or renews it (R2, R4, R5).
    /// @dev The evidence must bind `reportDataOf(...)` and not be revoked. A record is valid for seven days at most, or until
    /// what the evidence rests on ends. A renewal may not fall back to an older evaluation; under a newer one the record keeps
    /// how the enclave stood before, also where the evidence does not show it.
    /// WARNING: a registration says what an enclave is, not that anyone should trust it: agreements do, by measurement,
    /// anchor, TCB policy and host.
    function register(Registration calldata registration) external returns (bytes32 anchor);

    /// @notice Lowers a standing under collateral that is newer than what it was registered with. It can only lower (R4).
    /// @param identity the registered one
    /// @param proof for the verifier's `judge`
    function challenge(
        bytes32 anchor,
        address signer,
        Identity calldata identity,
        address verifier,
        bytes calldata proof
    ) external;

    /// @notice Ends an identity for ever.
    /// @param signature the signer's ECDSA signature over Retire{signer}; not read when the signer itself calls
    /// @dev WARNING: the signature names no anchor, so anyone may use it on each anchor that the signer is registered under.
    function retire(bytes32 anchor, address signer, bytes calldata signature) external;

    /// @notice The record, all zero when there is none.
    /// @return identity digest of the identity
    function record(bytes32 anchor, address signer) external view returns (bytes32 identity, Standing memory standing);

    /// @notice The standing of a registered identity; reverts where `identity` is another one than what is registered.
    /// @dev All zero where there is no record: `evidenceAt` tells.
    function standingOf(bytes32 anchor, address signer, Identity calldata identity)
        external
        view
        returns (Standing memory standing);

    /// @notice keccak256(abi.encode(identity)).
    function digestOf(Identity calldata identity) external pure returns (bytes32);

    /// @notice Registered, not retired, not expired (R2).
    function isValid(bytes32 anchor, address signer) external view returns (bool);

    /// @notice What evidence must carry as report data (R2):
    /// sha256(abi.encode(EVIDENCE_TAG, EVIDENCE_VERSION, chain id, this registry, signer, sealingKey, blockHash)).
    function reportDataOf(address signer, bytes32 sealingKey, bytes32 blockHash) external view returns (bytes32);

    /// @notice The digest that an enclave signs as its proof of possession.
    function enrolmentDigest(Enrolment calldata enrolment) external view returns (bytes32);

    /// @notice The digest that an operator signs.
    function hostDigest(address signer) external view returns (bytes32);

    /// @notice The digest that retires a signer.
    function retireDigest(address signer) external view returns (bytes32);

    function verifiers() external view returns (address[] memory);

    function isVerifier(address verifier) external view returns (bool);

    function domainSeparator() external view returns (bytes32);
}
