"""Collateral in a folder: one file for a platform and evaluation, which other programs may read and write as well.

sgx-00906ed50000.json          Intel's standard evaluation
sgx-00906ed50000-early.json    the coming one
sgx-00906ed50000-17.json       that of a number
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final

from oracle.attestation import Collateral, Tee
from oracle.attestation.collateral import MAX_COLLATERAL_BYTES, pem_chain
from oracle.collateral.pcs import Feed
from oracle.collateral.platform import Ca, Platform, ca_of
from oracle.errors import Refused
from oracle.files import read_file

_NAME: Final = re.compile(r"(sgx|tdx)-([0-9a-f]{12})\.json", re.ASCII)
MAX_PLATFORMS: Final = 64
"""Kinds of machines that are kept fresh. Intel has published some dozens in all."""


class Files:
    """Files of collateral, read again when they change."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int], Collateral]] = {}

    def read(self, path: Path) -> Collateral:
        """Raises OSError, Refused `file.*` and CollateralError."""
        status = path.stat()
        state = status.st_mtime_ns, status.st_ino
        known = self._read.get(path)
        if known is None or known[0] != state:
            known = self._read[path] = state, Collateral.from_json(read_file(path, MAX_COLLATERAL_BYTES))
        return known[1]


class Cache:
    """What was fetched. `directory` is made when something is put there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = Files()

    def path(self, platform: Platform, feed: Feed = "standard") -> Path:
        return self.directory / f"{platform.name}{'' if feed == 'standard' else f'-{feed}'}.json"

    def get(self, platform: Platform, feed: Feed = "standard") -> Collateral | None:
        """None where there is none that can be read, or only another CA's: fetching mends each of these."""
        try:
            collateral = self._files.read(self.path(platform, feed))
            return collateral if _ca(collateral) == platform.ca else None
        except (OSError, Refused):
            return None

    def put(self, platform: Platform, feed: Feed, collateral: Collateral) -> Path:
        """Also under its number, for a platform that will be judged by an earlier evaluation. Raises Refused `file.write`."""
        path, data = self.path(platform, feed), collateral.to_json().encode()
        # That first: whoever finds collateral under its feed's name finds it under its number too, also after a crash.
        for each in dict.fromkeys((self.path(platform, evaluation_of(collateral)), path)):
            write_whole(each, data)
        return path

    def platforms(self) -> tuple[Platform, ...]:
        """Those that something is held of, at most `MAX_PLATFORMS`."""
        found: list[Platform] = []
        for path in sorted(self.directory.glob("*.json")):
            match = _NAME.fullmatch(path.name)
            if match is None or len(found) == MAX_PLATFORMS:
                continue
            try:
                found.append(Platform(Tee[match[1].upper()], bytes.fromhex(match[2]), _ca(self._files.read(path))))
            except (OSError, Refused):
                continue
        return tuple(found)

    def evaluations(self, platform: Platform) -> tuple[Collateral, ...]:
        """All that is held of a platform, one for each evaluation, the highest first; ended ones, too."""
        pattern = re.compile(re.escape(platform.name) + r"-([0-9]{1,10})\.json", re.ASCII)
        found = {int(m[1]) for path in self.directory.glob("*.json") if (m := pattern.fullmatch(path.name))}
        held = [self.get(platform, number) for number in sorted(found, reverse=True)]
        return tuple(each for each in held if each is not None)


def evaluation_of(collateral: Collateral) -> int:
    """As the contract has it: the lower of the two numbers."""
    return min(collateral.tcb_evaluation, collateral.qe_evaluation)


def write_whole(path: Path, data: bytes) -> None:
    """A new file renamed over the old one, so that no reader sees half of it. Raises Refused `file.write`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        made = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            made.chmod(0o644)
            made.replace(path)
        except BaseException:
            made.unlink()
            raise
    except OSError as error:
        raise Refused("file.write", f"cannot write {path}", found=error.strerror) from error


def _ca(collateral: Collateral) -> Ca:
    return ca_of(pem_chain(collateral.pck_crl_issuer_chain)[0].subject)
