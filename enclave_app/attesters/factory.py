"""Which attester a configuration names."""

from __future__ import annotations

from pathlib import Path

from enclave_app.attesters.base import Attester, PlatformError, UnknownAttester
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave

KINDS = ("software",)


def attester_from_config(kind: str, *, platform_dir: Path | None = None, launch_config: bytes = b"") -> Attester:
    """The attester `kind`. `launch_config` is the canonical bytes of what the enclave was launched with (R3).

    Raises UnknownAttester for a name that this build lacks, PlatformError when its platform is missing.
    """
    if kind != "software":
        raise UnknownAttester(f"found attester {kind!r}, expected one of {', '.join(KINDS)}; correct `attester`")
    if platform_dir is None:
        raise PlatformError(
            "the software attester needs a platform directory; make one with: "
            "python -m enclave_app.attesters.platform DIR"
        )
    return SoftwareAttester.open(platform_dir, SoftwareEnclave.of_program(launch_config))
