// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Enclaves} from "../Types.sol";
import {IComputeOracle} from "../interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../interfaces/IEnclaveRegistry.sol";

/// @title Whether a registered enclave is one that an agreement accepts (R2 to R5)
library EnclavePolicy {
    /// @param identity what the enclave is, as the registry confirmed it
    /// @param standing the registry's record of (anchor, signer); all zero when there is none
    function check(
        Enclaves calldata tee,
        IEnclaveRegistry.Identity calldata identity,
        IEnclaveRegistry.Standing memory standing,
        bytes32 anchor,
        address signer
    ) internal view {
        if (standing.evidenceAt == 0) {
            revert IComputeOracle.ComputeOracle_UnknownEnclave(anchor, signer);
        }
        if (standing.retired) revert IComputeOracle.ComputeOracle_EnclaveRetired(anchor, signer);
        if (block.timestamp > standing.validUntil) {
            revert IComputeOracle.ComputeOracle_EnclaveExpired(standing.validUntil, block.timestamp);
        }
        if (!_contains(tee.anchors, anchor)) revert IComputeOracle.ComputeOracle_AnchorNotAgreed(anchor);
        if (!_contains(tee.measurements, identity.measurement)) {
            revert IComputeOracle.ComputeOracle_MeasurementNotAgreed(identity.measurement);
        }
        if (!_statusTaken(tee, standing)) {
            revert IComputeOracle.ComputeOracle_TcbStatusNotAgreed(standing.tcbStatus, tee.statusMask);
        }
        if (standing.evaluation < tee.evalFloor) {
            revert IComputeOracle.ComputeOracle_EvaluationTooLow(standing.evaluation, tee.evalFloor);
        }
        uint256 age = block.timestamp - standing.evidenceAt;
        if (age > tee.maxEvidenceAge) revert IComputeOracle.ComputeOracle_EvidenceTooOld(age, tee.maxEvidenceAge);
        // R5
        if (
            !tee.anyHost && !_contains(tee.operators, identity.operator) && !_contains(tee.platforms, identity.platform)
        ) {
            revert IComputeOracle.ComputeOracle_HostNotAgreed(identity.operator, identity.platform);
        }
    }

    /// @dev R4: a status that the agreement takes, or one that it took under an earlier evaluation, within the grace. What is
    /// revoked has no grace: `statusMask` cannot take it, nor zero, which is no earlier status: the registry keeps none for it.
    function _statusTaken(Enclaves calldata tee, IEnclaveRegistry.Standing memory standing)
        private
        view
        returns (bool)
    {
        if (_takes(tee, standing.tcbStatus)) return true;
        return _takes(tee, standing.earlierStatus) && standing.earlierEvaluation >= tee.evalFloor
            && block.timestamp <= uint256(standing.changedAt) + uint256(tee.graceDays) * 1 days;
    }

    function _takes(Enclaves calldata tee, uint8 status) private pure returns (bool) {
        return tee.statusMask >> status & 1 != 0;
    }

    function _contains(bytes32[] calldata list, bytes32 value) private pure returns (bool) {
        for (uint256 i; i < list.length; ++i) {
            if (list[i] == value) return true;
        }
        return false;
    }

    function _contains(address[] calldata list, address value) private pure returns (bool) {
        for (uint256 i; i < list.length; ++i) {
            if (list[i] == value) return true;
        }
        return false;
    }
}
