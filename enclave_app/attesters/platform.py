"""Development platforms: a new root, and everything Intel would publish about the machines under it (R4).

    python -m enclave_app.attesters.platform DIR [--now UNIX] [--days N] [--platforms N]

The root, CA and TCB signing keys live only in the process that made them and are never written, so what was minted
for one devnet cannot be extended afterwards. DIR receives root.der, chain.pem, pck.key (mode 0600), platform.json
and collateral.json; with several platforms the first goes to DIR and the others to DIR-1, DIR-2, …

Sources: Intel SGX PCK Certificate and CRL Profile Specification; Intel PCS API v4 (TCB info v3, QE identity v2).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enclave_app.attesters.base import PlatformError
from enclave_app.attesters.collateral import CollateralSpec, mint_collateral
from enclave_app.attesters.development_pki import Issuer, certificate_pem
from enclave_app.attesters.sgx_extension import OID, encode_sgx_extension
from enclave_app.protocol.canonical import load
from enclave_app.protocol.errors import Refused

CLOCK_SKEW_SECONDS: Final = 3600
"""How long before `now` everything becomes valid, so that a neighbour with a slower clock accepts it."""
DEFAULT_DAYS: Final = 30
DAY: Final = 86_400

DEVELOPMENT_FMSPC: Final = bytes.fromhex("dec0de000000")
DEVELOPMENT_CPU_SVN: Final = bytes.fromhex("0e0e0303ffff01000000000000000000")
DEVELOPMENT_PCE_SVN: Final = 13
PCE_ID: Final = bytes(2)

MAX_VALUES: Final = 1 << 16
"""Bytes of platform.json."""
FILES: Final = ("root.der", "chain.pem", "pck.key", "platform.json", "collateral.json")


@dataclass(frozen=True)
class Platform:
    """One development machine: its PCK key, the chain up to the root (leaf first), and its PCK's SGX values."""

    pck_key: ec.EllipticCurvePrivateKey
    chain_pem: bytes
    root_der: bytes
    serial: int
    ppid: bytes
    fmspc: bytes
    cpu_svn: bytes
    pce_svn: int

    def __repr__(self) -> str:
        return f"Platform(ppid={self.ppid.hex()}, fmspc={self.fmspc.hex()}, pck_key=***)"

    def write(self, directory: Path, collateral: dict[str, str]) -> None:
        """Write FILES into `directory`. Raises PlatformError when one of them is already there."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        values = {
            "serial": f"{self.serial:x}",
            "ppid": self.ppid.hex(),
            "fmspc": self.fmspc.hex(),
            "cpu_svn": self.cpu_svn.hex(),
            "pce_svn": self.pce_svn,
        }
        key_pem = self.pck_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        contents = {
            "root.der": self.root_der,
            "chain.pem": self.chain_pem,
            "pck.key": key_pem,
            "platform.json": json.dumps(values, indent=1).encode(),
            "collateral.json": json.dumps(collateral, indent=1).encode(),
        }
        for name in FILES:
            _write_new(directory / name, contents[name], 0o600 if name == "pck.key" else 0o644)

    @classmethod
    def load(cls, directory: Path) -> Platform:
        """Read what `write` wrote. Raises PlatformError for a missing or malformed file."""
        try:
            values = load((directory / "platform.json").read_bytes(), limit=MAX_VALUES, canonical=False)
            key = serialization.load_pem_private_key((directory / "pck.key").read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError("pck.key is not an elliptic-curve key")
            return cls(
                pck_key=key,
                chain_pem=(directory / "chain.pem").read_bytes(),
                root_der=(directory / "root.der").read_bytes(),
                serial=int(values["serial"], 16),
                ppid=bytes.fromhex(values["ppid"]),
                fmspc=bytes.fromhex(values["fmspc"]),
                cpu_svn=bytes.fromhex(values["cpu_svn"]),
                pce_svn=int(values["pce_svn"]),
            )
        except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm, Refused) as cause:
            raise PlatformError(
                f"{directory} holds no usable development platform ({cause}); expected the files {', '.join(FILES)}; "
                "make one with: python -m enclave_app.attesters.platform DIR"
            ) from cause


class DevelopmentAuthority:
    """A development root with its PCK CA and TCB signer, in memory only. `now` in unix seconds."""

    def __init__(self, now: int, days: int = DEFAULT_DAYS, fmspc: bytes = DEVELOPMENT_FMSPC) -> None:
        self._not_before = now - CLOCK_SKEW_SECONDS
        self._not_after = now + days * DAY
        self._now = now
        self._days = days
        self._fmspc = fmspc
        # The random part keeps two devnets' roots apart for a reader; their keys differ anyway.
        name = secrets.token_hex(4)
        window = (_utc(self._not_before), _utc(self._not_after))
        self._root = Issuer.root(f"Enclave Oracle DEVELOPMENT SGX Root CA {name}", window)
        self._pck_ca = self._root.authority(f"Enclave Oracle DEVELOPMENT SGX PCK Platform CA {name}")
        self._tcb = self._root.leaf(f"Enclave Oracle DEVELOPMENT SGX TCB Signing {name}")

    @property
    def root_der(self) -> bytes:
        return self._root.certificate.public_bytes(serialization.Encoding.DER)

    def issue_platform(
        self,
        ppid: bytes | None = None,
        cpu_svn: bytes = DEVELOPMENT_CPU_SVN,
        pce_svn: int = DEVELOPMENT_PCE_SVN,
    ) -> Platform:
        """A new machine under this root; `ppid` is 16 bytes, random unless given."""
        ppid = secrets.token_bytes(16) if ppid is None else ppid
        extension = x509.UnrecognizedExtension(
            x509.ObjectIdentifier(OID), encode_sgx_extension(ppid, cpu_svn, pce_svn, PCE_ID, self._fmspc)
        )
        leaf = self._pck_ca.leaf("Enclave Oracle DEVELOPMENT SGX PCK Certificate", extension)
        chain = (leaf.certificate, self._pck_ca.certificate, self._root.certificate)
        return Platform(
            pck_key=leaf.key,
            chain_pem=b"".join(certificate_pem(c) for c in chain),
            root_der=self.root_der,
            serial=leaf.certificate.serial_number,
            ppid=ppid,
            fmspc=self._fmspc,
            cpu_svn=cpu_svn,
            pce_svn=pce_svn,
        )

    def collateral(
        self,
        spec: CollateralSpec | None = None,
        *,
        now: int | None = None,
        days: int | None = None,
        revoked: Sequence[Platform] = (),
    ) -> dict[str, str]:
        """Signed collateral as the nine strings of dcap-qvl's QuoteCollateralV3 JSON.

        Valid from an hour before `now` until `days` after it (both the authority's own unless given).
        """
        at = self._now if now is None else now
        length = self._days if days is None else days
        return mint_collateral(
            root=self._root,
            pck_ca=self._pck_ca,
            tcb=self._tcb,
            fmspc=self._fmspc,
            spec=spec or CollateralSpec(DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN),
            window=(_utc(at - CLOCK_SKEW_SECONDS), _utc(at + length * DAY)),
            revoked=[platform.serial for platform in revoked],
        )


def make_platforms(directory: Path, now: int, days: int = DEFAULT_DAYS, count: int = 1) -> list[Path]:
    """Write `count` platforms under one new root and return their directories. Raises PlatformError."""
    if count < 1 or days < 1:
        raise PlatformError(f"asked for {count} platforms valid {days} days; expected at least 1 of each")
    authority = DevelopmentAuthority(now, days)
    collateral = authority.collateral()
    directories = [directory, *(directory.with_name(f"{directory.name}-{i}") for i in range(1, count))]
    for each in directories:
        authority.issue_platform().write(each, collateral)
    return directories


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as cause:
        raise PlatformError(f"{path} exists; a development platform is made new each time: give a new directory") from (
            cause
        )
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m enclave_app.attesters.platform", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("directory", type=Path)
    parser.add_argument("--now", type=int, help="unix seconds (default: this machine's clock)")
    parser.add_argument("--days", type=int, default=DEFAULT_DAYS, help="how long everything stays valid")
    parser.add_argument("--platforms", type=int, default=1, help="how many machines under this one root")
    options = parser.parse_args(arguments)
    now = int(time.time()) if options.now is None else options.now
    try:
        for made in make_platforms(options.directory.absolute(), now, options.days, options.platforms):
            print(made)
    except PlatformError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
