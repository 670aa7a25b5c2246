"""`oracle evidence verify`: every recorded case, what it prints, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import nitro_kit, recorded_kit
from tests.cli_kit import oracle
from tests.recorded_kit import named
from tests.snp_kit import NOW, Authority

RUNS = recorded_kit.runs("sgx", "tdx", "snp", "nitro")
ACCEPTED = [(case, run) for case, run in RUNS if run["expected"] == "ok"]
REASONS = {
    "Debug mode is enabled": "debug_enclave",
    "guest policy allows debug (bit 19)": "debug_enclave",
    "PCR0-2 all zero: debug mode": "debug_enclave",
    "Invalid MR service TD": "service_td",
    "SEPT_VE_DISABLE is not enabled": "quote_refused",
    "No matching TCB level found": "quote_refused",
    "InvalidSignature ": "certificate_chain",
    "certification data type is not a PCK chain (cannot be verified without PCCS look-up)": "pck_chain",
}
FIELDS = ["verdict", "tcb_status", "advisory_ids", "claims", "reason", "trailing_bytes"]


def verdict(*arguments: object) -> tuple[int, dict[str, Any]]:
    ran = oracle("evidence", "verify", *arguments, "--json")
    assert ran.stdout.count("\n") == 1, ran.stdout + ran.stderr
    value: dict[str, Any] = json.loads(ran.stdout)
    return ran.code, value


def words(case: dict[str, Any], run: dict[str, Any], tmp_path: Path, evidence: Path | None = None) -> list[object]:
    file = recorded_kit.evidence_file(case)
    found: list[object] = ["--tee", case["tee"], "--evidence", evidence or file, "--at", run.get("now", 1_702_198_706)]
    if run.get("collateral"):
        found += ["--collateral", recorded_kit.collateral_file(run["collateral"])]
    if case["tee"] == "snp":
        for name in ("ek.der", "ask.der", "ark.der"):
            (tmp_path / name).write_bytes((file.parent / run.get(f"{name[:-4]}_file", name)).read_bytes())
        found += ["--endorsements", tmp_path]
    return found


@pytest.mark.parametrize(("case", "run"), RUNS, ids=named(RUNS))
def test_a_recorded_case_gives_what_its_manifest_says(
    case: dict[str, Any], run: dict[str, Any], tmp_path: Path
) -> None:
    code, said = verdict(*words(case, run, tmp_path))
    assert list(said) == FIELDS
    if run["expected"] == "ok":
        assert (code, said["verdict"], said["reason"]) == (0, "genuine", None)
        assert said["tcb_status"] == run.get("status")
        assert said["advisory_ids"] == run.get("advisory_ids", [])
    else:
        assert (code, said["verdict"], said["reason"]) == (1, "refused", REASONS[run["reason"]])
        assert said["tcb_status"] is None
    assert said["claims"]["debug"] == (said["reason"] == "debug_enclave")
    for name, value in case["fields"].items():
        assert said["claims"][name] == value, name
    if "trailing_bytes" in case:
        assert said["trailing_bytes"] == case["trailing_bytes"]


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro"])
def test_zero_padding_is_reported_and_anything_else_behind_the_end_refuses(tee: str, tmp_path: Path) -> None:
    case, run = next((case, run) for case, run in ACCEPTED if case["tee"] == tee and not case.get("trailing_bytes"))
    given = words(case, run, tmp_path)
    for tail, expected in ((bytes(70), (0, "genuine", None, 70)), (bytes(69) + b"\1", (1, "refused", None, 0))):
        file = tmp_path / "evidence"
        file.write_bytes(recorded_kit.evidence(case) + tail)
        given[3] = file
        code, said = verdict(*given)
        reason = None if expected[0] == 0 else "evidence_trailing_bytes"
        assert (code, said["verdict"], said["reason"], said["trailing_bytes"]) == (*expected[:2], reason, expected[3])


def test_a_nitro_document_is_read_out_of_dstack_s_container_only(tmp_path: Path) -> None:
    case = recorded_kit.case("dstack-prod-2025")
    (run,) = case["verify"]
    data, file = recorded_kit.evidence(case), tmp_path / "evidence"
    code, said = verdict(*words(case, run, tmp_path))
    assert (code, said["verdict"], said["trailing_bytes"]) == (0, "genuine", 151)
    tail = data[-151:]
    for other in (
        tail[:-1],
        tail + b"\0",
        b"\1" + tail[1:],
        tail[:1] + b"\1" + tail[2:],
        tail[:65] + b"\x55" + tail[66:],
    ):
        file.write_bytes(data[:-151] + other)
        code, said = verdict(*words(case, run, tmp_path, file))
        assert (code, said["reason"]) == (1, "evidence_trailing_bytes"), other


def test_each_kind_is_refused_a_second_after_its_time(tmp_path: Path) -> None:
    for name, end in (("virtee-milan-v2", 1_901_474_623), ("anjuna-prod-2023", 1_695_348_591)):
        case = recorded_kit.case(name)
        assert verdict(*words(case, {"now": end - 1}, tmp_path))[0] == 0
        code, said = verdict(*words(case, {"now": end}, tmp_path))
        assert (code, said["reason"]) == (1, "collateral_expired")


def test_roots_of_others_are_refused(tmp_path: Path) -> None:
    chip = Authority().chip()
    (tmp_path / "report").write_bytes(chip.report())
    given = chip.endorsements
    for name, der in (("ek", given.ek), ("ask", given.ask), ("ark", given.ark)):
        (tmp_path / f"{name}.der").write_bytes(der)
    code, said = verdict(
        "--tee", "snp", "--evidence", tmp_path / "report", "--endorsements", tmp_path, "--at", NOW
    )  # fmt: skip
    assert (code, said["verdict"], said["reason"]) == (1, "refused", "root_mismatch")
    (tmp_path / "document").write_bytes(nitro_kit.document(nitro_kit.links())[0])
    code, said = verdict("--tee", "nitro", "--evidence", tmp_path / "document", "--at", NOW)
    assert (code, said["verdict"], said["reason"]) == (1, "refused", "root_mismatch")


def test_a_list_beside_the_endorsements_is_read(tmp_path: Path) -> None:
    case = recorded_kit.case("virtee-milan-v2")
    given = words(case, case["verify"][0], tmp_path)
    (tmp_path / "crl.der").write_bytes(Authority().crl())
    code, said = verdict(*given)
    assert (code, said["reason"]) == (1, "revocation_list")


def test_a_list_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    case = recorded_kit.case("virtee-milan-v2")
    given = words(case, case["verify"][0], tmp_path)
    assert verdict(*given)[0] == 0
    (tmp_path / "crl.der").symlink_to(tmp_path / "nowhere")
    code, said = verdict(*given)
    assert (code, said["error"]["code"]) == (2, "usage")
    (tmp_path / "crl.der").unlink()
    (tmp_path / "crl.der").mkdir()
    assert verdict(*given)[0] == 2


def test_what_is_too_large_gets_a_verdict_and_what_cannot_be_read_is_no_refusal(tmp_path: Path) -> None:
    case, run = next((case, run) for case, run in ACCEPTED if case["tee"] == "sgx")
    given = words(case, run, tmp_path)
    file = tmp_path / "collateral"
    file.write_bytes(recorded_kit.collateral_file(run["collateral"]).read_bytes() + b" " * (4 << 20))
    code, said = verdict(*given[:-1], file)
    assert (code, said["verdict"], said["reason"]) == (1, "refused", "collateral_format")
    given[3] = "/proc/self/mem"
    code, said = verdict(*given)
    assert (code, said["error"]["code"]) == (2, "usage")


POLICY = """
measurements: ["0xMEASUREMENT"]
registers: skip
anchors: ["0x641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"]
report_data: skip
platforms: skip
"""


def test_a_policy_decides_what_is_wanted_of_genuine_evidence(tmp_path: Path) -> None:
    case = recorded_kit.case("anjuna-prod-2023")
    given = words(case, case["verify"][0], tmp_path)
    measurement = verdict(*given)[1]["claims"]["enclave_measurement"]
    policy = tmp_path / "policy.yaml"
    for text, expected in (
        (POLICY.replace("MEASUREMENT", measurement), (0, "genuine", None)),
        (POLICY.replace("MEASUREMENT", "00" * 32), (1, "refused", "measurement_not_listed")),
        (POLICY.replace("MEASUREMENT", measurement).replace("platforms: skip", ""), (1, "refused", "policy_unset")),
    ):
        policy.write_text(text)
        code, said = verdict(*given, "--policy", policy)
        assert (code, said["verdict"], said["reason"]) == expected


@pytest.mark.parametrize(
    "change",
    [
        ["--tee", "nvidia"],
        ["--tee", "snp"],
        ["--evidence", "/nonexistent"],
        ["--at", "yesterday"],
        ["--at", "-1"],
        ["--collateral", "/nonexistent"],
        ["--endorsements", "."],
        ["--policy", "/nonexistent"],
        ["--policy", __file__],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_2(change: list[str], tmp_path: Path) -> None:
    case = recorded_kit.case("phala-sgx-v3")
    given = words(case, case["verify"][0], tmp_path)
    ran = oracle("evidence", "verify", *given, *change)
    assert (ran.code, ran.stdout) == (2, "")


@pytest.mark.parametrize(("name", "option"), [("phala-sgx-v3", "--collateral"), ("virtee-milan-v2", "--endorsements")])
def test_evidence_without_what_it_needs_is_a_wrong_command_line(name: str, option: str, tmp_path: Path) -> None:
    case = recorded_kit.case(name)
    given = words(case, case["verify"][0], tmp_path)
    at = given.index(option)
    ran = oracle("evidence", "verify", *given[:at], *given[at + 2 :])
    assert (ran.code, ran.stdout) == (2, "")
    assert option in ran.stderr


def test_an_endorsements_folder_without_a_certificate_is_a_wrong_command_line(tmp_path: Path) -> None:
    case = recorded_kit.case("virtee-milan-v2")
    given = words(case, case["verify"][0], tmp_path)
    (tmp_path / "ask.der").unlink()
    ran = oracle("evidence", "verify", *given)
    assert (ran.code, ran.stdout) == (2, "")
    assert "ask.der" in ran.stderr


def test_people_read_the_verdict_and_what_it_does_not_say(tmp_path: Path) -> None:
    case = recorded_kit.case("virtee-milan-v2")
    ran = oracle("evidence", "verify", *words(case, case["verify"][0], tmp_path))
    assert ran.code == 0
    assert "genuine" in ran.stdout
    assert "Genuine is not trusted" in ran.stderr
    debug = recorded_kit.case("google-milan-v2-policydebug")
    ran = oracle("evidence", "verify", *words(debug, debug["verify"][0], tmp_path))
    assert ran.code == 1
    assert "refused" in ran.stdout
    assert "debug_enclave" in ran.stderr
