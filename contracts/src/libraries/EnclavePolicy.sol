// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Enclaves} from "../Types.sol";
import {IComputeOracle} from "../interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../interfaces/IEnclaveRegistry.sol";

/// @title Whether a registered enclave is one that an agreement accepts (R2 to R5)
library EnclavePolicy {
    /// @param enclave the registry's record of (anchor, signer); all zero when there is none
    function check(Enclaves calldata tee, IEnclaveRegistry.Identity memory enclave, bytes32 anchor, address signer)
        internal
        view
    {
        if (enclave.evidenceAt == 0) revert IComputeOracle.ComputeOracle_UnknownEnclave(anchor, signer);
        if (enclave.retired) revert IComputeOracle.ComputeOracle_EnclaveRetired(anchor, signer);
        if (block.timestamp > enclave.validUntil) {
            revert IComputeOracle.ComputeOracle_EnclaveExpired(enclave.validUntil, block.timestamp);
        }
        if (!_contains(tee.anchors, anchor)) revert IComputeOracle.ComputeOracle_AnchorNotAgreed(anchor);
        if (!_contains(tee.measurements, enclave.measurement)) {
            revert IComputeOracle.ComputeOracle_MeasurementNotAgreed(enclave.measurement);
        }
        if (tee.statusMask >> enclave.tcbStatus & 1 == 0) {
            revert IComputeOracle.ComputeOracle_TcbStatusNotAgreed(enclave.tcbStatus, tee.statusMask);
        }
        if (enclave.evaluation < tee.evalFloor) {
            revert IComputeOracle.ComputeOracle_EvaluationTooLow(enclave.evaluation, tee.evalFloor);
        }
        uint256 age = block.timestamp - enclave.evidenceAt;
        if (age > tee.maxEvidenceAge) revert IComputeOracle.ComputeOracle_EvidenceTooOld(age, tee.maxEvidenceAge);
        // R5
        if (!tee.anyHost && !_contains(tee.operators, enclave.operator) && !_contains(tee.platforms, enclave.platform))
        {
            revert IComputeOracle.ComputeOracle_HostNotAgreed(enclave.operator, enclave.platform);
        }
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
