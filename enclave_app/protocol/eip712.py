"""EIP-712 hashing of frozen pydantic models (https://eips.ethereum.org/EIPS/eip-712).

A structure is declared once, as a `Struct`; its EIP-712 type string, hash and ABI tuple follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

from eth_abi.abi import encode
from pydantic import ConfigDict

from .abi import AbiType, decode_strict
from .canonical import Document, validate
from .digests import keccak
from .errors import Refused
from .fields import Address, Sol, Uint256

_DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
DOMAIN_NAME = "Enclave Oracle"
DOMAIN_VERSION = "1"


def _field_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join("MiB" if part == "mib" else part.capitalize() for part in rest)


class Domain(Document):
    """An EIP-712 domain of this protocol: the name and version are fixed."""

    chain_id: Uint256
    verifying_contract: Address

    def separator(self) -> bytes:
        return _separator(self.chain_id, self.verifying_contract)


@lru_cache(maxsize=64)
def _separator(chain_id: int, verifying_contract: str) -> bytes:
    """A program has to do with a few contracts."""
    names = [keccak(text=text) for text in (_DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION)]
    return keccak(b"".join([*names, _word("uint256", chain_id), _word("address", verifying_contract)]))


class Struct(Document):
    """A structure with an EIP-712 type. Fields use the types of `fields.py`, other `Struct`s, or tuples of either."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=_field_name, populate_by_name=True, hide_input_in_errors=True
    )
    eip712_name: ClassVar[str] = ""

    @classmethod
    def type_name(cls) -> str:
        return cls.eip712_name or cls.__name__

    @classmethod
    def encode_type(cls) -> str:
        own, *others = [cls, *sorted(_referenced(cls) - {cls}, key=lambda s: s.type_name())]
        return "".join(_declaration(s) for s in [own, *others])

    @classmethod
    def type_hash(cls) -> bytes:
        return _type_hash(cls)

    @classmethod
    def abi_type(cls) -> str:
        return "(" + ",".join(_abi_type(t) for _, t in _fields(cls)) + ")"

    def struct_hash(self) -> bytes:
        parts = [_encode_value(t, getattr(self, name)) for name, t in _fields(type(self))]
        return keccak(self.type_hash() + b"".join(parts))

    def typed_digest(self, domain: Domain) -> bytes:
        """keccak256(0x19 0x01 ‖ domain separator ‖ struct hash)."""
        return keccak(b"\x19\x01" + domain.separator() + self.struct_hash())

    def to_abi(self) -> tuple[Any, ...]:
        """The nested tuple that eth-abi and web3 take for this structure."""
        return tuple(_to_abi(t, getattr(self, name)) for name, t in _fields(type(self)))

    def abi_encode(self) -> bytes:
        """abi.encode(struct) as Solidity does it."""
        return encode([self.abi_type()], [self.to_abi()])

    @classmethod
    def from_abi(cls, value: Any) -> Self:
        """From the nested tuple (or mapping) that eth-abi or web3 returns."""
        return validate(cls, _from_abi(cls, value))

    @classmethod
    def abi_decode(cls, data: bytes) -> Self:
        """The inverse of `abi_encode`; bytes that Solidity's abi.encode would not write are refused."""
        return cls.from_abi(decode_strict(_abi_shape(cls), data))


SolType = str | type[Struct] | tuple["SolType"]


@cache
def _fields(struct: type[Struct]) -> tuple[tuple[str, SolType], ...]:
    hints = get_type_hints(struct, include_extras=True)
    return tuple((name, _resolve(hints[name])) for name in struct.model_fields)


def _resolve(annotation: Any) -> SolType:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    if get_origin(annotation) is Annotated:
        for marker in get_args(annotation)[1:]:
            if isinstance(marker, Sol):
                return marker.name
        return _resolve(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return (_resolve(get_args(annotation)[0]),)
    raise TypeError(f"no Solidity type for {annotation!r}")


@cache
def _referenced(struct: type[Struct]) -> frozenset[type[Struct]]:
    found: set[type[Struct]] = {struct}
    for _, kind in _fields(struct):
        inner = kind[0] if isinstance(kind, tuple) else kind
        if not isinstance(inner, str | tuple):
            found |= _referenced(inner)
    return frozenset(found)


def _declaration(struct: type[Struct]) -> str:
    members = ",".join(f"{_type_text(kind)} {_field_name(name)}" for name, kind in _fields(struct))
    return f"{struct.type_name()}({members})"


def _type_text(kind: SolType) -> str:
    if isinstance(kind, str):
        return kind
    if isinstance(kind, tuple):
        return _type_text(kind[0]) + "[]"
    return kind.type_name()


def _abi_type(kind: SolType) -> str:
    if isinstance(kind, str):
        return kind
    if isinstance(kind, tuple):
        return _abi_type(kind[0]) + "[]"
    return kind.abi_type()


@cache
def _abi_shape(kind: SolType) -> AbiType:
    if isinstance(kind, str):
        return kind
    if isinstance(kind, tuple):
        return [_abi_shape(kind[0])]
    return tuple(_abi_shape(inner) for _, inner in _fields(kind))


@cache
def _type_hash(struct: type[Struct]) -> bytes:
    return keccak(text=struct.encode_type())


def _encode_value(kind: SolType, value: Any) -> bytes:
    if isinstance(kind, tuple):
        return keccak(b"".join(_encode_value(kind[0], item) for item in value))
    if not isinstance(kind, str):
        return bytes(value.struct_hash())
    if kind == "string":
        return keccak(text=value)
    if kind == "bytes":
        return keccak(value)
    return _word(kind, value)


def _word(kind: str, value: Any) -> bytes:
    """One value as abi.encode writes it, in 32 bytes; raises ValueError for one that does not fit its type."""
    if kind == "address":
        return bytes(12) + bytes.fromhex(value[2:])
    if kind.startswith("uint"):
        if not 0 <= value < 1 << int(kind[4:]):
            raise ValueError(f"does not fit {kind}")
        return int(value).to_bytes(32, "big")
    if kind.startswith("bytes") and len(value) == int(kind[5:]):
        return bytes(value).ljust(32, b"\0")
    return encode([kind], [value])


def _to_abi(kind: SolType, value: Any) -> Any:
    if isinstance(kind, tuple):
        return [_to_abi(kind[0], item) for item in value]
    return value if isinstance(kind, str) else value.to_abi()


def _from_abi(kind: SolType, value: Any) -> Any:
    if isinstance(kind, str):
        return value
    if isinstance(kind, tuple):
        if not isinstance(value, list | tuple):
            raise Refused("abi.shape", "an array was expected", found=type(value).__name__)
        return tuple(_from_abi(kind[0], item) for item in value)
    names = [_field_name(name) for name, _ in _fields(kind)]
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise Refused("abi.shape", f"{kind.type_name()} has other fields", expected=", ".join(names))
        value = [value[name] for name in names]
    if not isinstance(value, list | tuple) or len(value) != len(names):
        raise Refused("abi.shape", f"{kind.type_name()} has the wrong number of fields", expected=len(names))
    return {name: _from_abi(inner, item) for name, (_, inner), item in zip(names, _fields(kind), value, strict=True)}
