// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "./IDcapCollateral.sol";
import {IEvidenceVerifier} from "./IEvidenceVerifier.sol";

/// @title DcapVerifier
/// @notice Verifies Intel DCAP quotes: SGX version 3, TDX versions 4 and 5. It holds nothing and trusts one collateral store.
///
/// Sources: Intel SGX ECDSA Quote Library Reference, appendix A.4; Intel TDX DCAP Quoting Library API, appendix A.3; Intel SGX
/// and TDX PCS API, "TCB level evaluation"; for what it takes and refuses: dcap-qvl 0.7.0, of which it takes a subset.
interface IDcapVerifier is IEvidenceVerifier {
    /// @notice Evidence of a platform, for `verify`: abi.encode(Evidence).
    /// @param quote the quote from its first byte up to its certification data, whose type and size are the last six bytes:
    /// the PEM chain stays at home
    /// @param pck the platform's certificate, as posted
    /// @param current collateral that is in its dates
    /// @param earlier none, or collateral of an earlier evaluation, for agreements with a grace
    struct Evidence {
        bytes quote;
        IDcapCollateral.Pck pck;
        Proof current;
        Proof[] earlier;
    }

    /// @notice Collateral, and where in it a platform stands.
    /// @param levels the levels from the best down to the one that the platform meets, which is the last: each one before it
    /// must fail
    /// @param rest hash of the levels behind that, zero when there are none
    /// @param modules digests of all TDX modules, in order; none for SGX
    /// @param module the one that TEE_TCB_SVN names, and behind it that of TEE_TCB_SVN2 where its version is another; none for
    /// SGX
    struct Proof {
        IDcapCollateral.TcbInfo tcb;
        IDcapCollateral.TcbLevel[] levels;
        bytes32 rest;
        bytes32[] modules;
        IDcapCollateral.TdxModule[] module;
        IDcapCollateral.QeIdentity qe;
    }

    /// @notice Every version that a status is judged by. Its digest is sha256(abi.encode(SVN_TAG, Versions)), and `judge`
    /// takes abi.encode(Versions, Proof).
    struct Versions {
        uint8 tee;
        bytes6 fmspc;
        bytes2 pceId;
        bytes16 cpuSvn;
        uint16 pceSvn;
        bytes16 teeTcbSvn;
        bytes16 teeTcbSvn2;
        uint16 qeSvn;
        uint160 pckSerial;
        bytes32 pckIssuer;
    }

    // The quote
    error DcapVerifier_TooShort(uint256 length, uint256 needed);
    error DcapVerifier_TrailingBytes(uint256 length, uint256 end);
    error DcapVerifier_BadHeader(string field);
    error DcapVerifier_BadLength(string field, uint256 got, uint256 expected);
    error DcapVerifier_ReservedBytes(string field);
    error DcapVerifier_WrongCertificationType(uint256 got);
    /// @dev R4
    error DcapVerifier_Debug();
    /// @dev R3
    error DcapVerifier_BadTdAttributes(bytes8 attributes);
    /// @dev R3
    error DcapVerifier_ServiceTd();
    /// @dev R2: the second half of the report data is not zero.
    error DcapVerifier_ReportDataNotZero();
    // Signatures
    error DcapVerifier_BadQuoteSignature();
    error DcapVerifier_BadQeSignature();
    error DcapVerifier_KeyNotBound();
    // The quoting enclave
    error DcapVerifier_WrongQe(string field);
    error DcapVerifier_QeTooOld(uint16 isvSvn);
    // The platform
    error DcapVerifier_WrongTee(uint8 got, uint8 expected);
    error DcapVerifier_WrongFmspc(bytes6 got, bytes6 expected);
    error DcapVerifier_WrongPceId(bytes2 got, bytes2 expected);
    error DcapVerifier_WrongLevels();
    error DcapVerifier_WrongModules();
    error DcapVerifier_WrongModule(uint8 got, uint8 expected);
    error DcapVerifier_BadModule(string field);
    error DcapVerifier_ModuleTooOld(uint8 isvSvn);
    /// @dev The named level is not met.
    error DcapVerifier_LevelNotMet(uint256 index);
    /// @dev A better level is met.
    error DcapVerifier_BetterLevelMet(uint256 index);
    error DcapVerifier_Revoked();
    error DcapVerifier_NotEarlier(uint32 got, uint32 current);

    function collateral() external view returns (IDcapCollateral);
}
