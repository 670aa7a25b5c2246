"""The signed structures: our hashing against the vectors, against eth_account, and against one changed field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from enclave_app.protocol import structs
from enclave_app.protocol.abi import decode_strict
from enclave_app.protocol.canonical import validate
from enclave_app.protocol.eip712 import Domain, Struct
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.signing import SigningKey, recover

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "eip712.json").read_text("utf-8"))
DOMAIN = Domain(chain_id=VECTORS["domain"]["chainId"], verifying_contract=VECTORS["domain"]["verifyingContract"])
CASES = VECTORS["cases"]
SIGNED = sorted({case["type"] for case in CASES})


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def struct_of(case: dict[str, Any]) -> Struct:
    kind: type[Struct] = getattr(structs, case["type"])
    return validate(kind, case["value"])


def case_of(name: str) -> dict[str, Any]:
    return next(case for case in CASES if case["type"] == name)


def named(case: dict[str, Any]) -> str:
    return str(case["type"])


def test_every_structure_has_a_vector() -> None:
    declared = {s.type_name() for s in vars(structs).values() if isinstance(s, type) and issubclass(s, Struct)}
    assert declared - {"Struct", "Chain", "RegisteredIdentity"} == set(SIGNED)


def test_domain_separator() -> None:
    assert DOMAIN.separator() == raw(VECTORS["domain"]["separator"])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_structure_reproduces_its_vector(case: dict[str, Any]) -> None:
    struct = struct_of(case)
    assert type(struct).encode_type() == case["typeString"]
    assert type(struct).type_hash() == raw(case["typeHash"]) == keccak(text=case["typeString"])
    assert struct.abi_encode() == raw(case["abi"])
    assert struct.struct_hash() == raw(case["structHash"])
    assert struct.typed_digest(DOMAIN) == raw(case["digest"])
    assert struct.model_dump(mode="json", by_alias=True) == case["value"]


@pytest.mark.parametrize("case", CASES, ids=named)
def test_structure_decodes_from_its_abi_encoding(case: dict[str, Any]) -> None:
    struct = struct_of(case)
    assert type(struct).abi_decode(raw(case["abi"])) == struct
    assert type(struct).from_abi(struct.to_abi()) == struct


@pytest.mark.parametrize("case", CASES, ids=named)
def test_signature_names_the_signer(case: dict[str, Any]) -> None:
    key = SigningKey(keccak(text=VECTORS["signer"]["keyIsKeccak256Of"]))
    assert key.address == VECTORS["signer"]["address"]
    assert key.sign(raw(case["digest"])) == raw(case["signature"])
    assert recover(raw(case["digest"]), raw(case["signature"])) == key.address


@pytest.mark.parametrize("case", CASES, ids=named)
def test_eth_account_computes_the_same_digest(case: dict[str, Any]) -> None:
    # Its types come from the type string, so nothing of ours takes part.
    types: dict[str, list[dict[str, str]]] = {}
    for declaration in case["typeString"].removesuffix(")").split(")"):
        name, members = declaration.split("(")
        types[name] = [dict(zip(("type", "name"), member.split(" "), strict=True)) for member in members.split(",")]
    types["EIP712Domain"] = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    domain = {key: value for key, value in VECTORS["domain"].items() if key != "separator"}
    message = {"types": types, "primaryType": case["type"], "domain": domain, "message": case["value"]}
    signable = encode_typed_data(full_message=_with_numbers(message, types))
    assert keccak(b"\x19" + signable.version + signable.header + signable.body) == raw(case["digest"])


def _with_numbers(message: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    """Our JSON writes uint64 and uint256 as text; eth_account wants numbers and bytes."""

    def convert(kind: str, value: Any) -> Any:
        if kind.endswith("[]"):
            return [convert(kind[:-2], item) for item in value]
        if kind in types:
            return {member["name"]: convert(member["type"], value[member["name"]]) for member in types[kind]}
        if kind.startswith("uint"):
            return int(value)
        return raw(value) if kind.startswith("bytes") else value

    return {**message, "message": convert(message["primaryType"], message["message"])}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in leaves(item, (*path, key))]
    return [path]


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if value.startswith("0x") and len(value) > 2:
        return value[:-1] + ("1" if value[-1] != "1" else "2")
    return str(int(value) + 1) if value.isdigit() else value + "x"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_field_enters_the_digest(case: dict[str, Any]) -> None:
    seen = {raw(case["digest"])}
    paths = leaves(case["value"])
    for path in paths:
        value = json.loads(json.dumps(case["value"]))
        parent = value
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = changed(parent[path[-1]])
        seen.add(struct_of({**case, "value": value}).typed_digest(DOMAIN))
    assert len(seen) == len(paths) + 1


@pytest.mark.parametrize("field", ["chain_id", "verifying_contract"])
def test_domain_enters_the_digest(field: str) -> None:
    other = {"chain_id": 1, "verifying_contract": "0x" + "11" * 20}[field]
    domain = DOMAIN.model_copy(update={field: other})
    struct = struct_of(case_of("Result"))
    assert struct.typed_digest(domain) != struct.typed_digest(DOMAIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payee", "0x" + "00" * 19),
        ("payee", "0x5FbDB2315678afecb367f032d93F642f64180aA3"),
        ("outcome", 256),
        ("outcome", -1),
        ("outcome", True),
        ("outcome", 1.0),
        ("outcome", "01"),
        ("taskId", "0x" + "00" * 31),
        ("taskId", "00" * 32),
        ("taskId", "0x" + "0g" * 32),
        ("taskId", "0x" + "00" * 32 + " "),
        ("outputs", {}),
        ("outputs", [{}]),
        ("extra", 1),
    ],
)
def test_structure_refuses_one_wrong_field(field: str, value: Any) -> None:
    case = case_of("Result")
    with pytest.raises(Refused) as caught:
        validate(structs.Result, {**case["value"], field: value})
    assert caught.value.code == "document.invalid"


@pytest.mark.parametrize(("field", "value"), [("deadline", 1 << 64), ("callback_gas", 1 << 32), ("max_fee", -1)])
def test_a_number_that_nobody_looked_at_is_not_hashed_beyond_its_type(field: str, value: int) -> None:
    request = struct_of(case_of("TaskRequest")).model_copy(update={field: value})
    with pytest.raises(ValueError, match="does not fit"):
        request.struct_hash()


def test_python_names_are_not_json_names() -> None:
    value = dict(case_of("Result")["value"])
    value["task_id"] = value.pop("taskId")
    with pytest.raises(Refused, match="taskId"):
        validate(structs.Result, value)


def test_text_with_half_a_surrogate_pair_is_refused() -> None:
    value = {**case_of("Out")["value"], "name": "\ud800"}
    with pytest.raises(Refused, match="surrogate"):
        validate(structs.Out, value)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


AGREEMENT_ABI = raw(case_of("Agreement")["abi"])
OUT_ABI = raw(case_of("Out")["abi"])


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("Agreement", AGREEMENT_ABI + b"\0"),
        ("Agreement", AGREEMENT_ABI[:-1]),
        ("Agreement", AGREEMENT_ABI[:-32]),
        ("Agreement", b""),
        ("Agreement", word(64) + AGREEMENT_ABI[32:]),
        ("Agreement", word(32) + b"\x01" + AGREEMENT_ABI[33:]),
        ("Out", OUT_ABI[:-1] + b"\x01"),
        ("Out", OUT_ABI[: 32 * 7] + b"\xff" + OUT_ABI[32 * 7 + 1 :]),
        ("Access", word(1) * 2 + word(1 << 64)),
        ("Host", word(1 << 160)),
    ],
)
def test_abi_that_solidity_would_not_write_is_refused(kind: str, data: bytes) -> None:
    struct: type[Struct] = getattr(structs, kind)
    with pytest.raises(Refused) as caught:
        struct.abi_decode(data)
    assert caught.value.code == "abi.decode"


def test_a_bool_of_two_is_refused() -> None:
    with pytest.raises(Refused, match="uint1"):
        decode_strict("bool", word(2))


def test_offsets_that_share_their_target_are_refused() -> None:
    # 1,000 strings that are all the same 32 kB: a general decoder makes 32 MB of 64 kB, and more with each nesting.
    count = 1000
    bomb = word(32) + word(count) + word(32 * count) * count + word(32_000) + b"a" * 32_000
    with pytest.raises(Refused, match="next free place"):
        decode_strict(["string"], bomb)


def test_an_array_longer_than_its_message_is_refused() -> None:
    with pytest.raises(Refused, match="ends early"):
        decode_strict(["uint256"], word(32) + word(1 << 255))


@pytest.mark.parametrize("value", [5, None, "x", {"signer": 1, "other": 2}, ["0x" + "11" * 20] * 2])
def test_from_abi_refuses_another_shape(value: Any) -> None:
    with pytest.raises(Refused):
        structs.Host.from_abi(value)


def test_a_number_is_not_so_many_zero_bytes() -> None:
    tuple_ = list(struct_of(case_of("Broker")).to_abi())
    tuple_[0] = 32
    with pytest.raises(Refused, match="bytes are written"):
        structs.Broker.from_abi(tuple_)


def test_parties_are_the_owners_once_each_function_first() -> None:
    agreement = structs.Agreement.model_validate(case_of("Agreement")["value"])
    same = agreement.model_copy(update={"data": (*agreement.data, agreement.data[0])})
    assert same.parties() == (agreement.fn.owner, agreement.data[0].owner, agreement.data[1].owner)
