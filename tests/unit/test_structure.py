"""Rules that hold because something is not there: no owner (R21), no clock (R14), nothing written (R1), keys apart (R6).

Each list of exceptions is exact, so what is new has to be looked at before it passes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_app.protocol.structs import Result

ROOT = Path(__file__).resolve().parents[2]
CHANGES_STATE = {
    "AgreementRegistry": {
        "activate", "approve", "sign", "suspend", "resume", "revoke", "dropMeasurement", "dropHost", "spend", "unspend",
    },
    "AgreementTerms": set(),
    "ComputeOracle": {
        "request", "requestFor", "cancel", "fulfil", "fulfilMany", "fulfilBatch", "expire", "retryCallback", "distribute",
        "withdraw",
    },
    "DatasetStreams": {"publish", "withdraw"},
    "FunctionAudits": {"approve", "approveFor", "withdraw"},
    "AttestedVerifier": set(),
    "DcapCollateral": {"postIssuer", "postPck", "postCrl", "postTcbInfo", "postQeIdentity"},
    "DcapVerifier": set(),
    "EnclaveRegistry": {"register", "challenge", "retire"},
}  # fmt: skip
"""Every function that is neither view nor pure, by contract of the core; each one's caller is judged in its interface."""
FOREIGN_CODE = {0xF2: "CALLCODE", 0xF4: "DELEGATECALL", 0xFF: "SELFDESTRUCT"}
ENDS = {0x00, 0x56, 0xF3, 0xFD, 0xFF}
"""STOP, JUMP, RETURN, REVERT, SELFDESTRUCT: what follows is reached by a JUMPDEST only."""
JUMPDEST, INVALID = 0x5B, 0xFE
CLOCKS = re.compile(r".*\b(time|monotonic|perf_counter)(_ns)?|.*\.(now|utcnow|today|gmtime|localtime|clock_gettime)")
READS_A_CLOCK = {
    ("attesters/platform.py", "main"),  # a tool: the enclave does not call it
    ("tasks.py", "Tasks._run"),  # `enclave_ms`, which nobody signs
    ("tasks.py", "_milliseconds_since"),
}
WRITERS = re.compile(
    r"open|(os|io)\.\w*(open|mkdir|makedirs|rename|replace|link)|(shutil|tempfile)\.\w+"
    r"|.*\.(write_bytes|write_text|mkdir|touch|symlink_to|hardlink_to)|(\w*path\w*|Path\(.*\))\.(open|rename|replace)"
)
OPENS_FILES = {
    ("attesters/configfs_tsm.py", "ConfigfsTsmAttester._request"),  # a kernel interface: a directory is a request
    ("attesters/device.py", "opened"),  # pseudo-files and devices, named by constants
    ("attesters/platform.py", "Platform.write"),  # makes development platforms, before any enclave
    ("attesters/platform.py", "_write_new"),
    ("fetch.py", "_open_regular"),  # O_RDONLY
    ("sandbox/zygote.py", "_Zygote.probe"),  # a pipe
    ("sandbox/zygote.py", "_silence"),  # /dev/null
}
KEY_ROOMS = {"enclave_app.identity", "enclave_app.attesters", "enclave_app.protocol.signing", "enclave_app.tasks"}


def abi(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((ROOT / "oracle" / "abi" / f"{name}.json").read_text())
    return found


def state_changing(entries: object) -> set[str]:
    assert isinstance(entries, list)
    return {
        each["name"] if each["type"] == "function" else each["type"]
        for each in entries
        if each["type"] in ("function", "fallback", "receive") and each["stateMutability"] not in ("view", "pure")
    }


def opcodes(code: bytes) -> Iterator[int]:
    """Those that can be reached: constants that the compiler put behind the code are none."""
    at, live = 0, True
    while at < len(code):
        op = code[at]
        # Behind an INVALID the compiler puts the code that is deployed, which begins without a JUMPDEST.
        live = live or op in (JUMPDEST, INVALID)
        if live:
            yield op
        live = live and op not in ENDS
        at += 1 + (op - 0x5F if 0x60 <= op <= 0x7F else 0)


def calls(root: Path, names: re.Pattern[str]) -> set[tuple[str, str]]:
    """(file, function) of each call to something that is written as `names` says."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        for where, node in within(ast.parse(path.read_text()), ""):
            if isinstance(node, ast.Call) and names.fullmatch(ast.unparse(node.func)):
                found.add((path.relative_to(root).as_posix(), where))
    return found


def within(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{where}.{child.name}".lstrip(".") if named else where  # type: ignore[attr-defined]
        yield name, child
        yield from within(child, name)


def test_the_core_has_no_other_contract() -> None:
    """What is deployed is what the tests below look at; the examples are not of the core."""
    deployed = {path.stem for path in (ROOT / "oracle" / "abi").glob("*.json") if abi(path.stem)["kind"] == "contract"}
    examples = {path.stem for path in (ROOT / "contracts" / "examples").glob("*.sol")}
    assert deployed - examples == set(CHANGES_STATE)


@pytest.mark.parametrize("name", CHANGES_STATE)
def test_a_contract_of_the_core_has_no_owner_admin_pause_or_upgrade(name: str) -> None:
    entries = abi(name)["abi"]
    assert state_changing(entries) == CHANGES_STATE[name]
    assert isinstance(entries, list)
    powers = re.compile(r"owner|admin|pause|upgrade|implementation|initiali[sz]e|govern|guardian|role", re.IGNORECASE)
    assert [each["name"] for each in entries if powers.search(each.get("name", ""))] == []


@pytest.mark.parametrize("name", CHANGES_STATE)
def test_a_contract_of_the_core_runs_no_code_but_its_own(name: str) -> None:
    code = bytes.fromhex(str(abi(name)["bytecode"]).removeprefix("0x"))
    assert sorted({FOREIGN_CODE[each] for each in opcodes(code) if each in FOREIGN_CODE}) == []


def test_a_proxy_would_be_seen() -> None:
    assert [each for each in opcodes(bytes.fromhex("60f4f4")) if each in FOREIGN_CODE] == [0xF4]
    assert [each for each in opcodes(bytes.fromhex("00f45bf4fef4")) if each in FOREIGN_CODE] == [0xF4, 0xF4]
    upgrade = {"type": "function", "name": "upgradeTo", "stateMutability": "nonpayable"}
    assert state_changing([upgrade, {"type": "fallback", "stateMutability": "payable"}]) == {"upgradeTo", "fallback"}


def test_money_leaves_the_oracle_in_one_place() -> None:
    """R20: payments are pulled. The callback carries none."""
    oracle = (ROOT / "contracts" / "src" / "ComputeOracle.sol").read_text()
    payments = (ROOT / "contracts" / "src" / "libraries" / "Payments.sol").read_text()
    leaving = re.compile(r"\.(?:call|transfer|send|safeTransfer)\b[^;]*;")
    assert leaving.findall(payments) == [".safeTransfer(to, amount);", '.call{value: amount}("");']
    assert leaving.findall(oracle) == []
    assert re.findall(r"Payments\.pay\b[^;]*", oracle) == ["Payments.pay(token, to, amount)"]
    assert re.findall(r"\bcall\((\w+), (\w+), (\w+)", oracle) == [("gasCap", "callback", "0")]


def test_the_enclave_reads_no_clock() -> None:
    assert calls(ROOT / "enclave_app", CLOCKS) == READS_A_CLOCK
    assert not {name for name in Result.model_fields if name.endswith("_ms") or "time" in name}


def test_the_enclave_opens_no_file_to_write_to() -> None:
    assert calls(ROOT / "enclave_app", WRITERS) == OPENS_FILES


def test_what_is_new_is_found(tmp_path: Path) -> None:
    (tmp_path / "keys.py").write_text("class Keys:\n    def save(self, path):\n        path.write_bytes(self.seed)\n")
    assert calls(tmp_path, WRITERS) == {("keys.py", "Keys.save")}


def test_what_runs_in_the_sandbox_imports_nothing_that_holds_keys() -> None:
    """R6, as the modules say it: the zygote loads `sandbox.jobs`, and through it these."""
    seen: set[str] = set()
    left = ["enclave_app.sandbox.jobs", "enclave_app.sandbox.zygote"]
    while left:
        module = left.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in seen or not path.exists():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                base = module.split(".")[: -node.level] if node.level else []
                name = ".".join([*base, node.module])
                left += [name, *(f"{name}.{alias.name}" for alias in node.names)]
    assert "enclave_app.runtimes.sql" in seen
    assert {each for each in seen for room in KEY_ROOMS if each == room or each.startswith(f"{room}.")} == set()


def test_the_sandbox_is_forked_before_there_are_keys() -> None:
    """R6: in the order of `main`, which calls `_serve_tasks` last; only that makes the identity, or the role without tasks."""
    tree = ast.parse((ROOT / "enclave_app" / "main.py").read_text())
    order = {
        where: [
            ast.unparse(node.func) for name, node in within(tree, "") if name == where and isinstance(node, ast.Call)
        ]
        for where in ("main", "_serve_tasks", "_serve_verifier")
    }
    assert order["main"].index("Sandbox.fork") < order["main"].index("_serve_tasks")
    assert "EnclaveIdentity.create" in order["_serve_tasks"]
    assert not {"Sandbox.fork", "Tasks", "Executor"} & {*order["_serve_verifier"]}
    assert "EnclaveIdentity.create" not in order["main"]
