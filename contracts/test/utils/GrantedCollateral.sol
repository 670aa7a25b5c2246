// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";

/// @title A collateral store that has been posted everything
/// @notice For tests of what a verifier does with a store's answers. What a store takes, its own tests show.
contract GrantedCollateral {
    bytes32 public constant anchor = sha256("root");
    uint40 public constant END = 2_000_000_000;
    bool private _revoked;
    bool private _refusing;
    bytes32 private _only;

    error Refused();

    function revoke() external {
        _revoked = true;
    }

    function refuse() external {
        _refusing = true;
    }

    /// @notice From now on only what has this keccak256(abi.encode(pck, tcb, qe)) counts as posted.
    function grantOnly(bytes32 digest) external {
        _only = digest;
    }

    function isRevoked(bytes32, uint160) external view returns (bool) {
        return _revoked;
    }

    function check(IDcapCollateral.Pck calldata, IDcapCollateral.TcbInfo calldata, IDcapCollateral.QeIdentity calldata)
        external
        view
        returns (uint40)
    {
        if (_refusing || _only != 0 && keccak256(msg.data[4:]) != _only) revert Refused();
        return END;
    }

    function checkCollateral(IDcapCollateral.TcbInfo calldata, IDcapCollateral.QeIdentity calldata)
        external
        view
        returns (uint40)
    {
        if (_refusing) revert Refused();
        return END;
    }

    function checkEarlier(IDcapCollateral.TcbInfo calldata, IDcapCollateral.QeIdentity calldata) external view {
        if (_refusing) revert Refused();
    }
}
