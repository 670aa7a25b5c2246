"""HPKE both ways with an independent implementation in JavaScript, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import MAX_MESSAGE, OVERHEAD, PublicKey, SealingKey

TESTS = Path(__file__).parents[1]
VECTORS = json.loads((TESTS / "vectors" / "hpke.json").read_text("utf-8"))
KEYS = {key["name"]: key for key in VECTORS["keys"]}


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def key_of(name: str) -> SealingKey:
    return SealingKey(raw(KEYS[name]["seed"]))


def named(case: dict[str, Any]) -> str:
    return f"{case['name']}-{case.get('sealedBy', '')}"


def node(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("node")
    assert program, "Node is part of the toolchain: run scripts/setup"
    return subprocess.run([program, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("case", VECTORS["keys"], ids=lambda case: case["name"])
def test_a_seed_makes_its_public_key(case: dict[str, str]) -> None:
    public = SealingKey(raw(case["seed"])).public
    assert public.wire == raw(case["publicKey"])
    assert public.digest == raw(case["digest"])


@pytest.mark.parametrize("case", VECTORS["messages"], ids=named)
def test_message_opens(case: dict[str, str]) -> None:
    key = key_of(case["recipient"])
    assert key.open(raw(case["message"]), raw(case["info"])) == raw(case["plaintext"])


def test_javascript_opens_the_same_messages() -> None:
    done = node("--test", "--test-reporter=tap", TESTS / "js" / "hpke.test.mjs")
    assert done.returncode == 0, done.stdout + done.stderr
    opened = [line for line in done.stdout.splitlines() if line.startswith("ok ") and line.endswith(", opens")]
    assert len(opened) == len(VECTORS["messages"])


def test_python_opens_what_javascript_seals_now() -> None:
    key, info = SealingKey.generate(), b"info"
    given = {"publicKey": key.public.wire.hex(), "info": info.hex(), "plaintext": b"from JavaScript".hex()}
    done = node(TESTS / "js" / "seal.mjs", given=json.dumps(given))
    assert done.returncode == 0, done.stderr
    assert key.open(raw(done.stdout), info) == b"from JavaScript"


@pytest.mark.parametrize("position", [1, 1088, 1089, 1120, 1121, -1])
def test_one_changed_byte_does_not_open(position: int) -> None:
    case = VECTORS["messages"][0]
    message = bytearray(raw(case["message"]))
    message[position] ^= 1
    with pytest.raises(Refused) as caught:
        key_of(case["recipient"]).open(bytes(message), raw(case["info"]))
    assert caught.value.code == "hpke.open"


def test_another_info_or_key_does_not_open() -> None:
    case = VECTORS["messages"][0]
    for key, info in ((key_of(case["recipient"]), b"other"), (SealingKey.generate(), raw(case["info"]))):
        with pytest.raises(Refused) as caught:
            key.open(raw(case["message"]), info)
        assert caught.value.code == "hpke.open"


@pytest.mark.parametrize("message", [b"", b"\x01" * (OVERHEAD - 1), b"\x02" * OVERHEAD, b"\x01" * (MAX_MESSAGE + 1)])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(Refused) as caught:
        key_of("broker").open(message, b"")
    assert caught.value.code == "hpke.message"


WIRE = raw(KEYS["broker"]["publicKey"])
# Points of order 1, 2, 4 and 8: RFC 7748, section 6.1 asks to check for the zero output that they give.
LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize(
    "wire",
    [b"", WIRE[:-1], WIRE + b"\0", b"\x02" + WIRE[1:], b"\x01" + b"\xff" * 1184 + WIRE[1185:]]
    + [WIRE[:1185] + raw(point) for point in LOW_ORDER],
)
def test_what_is_no_public_key_is_refused(wire: bytes) -> None:
    with pytest.raises(Refused) as caught:
        PublicKey(wire)
    assert caught.value.code == "hpke.public_key"


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(Refused) as caught:
        SealingKey(bytes(length))
    assert caught.value.code == "hpke.seed"


def test_a_key_never_shows_itself() -> None:
    seed = raw(KEYS["broker"]["seed"])
    assert seed.hex() not in repr(SealingKey(seed)) + str(SealingKey(seed))
