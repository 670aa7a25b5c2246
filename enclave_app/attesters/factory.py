"""Which attester a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from enclave_app.attesters.base import Attester, PlatformError, UnknownAttester
from enclave_app.attesters.configfs_tsm import ConfigfsTsmAttester
from enclave_app.attesters.detect import HARDWARE, survey
from enclave_app.attesters.device import FILE_SYSTEM
from enclave_app.attesters.dstack import DstackAttester
from enclave_app.attesters.gramine import GramineAttester
from enclave_app.attesters.nitro import NitroAttester
from enclave_app.attesters.occlum import OcclumAttester
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave

AUTO: Final = "auto"
SOFTWARE: Final = "software"
KINDS: Final = (SOFTWARE, *HARDWARE)


def attester_from_config(kind: str, *, platform_dir: Path | None = None, launch_config: bytes = b"") -> Attester:
    """The attester `kind`. `launch_config` is the canonical bytes of what the enclave was launched with (R3).

    `platform_dir` is what stands in for the hardware: the software attester's platform, or a file system's root with another
    attester's device in it. `auto` is the first that the machine has the files for, and never `software` (R4).
    Raises UnknownAttester for a name that this build lacks and where `auto` finds none, PlatformError when the software
    attester's platform is missing.
    """
    if kind not in (AUTO, *KINDS):
        raise UnknownAttester(
            f"found attester {kind!r}, expected one of {', '.join((AUTO, *KINDS))}; correct `attester`"
        )
    if kind == SOFTWARE:
        if platform_dir is None:
            raise PlatformError(
                "the software attester needs a platform directory; make one with: "
                "python -m enclave_app.attesters.platform DIR"
            )
        return SoftwareAttester.open(platform_dir, SoftwareEnclave.of_program(launch_config))
    root = FILE_SYSTEM if platform_dir is None else platform_dir
    return _hardware(_chosen(root) if kind == AUTO else kind, root)


def _chosen(root: Path) -> str:
    findings = survey(root)
    for finding in findings:
        if finding.usable:
            return finding.attester
    reasons = "; ".join(f"{finding.attester}: {finding.reason}" for finding in findings)
    raise UnknownAttester(f"this machine offers no attester ({reasons}); name `software` for a SIMULATED enclave")


def _hardware(kind: str, root: Path) -> Attester:
    if kind == "nitro":
        return NitroAttester(root)
    if kind == "gramine":
        return GramineAttester(root)
    if kind == "occlum":
        return OcclumAttester(root)
    if kind == "dstack":
        return DstackAttester(root)
    return ConfigfsTsmAttester(kind, root)
