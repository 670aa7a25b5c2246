"""`oracle doctor`, on this machine and on ones that are made up of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.doctor import SANDBOX_FEATURES, examine
from tests.cli_kit import answer, oracle


def stub(survey: str | None = "[]", sandbox: str | None = " ".join(SANDBOX_FEATURES)) -> Callable[[str], str | None]:
    return lambda text: survey if "detect" in text else sandbox


def place(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.mkdir() if path.endswith("/") else file.touch()
    return root


def test_this_machine_is_reported() -> None:
    found = answer("doctor")
    names = {check["name"]: check for check in found["checks"]}
    assert found["ok"] is True
    assert names["Python"]["state"] == "ok"
    assert "software" in names["enclave program"]["found"]
    assert {each["attester"] for each in found["attesters"]} == {"nitro", "gramine", "occlum", "dstack", "tdx", "snp"}
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
        (("/dev/sgx", "/dev/attestation/quote", "/dev/attestation/attestation_type"), "occlum"),
        (("/var/run/dstack.sock", "/dev/tdx_guest"), "dstack"),
        (("/dev/tdx_guest", "/sys/kernel/config/tsm/report/"), "tdx"),
        (("/dev/sev-guest", "/sys/kernel/config/tsm/report/"), "snp"),
        (("/dev/tdx_guest",), "software"),
        (("/dev/sgx_enclave",), "software"),
        (("/dev/sgx/enclave",), "software"),
        (("/sys/kernel/config/tsm/report/",), "software"),
    ],
)
def test_the_attester_follows_the_devices(tmp_path: Path, paths: tuple[str, ...], attester: str) -> None:
    report = examine(place(tmp_path, *paths))
    assert (report.attester, report.simulated) == (attester, attester == "software")
    assert [each.attester for each in report.attesters if each.usable] in ([], [attester])


@pytest.mark.parametrize(("scheme", "attester"), [("dcap", "gramine"), ("none", "software")])
def test_gramine_is_used_where_its_manifest_has_it_attest_by_dcap(tmp_path: Path, scheme: str, attester: str) -> None:
    root = place(tmp_path, "/dev/attestation/my_target_info", "/dev/attestation/quote")
    (root / "dev" / "attestation" / "attestation_type").write_text(scheme)
    report = examine(root)
    assert report.attester == attester
    assert ("sql and wasm" in report.note) == (attester == "gramine")


def test_what_is_not_used_comes_with_the_reason(tmp_path: Path) -> None:
    reasons = {each.attester: each.reason for each in examine(place(tmp_path, "/dev/tdx_guest")).attesters}
    assert list(reasons) == ["nitro", "gramine", "occlum", "dstack", "tdx", "snp"]
    assert reasons["nitro"] == "no /dev/nsm"
    assert "Linux 6.7" in reasons["tdx"]


def test_an_enclave_program_that_does_not_start_is_said(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tmp_path, run=stub(survey=None)).checks}
    assert checks["enclave program"].state == "missing"


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
