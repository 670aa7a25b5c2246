// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title DcapCollateral
/// @notice What Intel signs about its platforms, posted by anyone, under one pinned root for ever (R4, R21).
///
/// Everything is checked to the root once, when it is posted. What a registration needs again is kept as a digest: whoever
/// registers brings the parts, which cost less in calldata than in storage. Times are unix seconds. A piece does not count
/// any more at the time at which it ends, as dcap-qvl has it.
///
/// | piece        | signed by            | kept under                        | replaced by            |
/// |--------------|----------------------|-----------------------------------|------------------------|
/// | issuer       | the root             | SHA-256 of its TBSCertificate     | nothing                |
/// | PCK          | an issuer that is a CA | digest of its parts             | nothing                |
/// | revocation list | the root, or a CA | its issuer                        | a later issue          |
/// | TCB info     | an issuer that is none | TEE, FMSPC, evaluation number   | a later issue          |
/// | QE identity  | an issuer that is none | TEE, evaluation number          | a later issue          |
///
/// A posted piece need not be valid yet or still: the dates are checked whenever it is used. Evaluation numbers do go back
/// and forth legitimately, so each number has a place of its own; agreements state the oldest that they take.
/// Sources: Intel SGX PCK Certificate and CRL Profile Specification; Intel PCS API v4 (TCB info v3, QE identity v2); RFC 5280.
interface IDcapCollateral {
    /// @notice A platform's certificate, taken apart.
    /// @param x, y its public key on P-256
    /// @param platform SHA-256 of the PPID
    /// @param serial the certificate's
    /// @param issuer SHA-256 of what is signed of the CA's certificate (TBSCertificate): of a signature, everyone can make another
    struct Pck {
        bytes32 x;
        bytes32 y;
        bytes32 platform;
        bytes32 issuer;
        bytes16 cpuSvn;
        bytes6 fmspc;
        bytes2 pceId;
        uint16 pceSvn;
        uint160 serial;
        uint40 notBefore;
        uint40 notAfter;
    }

    /// @notice TCB info but for its levels and modules.
    /// @param tee TeeKind
    /// @param changedAt tcbDate of the best level
    /// @param levels hash chain over the levels in Intel's order: keccak256(abi.encode(TcbLevel, hash of the rest)), zero at the end
    /// @param modules keccak256 of the concatenated digests of the TDX modules; zero for SGX
    /// @param signer SHA-256 of what is signed of the signer's certificate
    struct TcbInfo {
        uint8 tee;
        bytes6 fmspc;
        bytes2 pceId;
        uint32 evaluation;
        uint40 issuedAt;
        uint40 nextUpdate;
        uint40 changedAt;
        bytes32 levels;
        bytes32 modules;
        bytes32 signer;
    }

    /// @param components SGX components 1 to 16, then TDX components 1 to 16 (zeros for SGX), one byte each
    /// @param date tcbDate
    struct TcbLevel {
        bytes32 components;
        uint16 pceSvn;
        uint8 status;
        uint40 date;
    }

    /// @param version 0 for `tdxModule`, n for the identity "TDX_n" (hexadecimal)
    /// @param mrSigner 48 bytes, MRSIGNERSEAM
    /// @param levels one word each, highest ISVSVN first: ISVSVN << 48 | status << 40 | tcbDate; none for version 0
    struct TdxModule {
        uint8 version;
        bytes mrSigner;
        bytes8 attributes;
        bytes8 attributesMask;
        uint256[] levels;
    }

    /// @param levels as in TdxModule, by the quoting enclave's ISVSVN
    /// @param signer SHA-256 of what is signed of the signer's certificate
    struct QeIdentity {
        uint8 tee;
        uint32 evaluation;
        uint40 issuedAt;
        uint40 nextUpdate;
        bytes4 miscSelect;
        bytes4 miscSelectMask;
        bytes16 attributes;
        bytes16 attributesMask;
        bytes32 mrSigner;
        uint16 isvProdId;
        uint256[] levels;
        bytes32 signer;
    }

    /// @notice A certificate that the root signed.
    /// @param ca whether it may issue PCK certificates and their revocation list; if not, it signs TCB info and QE identities
    struct Issuer {
        bytes32 x;
        bytes32 y;
        bytes32 name;
        uint160 serial;
        uint40 notBefore;
        uint40 notAfter;
        bool ca;
    }

    /// @notice A revocation list. `serials` says where the revoked serial numbers are; zero where there is none.
    struct Crl {
        uint40 issuedAt;
        uint40 nextUpdate;
        address serials;
    }

    event IssuerPosted(bytes32 indexed issuer, Issuer parts);
    event PckPosted(bytes32 indexed digest, bytes32 indexed platform, Pck parts);
    event CrlPosted(bytes32 indexed issuer, uint40 issuedAt, uint40 nextUpdate, uint256 revoked);
    event TcbInfoPosted(
        uint8 indexed tee, bytes6 indexed fmspc, uint32 indexed evaluation, uint40 issuedAt, uint40 nextUpdate
    );
    event QeIdentityPosted(uint8 indexed tee, uint32 indexed evaluation, uint40 issuedAt, uint40 nextUpdate);

    /// @dev R4: a root that is not Intel's, on a chain that is not a development chain.
    error DcapCollateral_NotADevelopmentChain(uint256 chainId);
    /// @dev The precompile at 0x100 (EIP-7951) is not there.
    error DcapCollateral_NoP256();
    error DcapCollateral_BadSignature(bytes32 signer);
    error DcapCollateral_UnknownIssuer(bytes32 issuer);
    /// @dev A CA where a signer is wanted, or the other way round.
    error DcapCollateral_WrongIssuer(bytes32 issuer);
    error DcapCollateral_NotNewer(uint40 issuedAt, uint40 known);
    // Standing of what is used
    error DcapCollateral_UnknownPck(bytes32 digest);
    error DcapCollateral_NotCurrent(bytes32 key, bytes32 got, bytes32 expected);
    error DcapCollateral_NoCrl(bytes32 issuer);
    error DcapCollateral_NotYetValid(bytes32 what, uint40 start, uint256 time);
    error DcapCollateral_Expired(bytes32 what, uint40 end, uint256 time);
    error DcapCollateral_Revoked(bytes32 issuer, uint160 serial);

    /// @notice Keeps a certificate that the root signed: a PCK CA, or the TCB signing certificate.
    /// @param certificate DER
    /// @return issuer SHA-256 of it
    function postIssuer(bytes calldata certificate) external returns (bytes32 issuer);

    /// @notice Keeps a platform's certificate.
    function postPck(bytes calldata certificate, bytes32 issuer) external returns (bytes32 digest);

    /// @param crl DER
    /// @param issuer whose list it is: `anchor` for the root's
    function postCrl(bytes calldata crl, bytes32 issuer) external;

    /// @param json exactly as signed
    /// @param signature r ‖ s
    function postTcbInfo(bytes calldata json, bytes calldata signature, bytes32 signer)
        external
        returns (bytes32 digest);

    function postQeIdentity(bytes calldata json, bytes calldata signature, bytes32 signer)
        external
        returns (bytes32 digest);

    /// @notice SHA-256 of the root certificate.
    function anchor() external view returns (bytes32);

    function issuer(bytes32 digest) external view returns (Issuer memory);

    function crl(bytes32 issuer_) external view returns (Crl memory);

    function isPck(bytes32 digest) external view returns (bool);

    /// @return digest zero when there is none
    function tcbInfo(uint8 tee, bytes6 fmspc, uint32 evaluation) external view returns (bytes32 digest, uint40 issuedAt);

    function qeIdentity(uint8 tee, uint32 evaluation) external view returns (bytes32 digest, uint40 issuedAt);

    // What a registration rests on. Digests are keccak256(abi.encode(the struct)), so no part of it can be another (R3).

    /// @notice Everything that a quote rests on: posted, the newest of its key, in its dates, signed by certificates in
    /// their dates, and neither the platform's certificate nor any of those revoked by a list that is in its dates. Reverts for
    /// whatever is not so.
    /// @return end the last second in which all that holds, the root's own dates included
    function check(Pck calldata pck, TcbInfo calldata tcb, QeIdentity calldata qe) external view returns (uint40 end);

    /// @notice The same for a platform that was checked before.
    function checkCollateral(TcbInfo calldata tcb, QeIdentity calldata qe) external view returns (uint40 end);

    /// @notice Posted, the newest of its key, and signed by what the root has not revoked, though it may have ended since.
    function checkEarlier(TcbInfo calldata tcb, QeIdentity calldata qe) external view;

    /// @notice Whether a CA revoked one of its certificates, or the root that CA. Lists in their dates are wanted.
    function isRevoked(bytes32 issuer_, uint160 serial) external view returns (bool);
}
