// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {DcapVerifier} from "../../src/DcapVerifier.sol";
import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {TcbLevels} from "../../src/libraries/TcbLevels.sol";

/// @notice The verifier without its last check: recorded quotes bind other people's report data, all 64 bytes of it.
contract DcapHarness is DcapVerifier {
    constructor(IDcapCollateral collateral_) DcapVerifier(collateral_) {}

    function verifyAnyReportData(bytes calldata evidence) external view returns (Claims memory claims, bytes32 second) {
        return _verify(evidence);
    }

    function converge(uint8 platform, uint8 part) external pure returns (uint8) {
        return TcbLevels.converge(platform, part);
    }

    function relaunch(uint8 launch, uint8 current) external pure returns (uint8) {
        return TcbLevels.relaunch(launch, current);
    }
}
