// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {VerifierStatement} from "../Types.sol";

/// @title A verifier of attestation evidence
/// @notice Turns evidence into an appraisal under a trust anchor, or reverts (R4).
/// @dev `view`, so that a verifier can neither reenter nor keep state per enclave.
interface IEvidenceVerifier {
    /// @return statement what the evidence says, appraised
    /// @return anchor digest of the trust anchor that the appraisal rests on; agreements list the ones they accept
    function verify(bytes calldata evidence) external view returns (VerifierStatement memory statement, bytes32 anchor);
}
