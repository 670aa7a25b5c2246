"""A request before it is sent: made whole and checked, paid for, and, where somebody else is to bring it, a file that travels.

A relayed request costs its requester no gas. Whoever brings it pays that, and the fee too where it is in the chain's own coin.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import MAX_DOCUMENT, Document, load, validate
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO_ADDRESS, Address, Bytes, Uint256
from enclave_app.protocol.onchain import Admission, Payment
from enclave_app.protocol.structs import Agreement, TaskRequest
from oracle.agreement.document import MAX_CONTRACT_SIGNATURE
from oracle.chain.abi import load as load_contract
from oracle.files import read_file
from oracle.naming import naming
from oracle.payment import Fee

Signature = Annotated[Bytes, Field(max_length=MAX_CONTRACT_SIGNATURE)]


@dataclass(frozen=True)
class Asking:
    """A request under an agreement, with what the contract checks it by. `task_id` is what its requester signs for a relayer."""

    agreement: Agreement
    request: TaskRequest
    admission: Admission
    task_id: bytes

    @property
    def value(self) -> int:
        """Wei that go with the request."""
        return self.agreement.price.fee if self.agreement.price.token == ZERO_ADDRESS else 0

    @property
    def fee(self) -> Fee | None:
        """What is paid in a token, if it is."""
        price = self.agreement.price
        if price.token == ZERO_ADDRESS or not price.fee:
            return None
        return Fee(price.token, price.fee, self.agreement.oracle, self.task_id, self.request.deadline)

    def call(self) -> bytes:
        """Calldata for the requester's own transaction, where the oracle may take the fee."""
        return load_contract("ComputeOracle").call("request", self.request, self.admission, "")

    def call_for(self, payment: Payment, signature: bytes) -> bytes:
        """Calldata for anyone; `signature` is not read where the requester sends it."""
        return load_contract("ComputeOracle").call("requestFor", self.request, self.admission, "", signature, payment)


class SignedRequest(Document):
    """What a requester gives a relayer. Nobody can change a word of it, and nobody can use it twice.

    `signature` is over the task's id; empty in a file that waits for a contract wallet's, which only the chain can check.
    """

    format: Literal["enclave-oracle/signed-request"] = "enclave-oracle/signed-request"
    v: Literal[1] = 1
    chain_id: Uint256
    oracle: Address
    request: TaskRequest
    admission: Admission
    payment: Payment
    signature: Signature


def read_signed_request(path: Path) -> SignedRequest:
    """Raises Refused `file.*`, `json.*` or `document.invalid`, naming the file."""
    data = read_file(path, MAX_DOCUMENT)
    with naming(path):
        return parse_signed_request(data)


def parse_signed_request(data: bytes) -> SignedRequest:
    """From untrusted bytes; Refused `json.*` or `document.invalid`."""
    return validate(SignedRequest, load(data, canonical=False))


def check_signature(document: SignedRequest, task_id: bytes, has_code: bool) -> None:
    """The requester's signature, before anybody pays gas for it; a contract's own only the chain can check.

    Raises Refused `relay.unsigned` for none, and `signature.*` for another's.
    """
    if not document.signature:
        raise Refused(
            "relay.unsigned",
            "the request is not signed yet",
            found=document.request.requester,
            expected=f"its signature over 0x{task_id.hex()}",
            hint="Give it with --signature",
        )
    if not has_code:
        signing.check(task_id, document.signature, document.request.requester, "the request")
