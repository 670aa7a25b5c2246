// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "../../src/interfaces/IDcapVerifier.sol";
import {IEvidenceVerifier} from "../../src/interfaces/IEvidenceVerifier.sol";
import {SVN_TAG, TcbStatus, TeeKind} from "../../src/libraries/Constants.sol";
import {GrantedCollateral} from "../utils/GrantedCollateral.sol";
import {DcapKit} from "./DcapKit.sol";

/// @notice Where a platform stands. What dcap-qvl 0.7.0 answers to the same questions, `tests/unit/test_dcap_qvl.py` shows.
contract LevelsTest is DcapKit {
    uint256 private constant STATUSES = 9;

    function test_collateralOfAnotherPlatformIsRefused() public {
        Case memory c = sgxCase();
        c.current.tcb.tee = TeeKind.TDX;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongTee.selector, TeeKind.TDX, TeeKind.SGX));
        c = tdxCase(4);
        c.current.qe.tee = TeeKind.SGX;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongTee.selector, TeeKind.SGX, TeeKind.TDX));
        c = sgxCase();
        c.current.tcb.fmspc = 0xdec0de000001;
        refuses(
            c,
            abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongFmspc.selector, bytes6(0xdec0de000001), c.pck.fmspc)
        );
        c = sgxCase();
        c.current.tcb.pceId = 0x0103;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongPceId.selector, bytes2(0x0103), c.pck.pceId));
    }

    function test_whatTheStoreRefusesIsRefused() public {
        Case memory c = sgxCase();
        check(c);
        store.refuse();
        refuses(c, GrantedCollateral.Refused.selector);
        bytes memory proof = challengeOf(c);
        vm.expectRevert(GrantedCollateral.Refused.selector);
        verifier.judge(proof);
    }

    function test_theStoreIsAskedForExactlyWhatWasBrought() public {
        Case memory c = tdxCase(4);
        IDcapVerifier.Evidence memory e = evidenceOf(c);
        vm.expectCall(address(store), abi.encodeCall(IDcapCollateral.check, (e.pck, e.current.tcb, e.current.qe)));
        verifier.verify(abi.encode(e));
        vm.expectCall(address(store), abi.encodeCall(IDcapCollateral.checkCollateral, (e.current.tcb, e.current.qe)));
        vm.expectCall(address(store), abi.encodeCall(IDcapCollateral.isRevoked, (c.pck.issuer, c.pck.serial)));
        verifier.judge(challengeOf(c));
    }

    function test_theLevelThatIsMetGivesTheStatus(uint8 status, uint256 above) public {
        status = uint8(bound(status, 1, STATUSES));
        Case memory c = sgxCase();
        above = bound(above, 0, 4);
        c.current.levels = new IDcapCollateral.TcbLevel[](above + 2);
        for (uint256 i; i < above; ++i) {
            c.current.levels[i] = level(CPU_SVN, 0, uint16(PCE_SVN + above - i), TcbStatus.UP_TO_DATE);
        }
        c.current.levels[above] = level(CPU_SVN, 0, PCE_SVN, status);
        c.current.levels[above + 1] = level(0, 0, 0, TcbStatus.SW_HARDENING_NEEDED);
        c.current.shown = above + 1;
        if (status == TcbStatus.REVOKED) {
            refuses(c, IDcapVerifier.DcapVerifier_Revoked.selector);
        } else if (status > TcbStatus.REVOKED) {
            // Those come of two levels, never of one.
            refuses(c, IDcapVerifier.DcapVerifier_WrongLevels.selector);
        } else {
            assertEq(check(c).judgement.tcbStatus, status);
        }
    }

    function test_aLowerLevelThanTheOneThatIsMetIsRefused() public {
        Case memory c = sgxCase();
        for (uint256 shown = 2; shown <= 3; ++shown) {
            c.current.shown = shown;
            refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BetterLevelMet.selector, 0));
        }
    }

    function test_aLevelThatIsNotMetIsRefused() public {
        Case memory c = sgxCase();
        c.pck.pceSvn = PCE_SVN - 2;
        for (uint256 shown = 1; shown <= 2; ++shown) {
            c.current.shown = shown;
            refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, shown - 1));
        }
        c.current.shown = 3;
        assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
    }

    function test_otherLevelsThanThePostedAreRefused(uint256 which) public {
        IDcapVerifier.Evidence memory e = evidenceOf(sgxCase());
        which = bound(which, 0, 5);
        if (which == 0) e.current.levels[0].components ^= bytes32(uint256(1));
        if (which == 1) e.current.levels[0].pceSvn -= 1;
        if (which == 2) e.current.levels[0].status = TcbStatus.SW_HARDENING_NEEDED;
        if (which == 3) e.current.levels[0].date -= 1;
        if (which == 4) e.current.rest ^= bytes32(uint256(1));
        if (which == 5) e.current.levels = new IDcapCollateral.TcbLevel[](0);
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongLevels.selector));
    }

    function test_aSkippedLevelIsRefused() public {
        Case memory c = sgxCase();
        c.current.shown = 3;
        IDcapVerifier.Evidence memory e = evidenceOf(c);
        // The last level alone, or the last two, with nothing behind them.
        e.current.levels[0] = e.current.levels[1];
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongLevels.selector));
        IDcapCollateral.TcbLevel[] memory alone = new IDcapCollateral.TcbLevel[](1);
        alone[0] = e.current.levels[2];
        e.current.levels = alone;
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongLevels.selector));
    }

    function test_noLevelsAtAllIsNoProof() public {
        IDcapVerifier.Evidence memory e = evidenceOf(sgxCase());
        e.current.rest = e.current.tcb.levels;
        e.current.levels = new IDcapCollateral.TcbLevel[](0);
        refusesBytes(abi.encode(e), abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongLevels.selector));
    }

    /// @dev Against a comparison written as Intel writes it: byte by byte.
    function test_aLevelIsMetWhereNoComponentIsLower(bytes16 have, uint256 choices, bool tdx) public {
        // Two random words hardly ever cover each other: most bytes are made equal, some one apart.
        if (tdx) have &= 0xFF00FFFFFFFFFFFFFFFFFFFFFFFFFFFF; // a module without a version
        bytes memory want = new bytes(16);
        bool met = true;
        for (uint256 i; i < 16; ++i) {
            uint256 choice = choices >> 5 * i & 31;
            uint256 value = uint8(have[i]);
            if (choice < 4 && value != 0) --value;
            if (choice == 4 && value != 255) ++value;
            if (choice == 5) value = 255 - value;
            want[i] = bytes1(uint8(value));
            if (uint8(have[i]) < value) met = false;
        }
        Case memory c = tdx ? tdxCase(4) : sgxCase();
        if (tdx) {
            put(c.body, 0, bytes.concat(have));
            c.current.named[0] = 0;
            c.current.levels[0] = level(CPU_SVN, bytes16(want), PCE_SVN, TcbStatus.CONFIGURATION_NEEDED);
        } else {
            c.pck.cpuSvn = have;
            c.current.levels[0] = level(bytes16(want), 0, PCE_SVN, TcbStatus.CONFIGURATION_NEEDED);
        }
        if (met) assertEq(check(c).judgement.tcbStatus, TcbStatus.CONFIGURATION_NEEDED);
        else refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, 0));
    }

    function test_eachComponentCounts() public {
        for (uint256 i; i < 32; ++i) {
            Case memory c = tdxCase(4);
            put(c.body, 0, hex"05000400000000000000000000000000");
            c.current.named[0] = 0;
            bytes32 wanted = bytes32(bytes.concat(CPU_SVN, bytes16(0x05000400000000000000000000000000)));
            c.current.levels[0].components = wanted;
            assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
            if (wanted[i] == 0xFF) continue;
            c.current.levels[0].components = bytes32(uint256(wanted) + (1 << 248 - 8 * i));
            refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, 0));
        }
    }

    /// @dev The first two TDX components are the module's ISVSVN and version.
    function test_aModuleWithAVersionIsNotJudgedByThePlatformsLevels() public {
        Case memory c = tdxCase(4);
        c.current.levels[0].components |= bytes32(bytes.concat(bytes16(0), hex"ffff"));
        assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
        c.current.levels[0].components |= bytes32(bytes.concat(bytes16(0), hex"0000ff"));
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, 0));
    }

    function test_theQuotingEnclavesLevelIsTheFirstThatItMeets() public {
        Case memory c = sgxCase();
        put(c.qeReport, 258, little2(QE_SVN - 1));
        assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
        put(c.qeReport, 258, little2(QE_SVN - 2));
        assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
        put(c.qeReport, 258, little2(QE_SVN - 3));
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_QeTooOld.selector, QE_SVN - 3));
        put(c.qeReport, 258, little2(0x0100));
        assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
        c.current.qe.levels = new uint256[](0);
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_QeTooOld.selector, 0x0100));
    }

    function test_aQuotingEnclaveHasOnlyTheStatusesOfOne() public {
        for (uint8 status; status <= STATUSES + 1; ++status) {
            Case memory c = sgxCase();
            c.current.qe.levels[0] = isvLevel(QE_SVN, status);
            if (status == TcbStatus.REVOKED) {
                refuses(c, IDcapVerifier.DcapVerifier_Revoked.selector);
            } else if (status == 0) {
                refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_QeTooOld.selector, QE_SVN));
            } else if (
                status == TcbStatus.UP_TO_DATE || status == TcbStatus.CONFIGURATION_NEEDED
                    || status == TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
            ) {
                assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
            } else if (status == TcbStatus.OUT_OF_DATE) {
                assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
            } else {
                refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongQe.selector, "status"));
            }
        }
    }

    function test_theModulesLevelIsTheFirstThatItMeets() public {
        Case memory c = tdxCase(4);
        put(c.body, 0, hex"04");
        assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
        put(c.body, 0, hex"ff");
        assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
        put(c.body, 0, hex"01");
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ModuleTooOld.selector, 1));
    }

    function test_aModuleHasOnlyTheStatusesOfOne() public {
        for (uint8 status; status <= STATUSES + 1; ++status) {
            Case memory c = tdxCase(4);
            c.current.modules[2].levels[0] = isvLevel(5, status);
            if (status == TcbStatus.REVOKED) {
                refuses(c, IDcapVerifier.DcapVerifier_Revoked.selector);
            } else if (status == 0) {
                refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ModuleTooOld.selector, 5));
            } else if (status == TcbStatus.UP_TO_DATE || status == TcbStatus.OUT_OF_DATE) {
                assertEq(check(c).judgement.tcbStatus, status);
            } else {
                refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadModule.selector, "status"));
            }
        }
    }

    function test_anotherModuleThanTheQuoteNamesIsRefused() public {
        Case memory c = tdxCase(4);
        c.current.named[0] = 1;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModule.selector, 3, 1));
        c.current.named[0] = 0;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModule.selector, 0, 1));
        // A version that Intel does not name: no falling back to the module without one.
        put(c.body, 1, hex"02");
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModule.selector, 0, 2));
    }

    function test_modulesThatWereNotPostedAreRefused() public {
        IDcapVerifier.Evidence memory e = evidenceOf(tdxCase(4));
        bytes memory reason = abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModules.selector);
        e.current.module[0].levels[1] = isvLevel(5, TcbStatus.UP_TO_DATE);
        refusesBytes(abi.encode(e), reason);

        e = evidenceOf(tdxCase(4));
        (e.current.modules[0], e.current.modules[1]) = (e.current.modules[1], e.current.modules[0]);
        refusesBytes(abi.encode(e), reason);
        e.current.modules = new bytes32[](0);
        refusesBytes(abi.encode(e), reason);

        e = evidenceOf(tdxCase(4));
        e.current.module = new IDcapCollateral.TdxModule[](0);
        refusesBytes(abi.encode(e), reason);

        Case memory c = tdxCase(5);
        c.current.named = new uint256[](2);
        (c.current.named[0], c.current.named[1]) = (2, 1);
        refuses(c, reason);
    }

    function test_anSgxProofHasNoModules() public {
        bytes memory reason = abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModules.selector);
        IDcapVerifier.Evidence memory e = evidenceOf(sgxCase());
        e.current.modules = new bytes32[](1);
        refusesBytes(abi.encode(e), reason);
        e = evidenceOf(sgxCase());
        e.current.module = new IDcapCollateral.TdxModule[](1);
        refusesBytes(abi.encode(e), reason);
    }

    function test_aModuleOfAnotherSignerIsRefused() public {
        bytes memory reason = abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadModule.selector, "mrSigner");
        for (uint256 i; i < 48; i += 47) {
            Case memory c = tdxCase(4);
            c.body[64 + i] ^= 0x01;
            refuses(c, reason);
        }
        Case memory short = tdxCase(4);
        short.current.modules[2].mrSigner = new bytes(47);
        refuses(short, reason);
        Case memory long = tdxCase(4);
        long.current.modules[2].mrSigner = bytes.concat(long.current.modules[2].mrSigner, hex"00");
        refuses(long, reason);
    }

    function test_aModuleWithOtherAttributesIsRefused() public {
        bytes memory reason = abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadModule.selector, "attributes");
        Case memory c = tdxCase(4);
        c.current.modules[2].attributes = 0x0300000000000000;
        c.current.modules[2].attributesMask = 0x0100000000000000;
        refuses(c, reason);
        put(c.body, 112, hex"01");
        assertEq(check(c).judgement.tcbStatus, TcbStatus.UP_TO_DATE);
        // Outside the mask, what Intel expects does not count, and the quote may say nothing.
        put(c.body, 112, hex"03");
        refuses(c, reason);
        put(c.body, 112, hex"0100000000000080");
        refuses(c, reason);
    }

    /// @dev dcap-qvl 0.7.0, converge_with_component.
    function test_statusesConvergeAsIntelsDo() public view {
        for (uint8 part = 1; part <= STATUSES; ++part) {
            for (uint8 platform = 1; platform <= STATUSES; ++platform) {
                uint8 expected = platform;
                if (part == TcbStatus.REVOKED) expected = TcbStatus.REVOKED;
                if (part == TcbStatus.OUT_OF_DATE && platform <= 2) expected = TcbStatus.OUT_OF_DATE;
                if (part == TcbStatus.OUT_OF_DATE && (platform == 3 || platform == 4)) {
                    expected = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
                }
                assertEq(verifier.converge(platform, part), expected);
            }
        }
    }

    /// @dev dcap-qvl 0.7.0, check_for_relaunch; rows are the launch's status, columns that of now.
    function test_aRelaunchIsAdvisedWhereItHelps() public view {
        bytes[9] memory expected = [
            bytes(hex"010101010101070101"),
            hex"020202020202070202",
            hex"030303030303070303",
            hex"040404040404070404",
            hex"080809090505070505",
            hex"090909090606070606",
            hex"070707070707070707",
            hex"080808080808070808",
            hex"090909090909070909"
        ];
        for (uint8 launch = 1; launch <= STATUSES; ++launch) {
            for (uint8 current = 1; current <= STATUSES; ++current) {
                assertEq(verifier.relaunch(launch, current), uint8(expected[launch - 1][current - 1]));
            }
        }
    }

    function test_aModuleUpdatedUnderTheTdAdvisesARelaunch() public view {
        Case memory c = tdxCase(5);
        put(c.body, 0, hex"04");
        assertEq(check(c).judgement.tcbStatus, TcbStatus.TD_RELAUNCH_ADVISED);
        c.current.levels[0].status = TcbStatus.CONFIGURATION_NEEDED;
        assertEq(check(c).judgement.tcbStatus, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED);
        // The quoting enclave is older than either.
        put(c.qeReport, 258, little2(QE_SVN - 2));
        c.current.levels[0].status = TcbStatus.UP_TO_DATE;
        assertEq(check(c).judgement.tcbStatus, TcbStatus.OUT_OF_DATE);
    }

    function test_aModuleUpdatedToAnotherVersionIsJudgedByThatVersionsLevels() public {
        Case memory c = tdxCase(5);
        put(c.body, 0, hex"04");
        put(c.body, TEE_TCB_SVN2_AT, hex"0503");
        refuses(c, IDcapVerifier.DcapVerifier_WrongModules.selector);
        c.current.named = new uint256[](2);
        (c.current.named[0], c.current.named[1]) = (2, 1);
        assertEq(check(c).judgement.tcbStatus, TcbStatus.TD_RELAUNCH_ADVISED);
        c.current.modules[1].levels[0] = isvLevel(5, TcbStatus.REVOKED);
        refuses(c, IDcapVerifier.DcapVerifier_Revoked.selector);
        c.current.named[1] = 0;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongModule.selector, 0, 3));
    }

    function test_aPlatformUpdatedUnderTheTdMeetsABetterLevel() public view {
        Case memory c = tdxCase(5);
        put(c.body, 2, hex"03");
        c.current.shown = 3;
        assertEq(check(c).judgement.tcbStatus, TcbStatus.TD_RELAUNCH_ADVISED);
    }

    /// @dev dcap-qvl takes it, with the launch's status: the contract takes less.
    function test_versionsOfNowBelowThoseOfTheLaunchAreRefused() public {
        Case memory c = tdxCase(5);
        put(c.body, TEE_TCB_SVN2_AT + 2, hex"03");
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, 0));
        c = tdxCase(5);
        put(c.body, TEE_TCB_SVN2_AT, hex"01");
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_ModuleTooOld.selector, 1));
    }

    function test_theEvaluationIsTheOlderOfTheTwo() public view {
        Case memory c = sgxCase();
        c.current.tcb.evaluation = 20;
        c.current.qe.evaluation = 19;
        assertEq(check(c).judgement.evaluation, 19);
        c.current.qe.evaluation = 21;
        assertEq(check(c).judgement.evaluation, 20);
    }

    function test_anEarlierEvaluationGivesTheStatusOfThen() public view {
        Case memory c = _withEarlier(tdxCase(5), EVALUATION - 1);
        c.current.levels[0].status = TcbStatus.OUT_OF_DATE;
        c.earlier[0].levels[0].status = TcbStatus.SW_HARDENING_NEEDED;
        c.earlier[0].tcb.changedAt = 1;
        IEvidenceVerifier.Judgement memory j = check(c).judgement;
        assertEq(j.tcbStatus, TcbStatus.OUT_OF_DATE);
        assertEq(j.evaluation, EVALUATION);
        assertEq(j.earlierStatus, TcbStatus.SW_HARDENING_NEEDED);
        assertEq(j.earlierEvaluation, EVALUATION - 1);
        assertEq(j.changedAt, CHANGED_AT);
    }

    function test_anEvaluationThatIsNotEarlierIsRefused() public {
        for (uint32 evaluation = EVALUATION; evaluation <= EVALUATION + 1; ++evaluation) {
            Case memory c = _withEarlier(sgxCase(), evaluation);
            refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_NotEarlier.selector, evaluation, EVALUATION));
        }
    }

    function test_oneEarlierEvaluationIsTaken() public {
        Case memory c = sgxCase();
        c.earlier = new Collateral[](2);
        c.earlier[0] = _withEarlier(sgxCase(), EVALUATION - 1).earlier[0];
        c.earlier[1] = _withEarlier(sgxCase(), EVALUATION - 2).earlier[0];
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadLength.selector, "earlier", 2, 1));
    }

    function test_anEarlierEvaluationIsJudgedAsStrictly() public {
        Case memory c = _withEarlier(sgxCase(), EVALUATION - 1);
        c.earlier[0].tcb.fmspc = 0;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongFmspc.selector, bytes6(0), c.pck.fmspc));
        c = _withEarlier(sgxCase(), EVALUATION - 1);
        c.earlier[0].qe.mrSigner = 0;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongQe.selector, "mrSigner"));
        c = _withEarlier(tdxCase(4), EVALUATION - 1);
        c.earlier[0].modules[2].mrSigner = new bytes(48);
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BadModule.selector, "mrSigner"));
        c = _withEarlier(sgxCase(), EVALUATION - 1);
        c.earlier[0].levels[0].status = TcbStatus.REVOKED;
        refuses(c, IDcapVerifier.DcapVerifier_Revoked.selector);
        c = _withEarlier(sgxCase(), EVALUATION - 1);
        c.earlier[0].shown = 2;
        refuses(c, abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BetterLevelMet.selector, 0));
    }

    function test_aChallengeJudgesVersionsAlone() public view {
        for (uint8 version = 3; version <= 5; ++version) {
            Case memory c = version == 3 ? sgxCase() : tdxCase(version);
            (bytes32 anchor, bytes32 svnDigest, IEvidenceVerifier.Judgement memory j) = verifier.judge(challengeOf(c));
            IEvidenceVerifier.Claims memory claims = check(c);
            assertEq(anchor, claims.anchor);
            assertEq(svnDigest, claims.svnDigest);
            assertEq(abi.encode(j), abi.encode(claims.judgement));
        }
    }

    function test_aChallengeAnswersForWhatIsRevoked() public {
        Case memory c = sgxCase();
        c.current.levels[0].status = TcbStatus.REVOKED;
        assertEq(_judged(c), TcbStatus.REVOKED);
        c = sgxCase();
        c.current.qe.levels[0] = isvLevel(QE_SVN, TcbStatus.REVOKED);
        assertEq(_judged(c), TcbStatus.REVOKED);
        c = tdxCase(4);
        c.current.modules[2].levels[0] = isvLevel(5, TcbStatus.REVOKED);
        assertEq(_judged(c), TcbStatus.REVOKED);
        c = sgxCase();
        assertEq(_judged(c), TcbStatus.UP_TO_DATE);
        store.revoke();
        assertEq(_judged(c), TcbStatus.REVOKED);
    }

    function test_aChallengeIsJudgedAsStrictly() public {
        Case memory c = sgxCase();
        c.current.shown = 2;
        bytes memory proof = challengeOf(c);
        vm.expectRevert(abi.encodeWithSelector(IDcapVerifier.DcapVerifier_BetterLevelMet.selector, 0));
        verifier.judge(proof);
        c = sgxCase();
        c.current.tcb.fmspc = 0;
        proof = challengeOf(c);
        vm.expectRevert(abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongFmspc.selector, bytes6(0), c.pck.fmspc));
        verifier.judge(proof);
        // What is revoked, too, is judged by its own platform's collateral: the evaluation comes from it.
        store.revoke();
        vm.expectRevert(abi.encodeWithSelector(IDcapVerifier.DcapVerifier_WrongFmspc.selector, bytes6(0), c.pck.fmspc));
        verifier.judge(proof);
    }

    function test_aRevokedCertificateNeedsNoLevel() public {
        Case memory c = sgxCase();
        c.pck.pceSvn = PCE_SVN - 2;
        bytes memory proof = challengeOf(c);
        vm.expectRevert(abi.encodeWithSelector(IDcapVerifier.DcapVerifier_LevelNotMet.selector, 0));
        verifier.judge(proof);
        store.revoke();
        assertEq(_judged(c), TcbStatus.REVOKED);
    }

    /// @dev Else a challenge could be made with versions that the quote did not have.
    function test_everyVersionIsInTheDigest(uint256 which) public view {
        Case memory c = tdxCase(5);
        IDcapVerifier.Versions memory v = versionsOf(c);
        bytes memory words = abi.encode(v);
        bytes32 digest = check(c).svnDigest;
        assertEq(digest, sha256(bytes.concat(SVN_TAG, words)));
        which = bound(which, 0, 6);
        if (which == 0) c.pck.cpuSvn = 0xFF0e0303ffff01000000000000000000;
        if (which == 1) ++c.pck.pceSvn;
        if (which == 2) put(c.body, 0, hex"06");
        if (which == 3) put(c.body, TEE_TCB_SVN2_AT, hex"06");
        if (which == 4) put(c.qeReport, 258, little2(QE_SVN + 1));
        if (which == 5) ++c.pck.serial;
        if (which == 6) c.pck.issuer = 0;
        assertFalse(check(c).svnDigest == digest);
    }

    function _withEarlier(Case memory c, uint32 evaluation) private pure returns (Case memory) {
        c.earlier = new Collateral[](1);
        c.earlier[0] = collateralFor(c.body.length == 384 ? TeeKind.SGX : TeeKind.TDX);
        c.earlier[0].tcb.evaluation = evaluation;
        c.earlier[0].qe.evaluation = evaluation;
        return c;
    }

    function _judged(Case memory c) private view returns (uint8) {
        (,, IEvidenceVerifier.Judgement memory j) = verifier.judge(challengeOf(c));
        return j.tcbStatus;
    }
}
