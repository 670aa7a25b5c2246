"""What this machine has and lacks for each part of the system, and how to get what is missing.

It only looks: files, programs on the PATH, and two short runs of the enclave program about itself.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

DISTRIBUTION: Final = "enclave-oracle"
MINIMUM_PYTHON: Final = (3, 11)
PROBE_SECONDS: Final = 30

State = Literal["ok", "missing", "absent"]
"""`missing`: something that is needed for `purpose` is not there. `absent`: not there, and fine without."""

DEVICES: Final[tuple[tuple[str, str, str], ...]] = (
    ("tdx", "/dev/tdx_guest", "an Intel TDX guest, quotes through configfs-tsm"),
    ("sev-snp", "/dev/sev-guest", "an AMD SEV-SNP guest, reports through configfs-tsm"),
    ("configfs-tsm", "/sys/kernel/config/tsm/report", "the kernel's quote interface for TDX and SEV-SNP"),
    ("sgx", "/dev/sgx_enclave", "Intel SGX, under Gramine or Occlum"),
    ("sgx-pseudo-files", "/dev/attestation/quote", "inside Gramine, quotes through a pseudo-file"),
    ("nitro", "/dev/nsm", "inside an AWS Nitro enclave"),
    ("sgx-libos", "/dev/sgx", "inside Occlum, quotes through an ioctl"),
    ("dstack", "/var/run/dstack.sock", "a dstack guest agent"),
)
"""(name, path, what it means)."""

SOFTWARE: Final = "software"
LIBRARY_OS: Final = ("gramine", "occlum")
SURVEY_OF: Final = "from enclave_app.attesters.detect import main; main([{root!r}])"
_SANDBOX: Final = """
from enclave_app.sandbox.lockdown import Allowance, load_libc, lock, separate_namespaces
libc = load_libc()
print(*separate_namespaces(libc), *lock(libc, 0, Allowance(64 << 20, 5, 1 << 20)))
"""
SANDBOX_FEATURES: Final = (
    "rlimits",
    "no-new-privs",
    "seccomp",
    "landlock",
    "network-namespace",
    "mount-namespace",
    "unprivileged-user",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked for; `remedy` says how to get it, where it is missing."""

    name: str
    purpose: str
    state: State
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Attester:
    """One that the enclave program has; `reason` says what makes it usable here, or what it lacks."""

    attester: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """`attester` is the one that an enclave on this machine would get its evidence from; `simulated` says what that is.

    `attesters` are those of real hardware, in the order in which an enclave that is told `auto` takes the first usable one.
    """

    checks: tuple[Check, ...]
    attesters: tuple[Attester, ...]
    attester: str
    simulated: bool
    note: str

    @property
    def ok(self) -> bool:
        """Nothing is missing that everything needs."""
        return not any(check.state == "missing" and check.purpose == "everything" for check in self.checks)


def examine(root: Path = Path("/"), *, run: Callable[[str], str | None] | None = None) -> Report:
    """Look at this machine. `root` stands for the file system in tests; `run` runs Python text and gives its output."""
    ask = run or _python
    found = _attesters(ask(SURVEY_OF.format(root=str(root))))
    chosen = next((each.attester for each in found or () if each.usable), None)
    checks = (
        _python_version(),
        *_dependencies(),
        _program("anvil", "devnet, demo, integration tests", "npm ci, or scripts/setup in a clone, which brings it"),
        _program("node", "building the contracts, JavaScript tests", "scripts/setup in a clone, which brings it"),
        _enclave(found),
        _sandbox(ask(_SANDBOX)),
        *_devices(root),
    )
    attesters = tuple(found or ())
    if chosen is not None:
        note = "An enclave here gets its evidence from hardware."
        if chosen in LIBRARY_OS:
            note += " It runs only functions of the kinds sql and wasm (R6)."
        return Report(checks, attesters, chosen, False, note)
    note = (
        "No TEE is visible here: the software enclave would run, which is SIMULATED. Same code and same checks, under a "
        "development root that no real agreement accepts."
    )
    return Report(checks, attesters, SOFTWARE, True, note)


def _python_version() -> Check:
    found = platform.python_version()
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    if sys.version_info[:2] >= MINIMUM_PYTHON:
        return Check("Python", "everything", "ok", found)
    return Check("Python", "everything", "missing", found, f"install Python {wanted} or newer")


def _dependencies() -> list[Check]:
    try:
        wanted = [text for text in metadata.requires(DISTRIBUTION) or () if "extra ==" not in text]
    except metadata.PackageNotFoundError:
        remedy = "scripts/setup in a clone, or pip install enclave-oracle"
        return [Check(DISTRIBUTION, "everything", "absent", "runs from a source tree, not installed", remedy)]
    checks = []
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            checks.append(Check(name, "everything", "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append(Check(name, "everything", "missing", "not installed", f'pip install "{requirement}"'))
    return checks


def find_program(name: str) -> Path | None:
    """A program on the PATH, beside this Python, or in a clone's node_modules."""
    beside = [Path(sys.executable).parent, Path.cwd() / "node_modules" / ".bin"]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, beside)))
    return None if found is None else Path(found)


def _program(name: str, purpose: str, remedy: str) -> Check:
    found = find_program(name)
    if found is None:
        return Check(name, purpose, "missing", "not found", remedy)
    return Check(name, purpose, "ok", str(found))


def _attesters(answer: str | None) -> list[Attester] | None:
    """What the enclave program says of each of its attesters; None where it does not start."""
    return None if answer is None else [Attester(**each) for each in json.loads(answer)]


def _enclave(found: Sequence[Attester] | None) -> Check:
    if found is None:
        return Check("enclave program", "workers", "missing", "does not start", "reinstall this package")
    built = (SOFTWARE, *(each.attester for each in found))
    return Check("enclave program", "workers", "ok", f"attesters built in: {', '.join(built)}")


def _sandbox(answer: str | None) -> Check:
    """What the enclave's own lock-down of function code achieves here."""
    purpose = "functions in the enclave"
    if answer is None:
        return Check(
            "sandbox",
            purpose,
            "missing",
            "the kernel refuses it",
            "use a Linux kernel with seccomp filters (5.13 or newer)",
        )
    features = answer.split()
    lacking = [name for name in SANDBOX_FEATURES if name not in features]
    if not lacking:
        return Check("sandbox", purpose, "ok", ", ".join(features))
    return Check(
        "sandbox",
        purpose,
        "ok",
        f"{', '.join(features)}; without {', '.join(lacking)}",
        "newer kernels and containers with more rights allow the rest",
    )


def _devices(root: Path) -> list[Check]:
    checks = []
    for name, path, meaning in DEVICES:
        place = root / path.lstrip("/")
        try:
            mode = place.stat().st_mode
        except OSError:
            checks.append(Check(f"TEE: {name}", "real hardware", "absent", f"no {path}"))
            continue
        usable = os.access(place, os.R_OK | (0 if stat.S_ISDIR(mode) else os.W_OK))
        found = f"{path}: {meaning}" + ("" if usable else "; this user may not use it")
        remedy = None if usable else "give this user access to it, or run the enclave as one who has it"
        checks.append(Check(f"TEE: {name}", "real hardware", "ok", found, remedy))
    return checks


def _python(text: str) -> str | None:
    """What a Python process prints, or None where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", text],
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.decode("utf-8", "replace")
