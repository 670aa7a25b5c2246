// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {ConsentKind} from "./Constants.sol";

/// @title Signature checks in the order that R7 sets
library Signatures {
    /// @notice Recovers a 65-byte, low-s ECDSA signature (r, s, v).
    /// @return signer zero when `signature` is none.
    function recover(bytes32 digest, bytes calldata signature) internal pure returns (address signer) {
        // The other two values say why recovery failed; a zero signer is nobody's.
        // slither-disable-next-line unused-return
        (signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
    }

    /// @notice How `signature` proves that `account` signed `digest`: ConsentKind ECDSA, ERC1271 or NONE.
    /// @dev ECDSA first: an account delegated by EIP-7702 has code, yet signs with its key. ERC-1271 counts only for
    /// deployed code (R7).
    function kindOf(address account, bytes32 digest, bytes calldata signature) internal view returns (uint8) {
        if (account == address(0)) return ConsentKind.NONE;
        if (recover(digest, signature) == account) return ConsentKind.ECDSA;
        if (account.code.length != 0 && SignatureChecker.isValidERC1271SignatureNow(account, digest, signature)) {
            return ConsentKind.ERC1271;
        }
        return ConsentKind.NONE;
    }
}
