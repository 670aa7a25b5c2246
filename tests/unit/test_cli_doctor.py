"""`oracle doctor`, on this machine and on ones that are made up of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.doctor import SANDBOX_FEATURES, examine
from tests.cli_kit import answer, oracle


def stub(kinds: str = "software", sandbox: str | None = " ".join(SANDBOX_FEATURES)) -> Callable[[str], str | None]:
    return lambda text: kinds if "KINDS" in text else sandbox


def place(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def test_this_machine_is_reported() -> None:
    found = answer("doctor")
    names = {check["name"]: check for check in found["checks"]}
    assert found["ok"] is True
    assert names["Python"]["state"] == "ok"
    assert "software" in names["enclave program"]["found"]
    assert "seccomp" in names["sandbox"]["found"]
    assert {"anvil", "node", "TEE: tdx", "TEE: nitro"} <= set(names)


def test_people_get_a_table_and_a_verdict() -> None:
    ran = oracle("doctor")
    assert ran.code == 0
    assert "Attester:" in ran.stderr


def test_without_a_tee_the_enclave_is_simulated(tmp_path: Path) -> None:
    report = examine(tmp_path, run=stub())
    assert (report.attester, report.simulated) == ("software", True)
    assert "SIMULATED" in report.note


@pytest.mark.parametrize(
    ("paths", "attester"),
    [
        (("/dev/nsm",), "nitro"),
        (("/dev/sgx_enclave", "/dev/attestation/quote"), "pseudo-files"),
        (("/var/run/dstack.sock", "/dev/tdx_guest"), "dstack"),
        (("/dev/tdx_guest", "/sys/kernel/config/tsm/report"), "configfs-tsm"),
        (("/dev/sev-guest", "/sys/kernel/config/tsm/report"), "configfs-tsm"),
        (("/dev/tdx_guest",), "software"),
        (("/dev/sgx_enclave",), "software"),
    ],
)
def test_the_attester_follows_the_devices(tmp_path: Path, paths: tuple[str, ...], attester: str) -> None:
    built = "software nitro pseudo-files dstack configfs-tsm"
    report = examine(place(tmp_path, *paths), run=stub(built))
    assert (report.attester, report.simulated) == (attester, attester == "software")


def test_hardware_without_an_attester_here_is_not_promised(tmp_path: Path) -> None:
    report = examine(place(tmp_path, "/dev/nsm"), run=stub("software"))
    assert (report.attester, report.simulated) == ("software", True)
    assert "nitro" in report.note


def test_a_kernel_that_refuses_the_sandbox_is_said(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tmp_path, run=stub(sandbox=None)).checks}
    assert checks["sandbox"].state == "missing"
    assert checks["sandbox"].remedy is not None


def test_a_partial_sandbox_names_what_it_lacks(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tmp_path, run=stub(sandbox="rlimits seccomp")).checks}
    assert "without no-new-privs, landlock" in checks["sandbox"].found


def test_missing_programs_come_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    checks = {check.name: check for check in examine(tmp_path, run=stub()).checks}
    assert (checks["anvil"].state, checks["node"].state) == ("missing", "missing")
    assert "scripts/setup" in (checks["anvil"].remedy or "")
