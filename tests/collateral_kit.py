"""A DcapCollateral on anvil, called without any of the worker's machinery: what the contract itself does."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from oracle.attestation import Collateral
from oracle.attestation.onchain.collateral import Post, posts
from oracle.chain.abi import Contract, load
from oracle.errors import Reverted
from tests.anvil_kit import anvil

RECORDED = Path(__file__).parent / "data" / "attestation"
_IDS = itertools.count(1)


class Node:
    """JSON-RPC to anvil, whose first account is unlocked."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self.account = self.call("eth_accounts")[0]

    def call(self, method: str, *params: Any) -> Any:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": next(_IDS), "method": method, "params": params})
            connection.request("POST", "/", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer["result"]

    def send(self, to: str | None, data: bytes) -> dict[str, Any]:
        """The receipt. Raises NodeError, and sends nothing, when the call reverts."""
        transaction = {"from": self.account, "data": "0x" + data.hex(), **({"to": to} if to else {})}
        gas = self.call("eth_estimateGas", transaction)
        digest = self.call("eth_sendTransaction", {**transaction, "gas": gas})
        deadline = time.monotonic() + 30
        while (receipt := self.call("eth_getTransactionReceipt", digest)) is None:
            assert time.monotonic() < deadline, "anvil does not mine"
            time.sleep(0.005)
        assert int(receipt["status"], 16) == 1
        return dict(receipt)


class NodeError(Exception):
    """anvil's error answer; `data` is what a contract reverted with."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        found = error.get("data")
        self.data = bytes.fromhex(found.removeprefix("0x")) if isinstance(found, str) else b""


@dataclass
class Store:
    """`reverts` of a call are raised as Reverted, by name."""

    node: Node
    address: str
    contract: Contract

    @classmethod
    def deploy(cls, node: Node, root: bytes) -> Store:
        contract = load("DcapCollateral")
        with _decoded(contract):
            return cls(node, node.send(None, contract.deployment(root))["contractAddress"], contract)

    def send(self, function: str, *arguments: Any) -> int:
        """Gas of the receipt."""
        with _decoded(self.contract):
            return int(self.node.send(self.address, self.contract.call(function, *arguments))["gasUsed"], 16)

    def read(self, function: str, *arguments: Any, at: int | None = None) -> Any:
        """What a view answers, at unix seconds `at` where given."""
        data = self.contract.call(function, *arguments)
        overrides: list[Any] = [] if at is None else [{}, {"time": hex(at)}]
        with _decoded(self.contract):
            call = {"from": self.node.account, "to": self.address, "data": "0x" + data.hex()}
            found = self.node.call("eth_call", call, "latest", *overrides)
        return self.contract.result(function, bytes.fromhex(found.removeprefix("0x")))

    def is_needed(self, post: Post) -> bool:
        return post.is_needed(self.read(post.view, *post.key))

    def post(self, collateral: Collateral, pck_chain: Sequence[x509.Certificate] = ()) -> dict[str, int]:
        """Send what is not there yet; gas by function."""
        return {
            call.function: self.send(call.function, *call.arguments)
            for call in posts(collateral, pck_chain)
            if self.is_needed(call)
        }


@contextmanager
def node() -> Iterator[Node]:
    with anvil() as url:
        yield Node(url)


def recorded(name: str) -> Collateral:
    return Collateral.from_json((RECORDED / "collateral" / f"{name}.json").read_text())


@contextmanager
def _decoded(contract: Contract) -> Iterator[None]:
    try:
        yield
    except NodeError as error:
        found = contract.error(error.data)
        raise found if isinstance(found, Reverted) else error from error
