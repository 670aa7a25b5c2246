"""What strangers send: a valid document with one thing wrong, or no document at all."""

from __future__ import annotations

import json
import types
from enum import IntEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from hypothesis import strategies as st

from enclave_app.protocol.canonical import Document
from enclave_app.protocol.fields import Sol

EXAMPLES = {
    "address": "0x" + "11" * 20,
    "bytes": "0x",
    "bytes32": "0x" + "22" * 32,
    "bool": True,
    "string": "x",
    **{f"uint{bits}": 1 for bits in (8, 16, 32)},
    **{f"uint{bits}": "1" for bits in (64, 256)},
}
"""A JSON value of each Solidity type."""
NUMBERS = [
    0,
    -1,
    1,
    2**31,
    2**32,
    2**53 - 1,
    2**53,
    2**63,
    2**64,
    2**200,
    10**400,
    1.5,
    1e300,
    float("nan"),
    float("inf"),
]
TEXTS = [
    "",
    "\0",
    "\ud800",
    "\x1b[2J",
    "\u202e",
    "0x",
    "0x" + "00" * 32,
    "1e999",
    "-0",
    "01",
    "true",
    "../../x",
    "a" * 5000,
]
LENGTHS = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f" + b"\xff" * 3,
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    (1 << 200).to_bytes(32, "big"),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def example(kind: Any) -> Any:
    """A JSON value that a field of this type takes."""
    if isinstance(kind, type) and issubclass(kind, Document):
        hints = get_type_hints(kind, include_extras=True)
        fields = kind.model_fields.items()
        return {field.alias or name: example(hints[name]) for name, field in fields}
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        named = [part.name for part in parts[1:] if isinstance(part, Sol)]
        return EXAMPLES[named[0]] if named else example(parts[0])
    if origin is tuple:
        return [example(parts[0])]
    if origin is Literal:
        return parts[0]
    if origin in (Union, types.UnionType):
        return None if type(None) in parts else example(parts[0])
    if origin is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return int(next(iter(kind)))
    return {int: 1, str: "x", bool: True}[kind]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, item in items for leaf in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def changed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """One byte other, a cut, an addition, a part twice or gone, or a length field of another size."""
    data, at = bytearray(valid), draw(st.integers(0, max(0, len(valid) - 1)))
    match draw(st.integers(0, 5)):
        case 0 if data:
            data[at] ^= draw(st.integers(1, 255))
        case 1:
            del data[at:]
        case 2:
            data += draw(st.binary(min_size=1, max_size=40))
        case 3:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        case 4:
            del data[at : at + draw(st.integers(1, 64))]
        case _:
            field = draw(st.sampled_from(LENGTHS))
            data[at : at + len(field)] = field
    return bytes(data)


@st.composite
def changed_json(draw: st.DrawFn, valid: bytes) -> bytes:
    """One part replaced, named twice, added, or buried."""
    value = json.loads(valid)
    path = draw(st.sampled_from(places(value)))
    inner = value
    for part in path:
        inner = inner[part]
    new: Any
    match draw(st.integers(0, 4)):
        case 0 | 1:
            new = draw(values)
        case 2:
            new = [inner] * draw(st.sampled_from([0, 2, 100]))
        case 3:
            new = {**inner, "more": 1} if isinstance(inner, dict) else {"a": inner}
        case _:
            new = inner
            for _ in range(draw(st.sampled_from([1, 40, 500]))):
                new = [new]
    text = json.dumps(replaced(value, path, new))
    if draw(st.integers(0, 9)) == 0 and text.startswith('{"'):
        text = text.replace('{"', '{"v": 1, "v": 1, "', 1)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def changed_yaml(draw: st.DrawFn, valid: bytes) -> bytes:
    value = yaml.safe_load(valid)
    path = draw(st.sampled_from(places(value)))
    changed = replaced(value, path, draw(values))
    # JSON is YAML, and unlike a dumper's text it keeps what is odd.
    return json.dumps(changed).encode("utf-8", "surrogatepass")


def hostile(kind: str, valid: bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, and `valid` with one change that fits its kind: json, yaml, or bytes."""
    own = {"json": changed_json, "yaml": changed_yaml}.get(kind)
    base = st.binary(max_size=200) | changed_bytes(valid)
    return base if own is None else base | own(valid) | own(valid)
