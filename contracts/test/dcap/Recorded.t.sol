// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapVerifier} from "../../src/interfaces/IDcapVerifier.sol";
import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";
import {DcapKit} from "./DcapKit.sol";

/// @notice Quotes of real machines, from `tests/vectors/dcap.json`: what Python tells the contract, and what both make of it.
contract RecordedTest is DcapKit {
    string private constant PATH = "tests/vectors/dcap.json";
    uint256 private constant CASES = 23;

    string private json = vm.readFile(PATH);

    function test_everyRecordedQuoteGivesTheClaimsOfTheOffChainVerifier() public view {
        uint256 count;
        for (; vm.keyExistsJson(json, _at(count)); ++count) {
            string memory name = vm.parseJsonString(json, _key(count, "name"));
            (IEvidenceVerifier.Claims memory claims, bytes32 second) =
                verifier.verifyAnyReportData(vm.parseJsonBytes(json, _key(count, "evidence")));
            assertEq(claims.tee, vm.parseJsonUint(json, _key(count, "tee")), name);
            assertEq(claims.measurement, vm.parseJsonBytes32(json, _key(count, "measurement")), name);
            assertEq(bytes.concat(claims.reportData, second), vm.parseJsonBytes(json, _key(count, "reportData")), name);
            assertEq(claims.platform, vm.parseJsonBytes32(json, _key(count, "platform")), name);
            assertEq(claims.svnDigest, vm.parseJsonBytes32(json, _key(count, "svnDigest")), name);
            assertEq(claims.judgement.tcbStatus, vm.parseJsonUint(json, _key(count, "tcbStatus")), name);
            assertEq(claims.judgement.evaluation, vm.parseJsonUint(json, _key(count, "evaluation")), name);
            assertEq(claims.judgement.validUntil, store.END(), name);
            assertEq(claims.anchor, store.anchor(), name);
            assertEq(claims.verifier, bytes32(0), name);
        }
        assertEq(count, CASES);
    }

    function test_aChallengeJudgesThemAlike() public view {
        for (uint256 i; i < CASES; ++i) {
            (bytes32 anchor, bytes32 svnDigest, IEvidenceVerifier.Judgement memory judgement) =
                verifier.judge(vm.parseJsonBytes(json, _key(i, "challenge")));
            (IEvidenceVerifier.Claims memory claims,) =
                verifier.verifyAnyReportData(vm.parseJsonBytes(json, _key(i, "evidence")));
            assertEq(anchor, claims.anchor);
            assertEq(svnDigest, claims.svnDigest);
            assertEq(abi.encode(judgement), abi.encode(claims.judgement));
        }
    }

    function test_reportDataThatGoesOnIsTheLastToBeRefused() public {
        uint256 refused;
        for (uint256 i; i < CASES; ++i) {
            bytes memory evidence = vm.parseJsonBytes(json, _key(i, "evidence"));
            (, bytes32 second) = verifier.verifyAnyReportData(evidence);
            if (second == 0) {
                assertEq(verifier.verify(evidence).anchor, store.anchor());
                continue;
            }
            ++refused;
            vm.expectRevert(IDcapVerifier.DcapVerifier_ReportDataNotZero.selector);
            verifier.verify(evidence);
        }
        assertTrue(refused != 0 && refused != CASES);
    }

    /// @dev R3. Their bodies differ in every byte, so no two registers can be mixed up.
    function test_measurementsAreThoseOfPython() public view {
        Case memory c = sgxCase();
        c.body = vm.parseJsonBytes(json, ".measurements[0].body");
        assertEq(check(c).measurement, vm.parseJsonBytes32(json, ".measurements[0].measurement"));
        c = tdxCase(4);
        bytes memory body = vm.parseJsonBytes(json, ".measurements[1].body");
        // TDATTRIBUTES to RTMR3. What lies around them says which module runs, and has to be a module's.
        for (uint256 i = TD_ATTRIBUTES; i < TD_REPORT_DATA_AT; ++i) {
            c.body[i] = body[i];
        }
        assertEq(check(c).measurement, vm.parseJsonBytes32(json, ".measurements[1].measurement"));
    }

    function _at(uint256 index) private pure returns (string memory) {
        return string.concat(".cases[", vm.toString(index), "]");
    }

    function _key(uint256 index, string memory name) private pure returns (string memory) {
        return string.concat(_at(index), ".", name);
    }
}
