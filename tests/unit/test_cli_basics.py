"""What holds for every command: exit codes, what goes where, and that help is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oracle.cli.screen import plain, show, to_json
from tests.cli_kit import oracle, refusal

ROOT = Path(__file__).resolve().parents[2]
GROUPS = [
    "doctor",
    "devnet",
    "keys",
    "dataset",
    "function",
    "agreement",
    "task",
    "withdraw",
    "enclave",
    "evidence",
    "keybroker",
    "worker",
]


def python(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def test_help_names_every_command_in_order() -> None:
    ran = oracle("--help")
    assert ran.code == 0
    listed = [line.split()[0] for line in ran.stdout.split("Commands:")[1].splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in GROUPS] == GROUPS


def test_help_loads_nothing_heavy() -> None:
    heavy = ["pyarrow", "web3", "eth_account", "cryptography", "duckdb", "aiohttp", "pydantic", "rich", "asyncio"]
    loaded = python(f"import sys, oracle.cli.app; print(*[name for name in {heavy} if name in sys.modules])")
    assert loaded.split() == []


def test_the_package_is_light_until_its_client_is_used() -> None:
    text = "import sys, oracle; print('oracle.client' in sys.modules); oracle.Client; print('oracle.client' in sys.modules)"
    assert python(text).split() == ["False", "True"]


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "oracle", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Usage: oracle [OPTIONS] COMMAND [ARGS]...")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("keys", "new"),
        ("keys", "new", "ring", "--out", "x"),
        ("task", "request", "x", "--seconds", "many"),
        ("agreement", "sign"),
        ("keys", "show", "x", "--private-key", "00"),
    ],
)
def test_a_wrong_command_line_exits_2(words: tuple[str, ...]) -> None:
    ran = oracle(*words)
    assert (ran.code, ran.stdout) == (2, "")
    assert "Usage:" in ran.stderr


def test_a_wrong_command_line_is_one_object_for_programs() -> None:
    ran = oracle("task", "result", "--json")
    assert ran.code == 2
    assert json.loads(ran.stdout)["error"]["code"] == "usage"


def test_a_failure_is_said_on_stderr_with_its_code(tmp_path: Path) -> None:
    ran = oracle("keys", "show", tmp_path / "nothing")
    assert (ran.code, ran.stdout) == (1, "")
    assert "cannot read" in ran.stderr
    assert "file.read" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_failure_is_one_object_for_programs(tmp_path: Path) -> None:
    error = refusal("keys", "show", tmp_path / "nothing")
    assert (error["code"], error["retry"]) == ("file.read", False)


def test_an_unusable_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "oracle.yaml").write_text("rpc: http://127.0.0.1:1\ndeployment: nowhere.json\n")
    error = refusal("agreement", "status", "0x" + "00" * 32, "--config", tmp_path / "oracle.yaml")
    assert error["code"] == "file.read"
    assert "nowhere.json" in error["message"]


def test_without_a_configuration_it_says_how_to_give_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal("enclave", "list")
    assert error["code"] == "config.missing"
    assert "ORACLE_CONFIG" in error["message"]


def test_the_configuration_is_taken_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("[]")
    error = refusal("enclave", "list", env={"ORACLE_CONFIG": str(path)})
    assert "mine.yaml" in error["message"]


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    assert plain("a\x1b[2Jb\u202ec\nd") == "a\\u001b[2Jb\\u202ec\nd"
    assert show(["\x07", None, True]) == "\\u0007\n–\nyes"


def test_every_answer_is_json_that_others_can_read() -> None:
    value = json.loads(to_json({"digest": b"\x01\x02", "ratio": float("nan"), "path": Path("a"), "list": (1, 2.5)}))
    assert value == {"digest": "0x0102", "ratio": "nan", "path": "a", "list": [1, 2.5]}
