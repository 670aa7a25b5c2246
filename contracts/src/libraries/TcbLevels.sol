// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../interfaces/IDcapCollateral.sol";
import {IDcapVerifier} from "../interfaces/IDcapVerifier.sol";
import {TcbStatus, TeeKind} from "./Constants.sol";

/// @title The TCB status of a platform's versions
/// @dev Sources: Intel PCS API v4, "TCB level evaluation"; dcap-qvl 0.7.0, which follows Intel's QVL, for how the parts of a
/// status come together and for which statuses each part may have.
library TcbLevels {
    /// @dev Every second byte, and the bit above each of them.
    uint256 private constant BYTES = 0x00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF;
    uint256 private constant BORROW = 0x0100010001000100010001000100010001000100010001000100010001000100;
    /// @dev TDX components 1 and 2: the module's ISVSVN and version.
    uint256 private constant MODULE_COMPONENTS = 0xFFFF << 112;

    // One bit for each status that Intel's QVL takes from a part.
    uint256 private constant TCB_INFO_STATUSES = 0xFE;
    uint256 private constant MODULE_STATUSES =
        1 << TcbStatus.UP_TO_DATE | 1 << TcbStatus.OUT_OF_DATE | 1 << TcbStatus.REVOKED;
    uint256 private constant QE_STATUSES =
        MODULE_STATUSES | 1 << TcbStatus.CONFIGURATION_NEEDED | 1 << TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;

    /// @notice `proof` is about a platform with these versions.
    function checkPlatform(IDcapVerifier.Versions memory v, IDcapVerifier.Proof calldata proof) internal pure {
        IDcapCollateral.TcbInfo calldata tcb = proof.tcb;
        if (tcb.tee != v.tee) revert IDcapVerifier.DcapVerifier_WrongTee(tcb.tee, v.tee);
        uint8 tee = proof.qe.tee;
        if (tee != v.tee) revert IDcapVerifier.DcapVerifier_WrongTee(tee, v.tee);
        if (tcb.fmspc != v.fmspc) revert IDcapVerifier.DcapVerifier_WrongFmspc(tcb.fmspc, v.fmspc);
        if (tcb.pceId != v.pceId) revert IDcapVerifier.DcapVerifier_WrongPceId(tcb.pceId, v.pceId);
    }

    /// @notice The status of `v` under `proof`: the caller has checked its parts with the store, and that it is about this platform.
    function statusOf(IDcapVerifier.Versions memory v, IDcapVerifier.Proof calldata proof)
        internal
        pure
        returns (uint8 status)
    {
        IDcapCollateral.TcbLevel[] calldata levels = proof.levels;
        if (levels.length == 0 || _hash(levels, proof.rest) != proof.tcb.levels) {
            revert IDcapVerifier.DcapVerifier_WrongLevels();
        }
        uint8 qe = _qeStatus(v.qeSvn, proof.qe.levels);
        uint256 last = levels.length - 1;
        uint256 met = _firstMet(v, v.teeTcbSvn, levels);
        if (met > last) revert IDcapVerifier.DcapVerifier_LevelNotMet(last);
        if (met < last) revert IDcapVerifier.DcapVerifier_BetterLevelMet(met);
        status = _levelStatus(levels[met]);
        if (v.tee == TeeKind.SGX) {
            if (proof.modules.length + proof.module.length != 0) revert IDcapVerifier.DcapVerifier_WrongModules();
            return converge(status, qe);
        }

        if (_hash(proof.modules) != proof.tcb.modules) {
            revert IDcapVerifier.DcapVerifier_WrongModules();
        }
        bool relaunchable = v.teeTcbSvn2 != 0 && v.teeTcbSvn2 != v.teeTcbSvn;
        bool twoModules = relaunchable && v.teeTcbSvn2[1] != v.teeTcbSvn[1];
        if (proof.module.length != (twoModules ? 2 : 1)) revert IDcapVerifier.DcapVerifier_WrongModules();
        status = converge(converge(status, _moduleStatus(v.teeTcbSvn, proof.module[0], proof.modules)), qe);
        if (!relaunchable) return status;

        // The module was updated under the running TD. Its versions of now stand no lower than those of the launch, so the
        // level that they meet is among those shown.
        met = _firstMet(v, v.teeTcbSvn2, levels);
        if (met > last) revert IDcapVerifier.DcapVerifier_LevelNotMet(last);
        uint8 current = _moduleStatus(v.teeTcbSvn2, proof.module[twoModules ? 1 : 0], proof.modules);
        current = converge(converge(_levelStatus(levels[met]), current), qe);
        return relaunch(status, current);
    }

    /// @notice A platform's status with that of its TDX module or quoting enclave, of which only OUT_OF_DATE and REVOKED count.
    function converge(uint8 platform, uint8 part) internal pure returns (uint8) {
        if (part == TcbStatus.REVOKED) return TcbStatus.REVOKED;
        if (part != TcbStatus.OUT_OF_DATE) return platform;
        if (platform == TcbStatus.UP_TO_DATE || platform == TcbStatus.SW_HARDENING_NEEDED) {
            return TcbStatus.OUT_OF_DATE;
        }
        if (platform == TcbStatus.CONFIGURATION_NEEDED || platform == TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED) {
            return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
        }
        return platform;
    }

    /// @notice The status of a TD that was launched under `launch` and runs under `current`.
    function relaunch(uint8 launch, uint8 current) internal pure returns (uint8) {
        if (launch == TcbStatus.REVOKED || current == TcbStatus.REVOKED) return TcbStatus.REVOKED;
        bool outOfDate = launch == TcbStatus.OUT_OF_DATE || launch == TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
        // UP_TO_DATE to CONFIGURATION_AND_SW_HARDENING_NEEDED, in Intel's order of numbers here.
        if (!outOfDate || current > TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED) return launch;
        bool configuration = launch == TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
            || current == TcbStatus.CONFIGURATION_NEEDED || current == TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED;
        return configuration ? TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED : TcbStatus.TD_RELAUNCH_ADVISED;
    }

    /// @dev Words are hashed as they stand: one with bits beyond its type gives the hash of nothing that was posted.
    function _hash(IDcapCollateral.TcbLevel[] calldata levels, bytes32 rest) private pure returns (bytes32 hash) {
        hash = rest;
        assembly ("memory-safe") {
            let input := mload(0x40)
            for { let level := add(levels.offset, shl(7, levels.length)) } gt(level, levels.offset) {} {
                level := sub(level, 0x80)
                calldatacopy(input, level, 0x80)
                mstore(add(input, 0x80), hash)
                hash := keccak256(input, 0xa0)
            }
        }
    }

    function _hash(bytes32[] calldata digests) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let input := mload(0x40)
            calldatacopy(input, digests.offset, shl(5, digests.length))
            hash := keccak256(input, shl(5, digests.length))
        }
    }

    /// @dev keccak256(abi.encode(module)), for an MRSIGNER of 48 bytes.
    function _digest(IDcapCollateral.TdxModule calldata module) private pure returns (bytes32 digest) {
        bytes calldata mrSigner = module.mrSigner;
        uint256[] calldata levels = module.levels;
        if (mrSigner.length != 48) revert IDcapVerifier.DcapVerifier_BadModule("mrSigner");
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore(input, 0x20)
            calldatacopy(add(input, 0x20), module, 0xa0)
            mstore(add(input, 0x40), 0xa0) // where mrSigner is
            mstore(add(input, 0xa0), 0x100) // where levels are
            mstore(add(input, 0xc0), 48)
            mstore(add(input, 0x100), 0) // its padding, before the bytes before it
            calldatacopy(add(input, 0xe0), mrSigner.offset, 48)
            mstore(add(input, 0x120), levels.length)
            calldatacopy(add(input, 0x140), levels.offset, shl(5, levels.length))
            digest := keccak256(input, add(0x140, shl(5, levels.length)))
        }
    }

    /// @return index of the first level that is met, or the number of levels
    function _firstMet(IDcapVerifier.Versions memory v, bytes16 teeTcbSvn, IDcapCollateral.TcbLevel[] calldata levels)
        private
        pure
        returns (uint256 index)
    {
        uint256 versions = uint256(bytes32(v.cpuSvn)) | uint128(teeTcbSvn);
        // A module that has a version of its own is judged by that module's levels.
        uint256 judged = v.tee == TeeKind.TDX && teeTcbSvn[1] != 0 ? ~MODULE_COMPONENTS : type(uint256).max;
        for (; index < levels.length; ++index) {
            IDcapCollateral.TcbLevel calldata level = levels[index];
            if (v.pceSvn >= level.pceSvn && _covers(versions, uint256(level.components) & judged)) return index;
        }
    }

    /// @dev Whether each byte of `a` is at least that of `b`: with a bit set above each byte of `a`, subtracting that of `b`
    /// borrows it exactly where `b`'s is greater.
    function _covers(uint256 a, uint256 b) private pure returns (bool) {
        unchecked {
            uint256 even = (a & BYTES | BORROW) - (b & BYTES);
            uint256 odd = (a >> 8 & BYTES | BORROW) - (b >> 8 & BYTES);
            return even & odd & BORROW == BORROW;
        }
    }

    function _levelStatus(IDcapCollateral.TcbLevel calldata level) private pure returns (uint8 status) {
        status = level.status;
        if (TCB_INFO_STATUSES >> status & 1 == 0) revert IDcapVerifier.DcapVerifier_WrongLevels();
    }

    function _moduleStatus(bytes16 teeTcbSvn, IDcapCollateral.TdxModule calldata module, bytes32[] calldata modules)
        private
        pure
        returns (uint8 status)
    {
        uint8 version = uint8(teeTcbSvn[1]);
        if (module.version != version) revert IDcapVerifier.DcapVerifier_WrongModule(module.version, version);
        bytes32 digest = _digest(module);
        uint256 i;
        while (i < modules.length && modules[i] != digest) ++i;
        if (i == modules.length) revert IDcapVerifier.DcapVerifier_WrongModules();
        // The module without a version has no levels: the platform's judge it.
        if (version == 0) return TcbStatus.UP_TO_DATE;
        uint8 svn = uint8(teeTcbSvn[0]);
        status = _byIsvSvn(svn, module.levels);
        if (status == 0) revert IDcapVerifier.DcapVerifier_ModuleTooOld(svn);
        if (MODULE_STATUSES >> status & 1 == 0) revert IDcapVerifier.DcapVerifier_BadModule("status");
    }

    function _qeStatus(uint16 svn, uint256[] calldata levels) private pure returns (uint8 status) {
        status = _byIsvSvn(svn, levels);
        if (status == 0) revert IDcapVerifier.DcapVerifier_QeTooOld(svn);
        if (QE_STATUSES >> status & 1 == 0) revert IDcapVerifier.DcapVerifier_WrongQe("status");
    }

    /// @return 0 where every level asks for more
    function _byIsvSvn(uint256 svn, uint256[] calldata levels) private pure returns (uint8) {
        for (uint256 i; i < levels.length; ++i) {
            if (svn >= levels[i] >> 48) return uint8(levels[i] >> 40);
        }
        return 0;
    }
}
