"""Which attesters this machine could use, and why not the others.

    python -m enclave_app.attesters.detect [ROOT]      prints it as JSON, for `oracle doctor`

It only looks at files. ROOT stands for the file system.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enclave_app.attesters import configfs_tsm, dstack, gramine, nitro, occlum
from enclave_app.attesters.base import EvidenceError
from enclave_app.attesters.device import FILE_SYSTEM, under

HARDWARE: Final = ("nitro", "gramine", "occlum", "dstack", "tdx", "snp")
"""In the order in which `auto` takes them: what runs inside something else comes first."""

_GUESTS: Final = {"tdx": Path("/dev/tdx_guest"), "snp": Path("/dev/sev-guest")}
_GRAMINES_OWN: Final = "my_target_info"
"""Occlum, which has some of these pseudo-files as well, does not have this one."""


@dataclass(frozen=True)
class Finding:
    """`reason` says what makes `attester` usable here, or what it lacks."""

    attester: str
    usable: bool
    reason: str


def survey(root: Path = FILE_SYSTEM) -> tuple[Finding, ...]:
    """One finding for each of HARDWARE, in its order. Never `software`: simulation is only ever named (R4)."""
    return tuple(Finding(kind, *_look(kind, root)) for kind in HARDWARE)


def _look(kind: str, root: Path) -> tuple[bool, str]:
    if kind == "nitro":
        return _device(root, nitro.DEVICE, writable=True)
    if kind == "gramine":
        return _gramine(root)
    if kind == "occlum":
        return _occlum(root)
    if kind == "dstack":
        return _device(root, dstack.SOCKET, writable=True)
    usable, reason = _device(root, _GUESTS[kind], writable=False)
    reports = under(root, configfs_tsm.REPORTS)
    if not usable or reports.is_dir():
        return usable, reason
    return (
        False,
        f"{reason}, but no {configfs_tsm.REPORTS}: Linux 6.7 or newer, configfs mounted, module tsm_report loaded",
    )


def _gramine(root: Path) -> tuple[bool, str]:
    directory = under(root, gramine.DIRECTORY)
    if not (directory / _GRAMINES_OWN).exists():
        return False, f"no {gramine.DIRECTORY}/{_GRAMINES_OWN}: not inside Gramine with SGX"
    try:
        scheme = gramine.attestation_type(directory)
    except (OSError, EvidenceError) as error:
        return False, f"{gramine.DIRECTORY}/attestation_type cannot be read: {error}"
    if scheme != "dcap":
        return False, f'{gramine.DIRECTORY}/attestation_type is {scheme!r}; set sgx.remote_attestation = "dcap"'
    return True, f"{gramine.DIRECTORY} with dcap"


def _occlum(root: Path) -> tuple[bool, str]:
    if (under(root, gramine.DIRECTORY) / _GRAMINES_OWN).exists():
        return False, "inside Gramine"
    return _device(root, occlum.DEVICE, writable=False)


def _device(root: Path, path: Path, *, writable: bool) -> tuple[bool, str]:
    place = under(root, path)
    try:
        mode = place.stat().st_mode
    except OSError:
        return False, f"no {path}"
    if stat.S_ISDIR(mode):
        # /dev/sgx is one on hosts with an old SGX driver.
        return False, f"{path} is a directory"
    if not os.access(place, os.R_OK | (os.W_OK if writable else 0)):
        return False, f"{path} is there, but this user may not use it"
    return True, str(path)


def main(arguments: Sequence[str]) -> None:
    found = survey(Path(arguments[0]) if arguments else FILE_SYSTEM)
    print(json.dumps([dataclasses.asdict(each) for each in found]))


if __name__ == "__main__":
    main(sys.argv[1:])
