// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TcbStatus} from "./Constants.sol";

/// @title Which TCB status is worse
/// @dev Intel's order (Intel SGX DCAP Quote Verification Library, TCB level convergence). The numbers of TcbStatus do not
/// follow it.
library TcbRank {
    /// @dev Rank of status 0 to 9, four bits each from the right; what is no status ranks last.
    uint256 private constant RANKS = 0x549763210F;

    /// @return 0 for UP_TO_DATE up to 9 for REVOKED, 15 for what is no status
    function rank(uint8 status) internal pure returns (uint256) {
        return status > TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED ? 15 : RANKS >> 4 * status & 15;
    }

    function worse(uint8 a, uint8 b) internal pure returns (uint8) {
        return rank(a) < rank(b) ? b : a;
    }
}
