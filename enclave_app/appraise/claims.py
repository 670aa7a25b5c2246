"""What verified evidence claims, whichever maker signed it. Nobody has yet said that it is wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from enclave_app.protocol.structs import Tee

SVN_TAG: Final = hashlib.sha256(b"enclave-oracle/svn/1").digest()


@dataclass(frozen=True)
class Claims:
    """Digests are 32 bytes, times unix seconds; at `valid_until` the claims no longer hold.

    `root` is SHA-256 of the root certificate's DER, `platform` of what names the machine, `svn_digest` of every version that
    its TCB is judged by, `collateral` of all certificates and lists that it was verified with.
    """

    tee: Tee
    measurement: bytes
    report_data: bytes
    root: bytes
    platform: bytes
    svn_digest: bytes
    collateral: bytes
    verified_at: int
    valid_until: int


def svn_digest(tee: Tee, *versions: bytes) -> bytes:
    return hashlib.sha256(SVN_TAG + bytes([tee]) + b"".join(versions)).digest()


def digest_of(documents: Iterable[bytes]) -> bytes:
    """SHA-256 over each document behind its length in 4 bytes, big-endian."""
    digest = hashlib.sha256()
    for each in documents:
        digest.update(len(each).to_bytes(4, "big") + each)
    return digest.digest()
