"""Contract bindings from the ABIs that ship with the package: calls, events and custom errors, as bytes and back.

Encoding on eth-abi directly: web3's contract objects cost several times as much per call and log (docs/architecture.md).
Decoding in the ABI's strict mode, which is what Solidity writes: eth-abi follows offsets wherever an endpoint points them,
and some kilobytes of them become gigabytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from eth_abi.abi import encode
from eth_utils.abi import collapse_if_tuple

from enclave_app.protocol.abi import AbiType, decode_members
from enclave_app.protocol.digests import keccak
from enclave_app.protocol.eip712 import Struct
from oracle.errors import OracleError, Refused, Reverted, RpcFault


@dataclass(frozen=True)
class Log:
    """One log as the chain gave it, with the position that makes it unique: (block hash, transaction hash, index)."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    index: int


class Contract:
    """The functions, events and errors of one contract or interface. `bytecode` creates it, `runtime` is what is left on chain
    (with its immutables zero); `source` and `compiler` say what both were made of."""

    def __init__(self, name: str, artifact: dict[str, Any]) -> None:
        self.name = name
        self.bytecode = bytes.fromhex((artifact.get("bytecode") or "").removeprefix("0x"))
        self.runtime = bytes.fromhex((artifact.get("deployedBytecode") or "").removeprefix("0x"))
        self._immutables: list[list[int]] = artifact.get("immutables", [])
        self.source = str(artifact.get("source", ""))
        self.compiler = str(artifact.get("compiler", {}).get("version", ""))
        abi = artifact["abi"]
        self._functions = {e["name"]: e for e in abi if e["type"] == "function"}
        self._events = {e["name"]: e for e in abi if e["type"] == "event"}
        self._topics = {name: keccak(text=_signature(e)) for name, e in self._events.items()}
        self._selectors = {name: keccak(text=_signature(e))[:4] for name, e in self._functions.items()}
        self._errors = {keccak(text=_signature(e))[:4]: e for e in abi if e["type"] == "error"}
        self._constructor: dict[str, Any] = next((e for e in abi if e["type"] == "constructor"), {"inputs": []})

    def call(self, function: str, *args: Any) -> bytes:
        """Calldata; arguments may be protocol structures."""
        entry = self._functions[function]
        return self._selectors[function] + encode(_types(entry["inputs"]), [_plain(a) for a in args])

    def result(self, function: str, data: bytes) -> Any:
        """A function's return value: structures become dicts by field name; one value stands alone, several are a tuple."""
        outputs = self._functions[function]["outputs"]
        values = _decode(outputs, data, f"{self.name}.{function}")
        named = tuple(_named(o, v) for o, v in zip(outputs, values, strict=True))
        return named[0] if len(named) == 1 else named

    def arguments(self, function: str, data: bytes) -> tuple[Any, ...]:
        """What `call` made calldata of, structures as dicts. Raises Refused `abi.decode` for calldata of something else."""
        entry = self._functions[function]
        if data[:4] != self._selectors[function]:
            raise Refused("abi.decode", f"calldata of something else than {self.name}.{function}")
        values = _decode(entry["inputs"], data[4:], f"{self.name}.{function}")
        return tuple(_named(i, v) for i, v in zip(entry["inputs"], values, strict=True))

    def topic(self, event: str) -> bytes:
        return self._topics[event]

    def event(self, log: Log) -> tuple[str, dict[str, Any]] | None:
        """The event's name and its fields, or None for a log of something else."""
        for name, entry in self._events.items():
            if log.topics and log.topics[0] == self._topics[name]:
                indexed = [i for i in entry["inputs"] if i["indexed"]]
                rest = [i for i in entry["inputs"] if not i["indexed"]]
                if len(log.topics) != len(indexed) + 1:
                    return None
                fields = {
                    i["name"]: _named(i, _decode([i], topic, name)[0])
                    for i, topic in zip(indexed, log.topics[1:], strict=True)
                }
                values = _decode(rest, log.data, name)
                fields.update({i["name"]: _named(i, v) for i, v in zip(rest, values, strict=True)})
                return name, fields
        return None

    def error(self, data: bytes) -> Reverted | None:
        """A custom error of this contract from revert data."""
        entry = self._errors.get(data[:4])
        if entry is None:
            return None
        values = _decode(entry["inputs"], data[4:], entry["name"])
        return Reverted(
            entry["name"],
            {i["name"] or str(n): _named(i, v) for n, (i, v) in enumerate(zip(entry["inputs"], values, strict=True))},
        )

    def without_immutables(self, code: bytes) -> bytes:
        """Code from a chain as it was compiled, if it is this contract's: what the constructor wrote into it is zero again."""
        plain = bytearray(code)
        for start, length in self._immutables:
            plain[start : start + length] = bytes(length)
        return bytes(plain)

    def deployment(self, *args: Any) -> bytes:
        """Creation code with its constructor's arguments."""
        return self.bytecode + encode(_types(self._constructor["inputs"]), [_plain(a) for a in args])


@cache
def load(name: str) -> Contract:
    """The shipped contract `name`."""
    text = resources.files("oracle").joinpath("abi", f"{name}.json").read_text("utf-8")
    return Contract(name, json.loads(text))


CORE = (
    "ComputeOracle",
    "AgreementRegistry",
    "DatasetStreams",
    "FunctionAudits",
    "EnclaveRegistry",
    "AttestedVerifier",
    "DcapVerifier",
    "DcapCollateral",
)


def request_arguments(calldata: bytes) -> Any | None:
    """The Admission that a transaction to ComputeOracle showed, as a dict; None for a transaction of something else."""
    for function in ("request", "requestFor"):
        try:
            return load("ComputeOracle").arguments(function, calldata)[1]
        except Refused:
            continue
    return None


def explain_revert(fault: RpcFault) -> OracleError:
    """The typed reason in an RPC fault, if it is a contract's refusal; else the fault itself."""
    if fault.data:
        for name in CORE:
            found = load(name).error(fault.data)
            if found is not None:
                return found
        if fault.data[:4] == keccak(text="Error(string)")[:4]:
            (text,) = _decode([{"type": "string"}], fault.data[4:], "Error")
            return Reverted("Error", {"message": text})
        return Reverted("Unknown", {"data": fault.data[:64]})
    return fault


def _signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(_types(entry['inputs']))})"


def _types(inputs: list[dict[str, Any]]) -> list[str]:
    return [str(collapse_if_tuple(i)) for i in inputs]


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return value.to_abi()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _named(entry: dict[str, Any], value: Any) -> Any:
    if entry["type"].startswith("tuple"):
        if entry["type"].endswith("]"):
            inner = {**entry, "type": entry["type"][: entry["type"].rindex("[")]}
            return tuple(_named(inner, item) for item in value)
        return {c["name"]: _named(c, v) for c, v in zip(entry["components"], value, strict=True)}
    return tuple(value) if isinstance(value, list | tuple) else value


def _decode(entries: list[dict[str, Any]], data: bytes, what: str) -> tuple[Any, ...]:
    try:
        return tuple(decode_members([_shape(entry) for entry in entries], data))
    except Refused as error:
        raise Refused("abi.decode", f"the chain's answer is no {what}: {error.message}") from None


def _shape(entry: dict[str, Any]) -> AbiType:
    """An ABI entry's type as `decode_members` takes it."""
    name: str = entry["type"]
    if name.endswith("[]"):
        return [_shape({**entry, "type": name[:-2]})]
    if name == "tuple":
        return tuple(_shape(component) for component in entry["components"])
    return name
