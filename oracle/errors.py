"""Errors of the untrusted side: the protocol's hierarchy, and what the chain adds to it."""

from __future__ import annotations

from enclave_app.protocol.errors import Bug, OracleError, Permanent, Refused, Retryable

__all__ = ["Bug", "OracleError", "Permanent", "Refused", "Retryable", "Reverted", "RpcFault"]


class RpcFault(Retryable):
    """An RPC endpoint answered with an error. `data` holds revert bytes where it gave any."""

    def __init__(self, code: int, message: str, data: bytes | None) -> None:
        super().__init__("rpc.fault", f"an RPC endpoint answered with error {code}: {message[:300]}")
        self.rpc_code, self.data = code, data


class Reverted(Permanent):
    """A contract refused. `name` is its custom error, `args` the error's arguments by name."""

    def __init__(self, name: str, arguments: dict[str, object]) -> None:
        shown = ", ".join(f"{key} = {_short(value)}" for key, value in arguments.items())
        super().__init__(f"contract.{name}", f"the contract refused: {name}({shown})")
        self.name, self.arguments = name, arguments


def _short(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
