// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {VerifierStatement} from "./Types.sol";
import {IDevelopmentVerifier} from "./interfaces/IDevelopmentVerifier.sol";
import {DEVELOPMENT_ANCHOR_TAG, EIP712_NAME, EIP712_VERSION} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";

/// @title DevelopmentVerifier
/// @notice See IDevelopmentVerifier.
contract DevelopmentVerifier is IDevelopmentVerifier, EIP712 {
    /// @dev Eleven words of statement, one of offset, one of length, three that hold 65 bytes.
    uint256 private constant EVIDENCE_LENGTH = 16 * 32;

    address public immutable appraiser;
    bytes32 public immutable anchor;

    constructor(address appraiser_) EIP712(EIP712_NAME, EIP712_VERSION) {
        // R4: anvil's and Hardhat's default, ganache's, and one more for a second devnet.
        if (block.chainid != 31_337 && block.chainid != 1337 && block.chainid != 31_338) {
            revert DevelopmentVerifier_NotADevelopmentChain(block.chainid);
        }
        if (appraiser_ == address(0)) revert DevelopmentVerifier_ZeroAppraiser();
        appraiser = appraiser_;
        anchor = sha256(abi.encode(DEVELOPMENT_ANCHOR_TAG, block.chainid, appraiser_));
    }

    /// @inheritdoc IDevelopmentVerifier
    function verify(bytes calldata evidence) external view returns (VerifierStatement memory, bytes32) {
        if (evidence.length != EVIDENCE_LENGTH) {
            revert DevelopmentVerifier_BadEvidenceLength(evidence.length, EVIDENCE_LENGTH);
        }
        (VerifierStatement memory statement, bytes memory signature) = abi.decode(evidence, (VerifierStatement, bytes));
        // The other two values say why recovery failed; a zero signer is nobody's.
        // slither-disable-next-line unused-return
        (address signer,,) = ECDSA.tryRecover(_hashTypedDataV4(Hashing.hash(statement)), signature);
        if (signer != appraiser) revert DevelopmentVerifier_WrongAppraiser(signer, appraiser);
        return (statement, anchor);
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }
}
