// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {VerifierStatement} from "../Types.sol";
import {IEvidenceVerifier} from "./IEvidenceVerifier.sol";

/// @title DevelopmentVerifier
/// @notice Takes the signature of one off-chain appraiser instead of evidence. Its anchor is the appraiser's own, so no
/// agreement that lists a vendor's anchor can be met through it, and it deploys on development chain ids only (R4).
/// @dev WARNING: whoever holds the appraiser's key can register any enclave under this anchor.
interface IDevelopmentVerifier is IEvidenceVerifier {
    // R4
    error DevelopmentVerifier_NotADevelopmentChain(uint256 chainId);
    error DevelopmentVerifier_ZeroAppraiser();
    error DevelopmentVerifier_BadEvidenceLength(uint256 got, uint256 expected);
    error DevelopmentVerifier_WrongAppraiser(address got, address expected);

    /// @inheritdoc IEvidenceVerifier
    /// @param evidence abi.encode(VerifierStatement, bytes signature): a 65-byte low-s ECDSA signature by the appraiser over
    /// the statement's EIP-712 digest in this contract's domain
    function verify(bytes calldata evidence) external view returns (VerifierStatement memory statement, bytes32 anchor);

    function appraiser() external view returns (address);

    /// @notice sha256(abi.encode(DEVELOPMENT_ANCHOR_TAG, chain id, appraiser)).
    function anchor() external view returns (bytes32);

    function domainSeparator() external view returns (bytes32);
}
