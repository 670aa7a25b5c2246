"""Trust anchors: Intel's, pinned in this package, and development roots, passed in and kept off public chains (R4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from cryptography import x509

from oracle.attestation.errors import Code, RootError

INTEL_ROOT_DIGEST: Final = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")

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
    der = resources.files("oracle.attestation").joinpath("roots/intel-sgx-root-ca.der").read_bytes()
    digest = hashlib.sha256(der).digest()
    if digest != INTEL_ROOT_DIGEST:
        raise RootError(
            Code.ROOT_FORMAT,
            found=f"an Intel root with digest {digest.hex()}",
            expected=INTEL_ROOT_DIGEST.hex(),
            action="reinstall this package",
        )
    return der


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
