"""Trust anchors: the makers', pinned in this package, and development roots, passed in and kept off public chains (R4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from cryptography import x509

from oracle.attestation.errors import Code, RootError

INTEL_ROOT_DIGEST: Final = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")

MAKERS: Final = {
    "intel": {INTEL_ROOT_DIGEST: "intel-sgx-root-ca.der"},
    "amd": {
        bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"): "amd-ark-milan.der",
        bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"): "amd-ark-genoa.der",
        bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"): "amd-ark-turin.der",
    },
    "aws": {
        bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"): "aws-nitro-root-g1.der",
    },
}
"""Each maker's roots: SHA-256 of the certificate's DER, and its file in `roots`. AMD has one for each processor generation."""

MAX_ROOT: Final = 1 << 16
"""Bytes of a root certificate's file."""

PUBLIC_CHAINS: Final = {
    1: "Ethereum",
    10: "OP Mainnet",
    25: "Cronos",
    30: "Rootstock",
    56: "BNB Smart Chain",
    97: "BNB Testnet",
    100: "Gnosis",
    130: "Unichain",
    137: "Polygon",
    146: "Sonic",
    169: "Manta",
    204: "opBNB",
    250: "Fantom",
    252: "Fraxtal",
    288: "Boba",
    300: "zkSync Sepolia",
    324: "zkSync Era",
    480: "World Chain",
    1088: "Metis",
    1101: "Polygon zkEVM",
    1135: "Lisk",
    1284: "Moonbeam",
    1285: "Moonriver",
    1329: "Sei",
    1868: "Soneium",
    2020: "Ronin",
    5000: "Mantle",
    7777777: "Zora",
    8217: "Kaia",
    8453: "Base",
    10200: "Gnosis Chiado",
    13371: "Immutable zkEVM",
    17000: "Holesky",
    33139: "ApeChain",
    34443: "Mode",
    42161: "Arbitrum One",
    42170: "Arbitrum Nova",
    42220: "Celo",
    43113: "Avalanche Fuji",
    43114: "Avalanche",
    57073: "Ink",
    59141: "Linea Sepolia",
    59144: "Linea",
    80002: "Polygon Amoy",
    80069: "Berachain Bepolia",
    80094: "Berachain",
    81457: "Blast",
    84532: "Base Sepolia",
    167000: "Taiko",
    421614: "Arbitrum Sepolia",
    534351: "Scroll Sepolia",
    534352: "Scroll",
    560048: "Hoodi",
    1313161554: "Aurora",
    11155111: "Sepolia",
    11155420: "OP Sepolia",
}
"""Chains that strangers use, test networks included: a simulated enclave there could be taken for a real one."""


def intel_root() -> bytes:
    """DER of the pinned Intel SGX Root CA. Raises RootError when the installed file is not that certificate."""
    return maker_roots("intel")[INTEL_ROOT_DIGEST]


def maker_roots(maker: str) -> dict[bytes, bytes]:
    """DER of a maker's pinned roots by digest. Raises RootError when an installed file is not the pinned certificate."""
    found = {}
    for pinned, name in MAKERS[maker].items():
        der = resources.files("oracle.attestation").joinpath("roots", name).read_bytes()
        digest = hashlib.sha256(der).digest()
        if digest != pinned:
            raise RootError(
                Code.ROOT_FORMAT,
                found=f"{name} with digest {digest.hex()}",
                expected=pinned.hex(),
                action="reinstall this package",
            )
        found[digest] = der
    return found


def load_root(der: bytes) -> x509.Certificate:
    """A root certificate from DER, issued by itself. Raises RootError.

    dcap-qvl 0.7.0 aborts the process over a root whose issuer has another name than the root: an assertion in its walk over
    revocation lists.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        same = certificate.subject.public_bytes() == certificate.issuer.public_bytes()
    except (ValueError, x509.InvalidVersion) as cause:
        raise RootError(
            Code.ROOT_FORMAT,
            found=f"an unreadable root ({cause})",
            expected="one certificate in DER",
            action="pass the root certificate as DER, not PEM",
        ) from cause
    if not same:
        raise RootError(
            Code.ROOT_FORMAT,
            found="a certificate that somebody else issued",
            expected="a root, issued by itself",
            action="pass the root, not an intermediate certificate",
        )
    return certificate


@dataclass(frozen=True)
class DevelopmentRoot:
    """A root made for one devnet, in DER. It vouches for simulated enclaves only."""

    der: bytes

    def __post_init__(self) -> None:
        load_root(self.der)

    @property
    def digest(self) -> bytes:
        """The trust anchor digest: SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    def refuse_on_public_chain(self, chain_id: int) -> None:
        """Raises RootError when `chain_id` is a known public chain (R4)."""
        if chain_id in PUBLIC_CHAINS:
            raise RootError(
                Code.ROOT_ON_PUBLIC_CHAIN,
                found=f"a development root on chain {chain_id} ({PUBLIC_CHAINS[chain_id]})",
                expected="Intel's root, or a private development chain",
                action="remove the development root from the configuration",
            )
