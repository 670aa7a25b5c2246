// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {Audit} from "./Types.sol";
import {IFunctionAudits} from "./interfaces/IFunctionAudits.sol";
import {ConsentKind, EIP712_NAME, EIP712_VERSION} from "./libraries/Constants.sol";
import {Hashing} from "./libraries/Hashing.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title FunctionAudits
/// @notice See IFunctionAudits.
contract FunctionAudits is IFunctionAudits, IERC165, EIP712 {
    /// @dev `withdrawn` says whether the auditor ever withdrew: no signature counts again, also after an approval anew, which an
    /// old signature would else overwrite.
    struct Approval {
        bytes32 report;
        bool withdrawn;
    }

    mapping(bytes32 functionId => mapping(address auditor => Approval)) private _approvals;

    constructor() EIP712(EIP712_NAME, EIP712_VERSION) {}

    function approve(Audit calldata audit) external {
        _approve(msg.sender, audit);
    }

    function approveFor(address auditor, Audit calldata audit, bytes calldata signature) external {
        if (_approvals[audit.functionId][auditor].withdrawn) {
            revert FunctionAudits_Withdrawn(audit.functionId, auditor);
        }
        bytes32 report = _approvals[audit.functionId][auditor].report;
        if (report != 0) revert FunctionAudits_AlreadyApproved(audit.functionId, auditor, report);
        bytes32 digest = auditDigestOf(audit);
        if (Signatures.kindOf(auditor, digest, signature) == ConsentKind.NONE) {
            revert FunctionAudits_BadSignature(auditor, digest);
        }
        _approve(auditor, audit);
    }

    function withdraw(bytes32 functionId) external {
        Approval storage approval = _approvals[functionId][msg.sender];
        if (approval.withdrawn && approval.report == 0) revert FunctionAudits_Withdrawn(functionId, msg.sender);
        (approval.report, approval.withdrawn) = (0, true);
        emit ApprovalWithdrawn(functionId, msg.sender);
    }

    function reportOf(bytes32 functionId, address auditor) external view returns (bytes32) {
        return _approvals[functionId][auditor].report;
    }

    function auditDigestOf(Audit calldata audit) public view returns (bytes32) {
        return _hashTypedDataV4(Hashing.hash(audit));
    }

    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IFunctionAudits).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    function _approve(address auditor, Audit calldata audit) private {
        if (audit.functionId == 0) revert FunctionAudits_Zero("functionId");
        if (audit.report == 0) revert FunctionAudits_Zero("report");
        _approvals[audit.functionId][auditor].report = audit.report;
        emit FunctionApproved(audit.functionId, auditor, audit.report);
    }
}
