// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title A verifier of attestation evidence
/// @notice Turns evidence into claims under a trust anchor, or reverts (R4).
/// @dev `view`, so that a verifier can neither reenter nor keep state per enclave.
interface IEvidenceVerifier {
    /// @notice What evidence proves, now.
    /// @param anchor digest of the trust anchor that it rests on; agreements list the ones they accept
    /// @param tee TeeKind
    /// @param measurement over every code and configuration register and attribute of its kind (R3)
    /// @param reportData first half of the report data; the second was seen to be zero (R2)
    /// @param platform digest of a PPID or chip id
    /// @param svnDigest of every version that the status was judged by, so that `judge` can be asked again
    /// @param verifier measurement of the enclave that vouches for it, zero where a contract checked the evidence itself
    struct Claims {
        bytes32 anchor;
        uint8 tee;
        bytes32 measurement;
        bytes32 reportData;
        bytes32 platform;
        bytes32 svnDigest;
        bytes32 verifier;
        Judgement judgement;
    }

    /// @notice How good a platform is under the collateral in use.
    /// @param tcbStatus TcbStatus
    /// @param evaluation TCB evaluation number that it was judged under
    /// @param earlierStatus its status under an earlier evaluation, zero where none was shown
    /// @param earlierEvaluation the number of that evaluation
    /// @param changedAt unix seconds at which, says the maker, the newer evaluation's best level became one
    /// @param validUntil unix seconds, included: the earliest end of what the judgement rests on
    struct Judgement {
        uint8 tcbStatus;
        uint32 evaluation;
        uint8 earlierStatus;
        uint32 earlierEvaluation;
        uint40 changedAt;
        uint40 validUntil;
    }

    /// @notice Verifies evidence.
    function verify(bytes calldata evidence) external view returns (Claims memory claims);

    /// @notice Judges versions that were verified before, under the collateral of now: what a challenge asks.
    /// @param proof in the verifier's own format
    /// @return anchor whose judgement it is; the caller compares this and the next with its record
    /// @return svnDigest of the versions
    /// @return judgement of them
    /// @dev Unlike `verify` it answers for a revoked platform too, with TcbStatus.REVOKED.
    function judge(bytes calldata proof)
        external
        view
        returns (bytes32 anchor, bytes32 svnDigest, Judgement memory judgement);
}
