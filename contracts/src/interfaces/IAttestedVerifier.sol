// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {VerifierStatement} from "../Types.sol";
import {IEnclaveRegistry} from "./IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "./IEvidenceVerifier.sol";

/// @title AttestedVerifier
/// @notice Takes evidence that no contract can check (AMD SEV-SNP, AWS Nitro) on the word of an enclave that appraised it and
/// that a contract has checked: one registered at the asking registry by its own quote, valid now.
///
/// Its claims are under an anchor of their own, which names the verifier's anchor, the verifier's measurement and the maker's
/// root: sha256(abi.encode(ATTESTED_ANCHOR_TAG, verifier's anchor, verifier's measurement, statement.root)). So an agreement that
/// lists it has judged that verifier, and a simulated verifier cannot speak for a real maker (R4). Assurance is the lowest along
/// the path: the worse TCB status, the verifier's evaluation, the earlier end.
/// @dev The registry is `msg.sender`: the answer means nothing to anybody else.
interface IAttestedVerifier is IEvidenceVerifier {
    /// @notice For `verify` and `judge`: abi.encode(Attested).
    /// @param anchor, signer, identity the verifier's registration
    /// @param signature the verifier's 65-byte low-s ECDSA over the statement's EIP-712 digest in the registry's domain
    struct Attested {
        VerifierStatement statement;
        bytes32 anchor;
        address signer;
        IEnclaveRegistry.Identity identity;
        bytes signature;
    }

    error AttestedVerifier_WrongSigner(address got, address expected);
    /// @dev The verifier is not registered, retired, or its registration has ended.
    error AttestedVerifier_InvalidVerifier(bytes32 anchor, address signer);
    /// @dev The verifier itself rests on another's word.
    error AttestedVerifier_Nested(bytes32 verifier);
    /// @dev A contract checks evidence of this kind itself.
    error AttestedVerifier_BadTeeKind(uint8 tee);
    /// @dev R4: a challenge on the word of a verifier that is itself out of date.
    error AttestedVerifier_VerifierOutOfDate(uint8 tcbStatus);
    error AttestedVerifier_StaleAppraisal(uint64 appraisedAt, uint256 time, uint256 tolerance);

    /// @notice The anchor under which it registers.
    function anchorOf(bytes32 verifierAnchor, bytes32 verifierMeasurement, bytes32 root) external pure returns (bytes32);
}
