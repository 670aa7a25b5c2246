// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Audit} from "../Types.sol";

/// @title FunctionAudits
/// @notice Which auditors vouch for which functions. An agreement that names auditors becomes active only with their approval.
/// No owner, admin key, pause or proxy (R21): whose word counts, each agreement says.
interface IFunctionAudits {
    event FunctionApproved(bytes32 indexed functionId, address indexed auditor, bytes32 report);
    event ApprovalWithdrawn(bytes32 indexed functionId, address indexed auditor);

    error FunctionAudits_Zero(string field);
    error FunctionAudits_BadSignature(address auditor, bytes32 digest);
    /// @dev A signature that was withdrawn cannot be shown again; the auditor's own transaction can approve anew.
    error FunctionAudits_Withdrawn(bytes32 functionId, address auditor);
    /// @dev Anyone brings signatures: an older one must not take a newer report's place. The auditor's own transaction can.
    error FunctionAudits_AlreadyApproved(bytes32 functionId, address auditor, bytes32 report);

    /// @notice Approves by the caller's own transaction. The report's digest must not be zero.
    function approve(Audit calldata audit) external;

    /// @notice Approves by `auditor`'s signature over the Audit's EIP-712 digest, where it has not approved yet: ECDSA, or ERC-1271
    /// of deployed code.
    function approveFor(address auditor, Audit calldata audit, bytes calldata signature) external;

    /// @notice Takes the caller's approval back, also one that was signed and not yet shown. Active agreements stay so: their
    /// parties decide.
    function withdraw(bytes32 functionId) external;

    /// @notice The report of `auditor`'s approval; zero where there is none.
    function reportOf(bytes32 functionId, address auditor) external view returns (bytes32);

    function auditDigestOf(Audit calldata audit) external view returns (bytes32);

    function domainSeparator() external view returns (bytes32);
}
