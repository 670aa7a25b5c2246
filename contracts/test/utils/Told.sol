// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";

/// @title A verifier that believes what it is told
/// @notice For tests of what a registry does with a verifier's answers. What verifiers themselves take, their own tests show.
contract Told is IEvidenceVerifier {
    /// @param evidence abi.encode(Claims)
    function verify(bytes calldata evidence) external pure returns (Claims memory) {
        return abi.decode(evidence, (Claims));
    }

    /// @param proof abi.encode(anchor, svnDigest, Judgement)
    function judge(bytes calldata proof) external pure returns (bytes32, bytes32, Judgement memory) {
        return abi.decode(proof, (bytes32, bytes32, Judgement));
    }
}
