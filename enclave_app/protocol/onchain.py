"""What the contracts keep of an agreement as digests only, and the parts that callers bring again.

Digests are keccak256 over abi.encode, as `Hashing.sol` and `AgreementRegistry.sol` make them.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode

from .digests import keccak
from .eip712 import Struct
from .fields import ZERO32, Address, Bytes, Bytes32, Uint8, Uint64, Uint256
from .structs import Agreement, Dataset, DatasetPolicy, Enclaves, Price, Result, TaskRequest


class DataTerm(Struct):
    """What of a Dataset counts at a request."""

    owner: Address
    id_or_stream: Bytes32
    lineage: Bytes32
    policy: Uint8
    min_version: Uint64
    budget: Uint256


class Admission(Struct):
    """What a request is checked by. `quota` and `proof` show the requester's leaf; nobody reads them where anyone may ask."""

    requesters: Bytes32
    quota: Uint64
    proof: tuple[Bytes32, ...]
    data: tuple[DataTerm, ...]


class Auditors(Struct):
    """Who has to have approved the function; none where nobody has to."""

    accounts: tuple[Address, ...]
    threshold: Uint8

    @property
    def digest(self) -> bytes:
        """What `Agreement.auditors` holds: keccak256(abi.encode(accounts, threshold)), or zero."""
        if not self.accounts:
            return ZERO32
        return keccak(encode(["address[]", "uint8"], [list(self.accounts), self.threshold]))


class Settlement(Struct):
    """What a settlement is checked by."""

    enclave_registry: Address
    tee: Enclaves
    price: Price


class Pricing(Struct):
    """What money is split by; `tee_hash` is the struct hash of `tee`."""

    enclave_registry: Address
    tee_hash: Bytes32
    price: Price


class Fulfilment(Struct):
    """A result as its enclave signed it; `request` holds the task's where it failed or calls back, else nothing."""

    result: Result
    signature: Bytes
    public_outputs: tuple[Bytes, ...]
    request: tuple[TaskRequest, ...]


class Payment(Struct):
    """How a fee in a token is approved (PaymentKind). Times in unix seconds; `value` and `v`, `r`, `s` of a permit."""

    kind: Uint8
    value: Uint256
    valid_after: Uint256
    deadline: Uint256
    v: Uint8
    r: Bytes32
    s: Bytes32


NO_AUDITORS = Auditors(accounts=(), threshold=0)
ALLOWANCE = Payment(kind=0, value=0, valid_after=0, deadline=0, v=0, r=ZERO32, s=ZERO32)


def requester_leaf(address: str, quota: int) -> bytes:
    """A leaf under `Access.requesters`, as OpenZeppelin's StandardMerkleTree hashes (address, uint64)."""
    return keccak(keccak(encode(["address", "uint64"], [address, quota])))


def data_terms(data: Sequence[Dataset]) -> tuple[DataTerm, ...]:
    """What `Admission.data` holds: nothing where every dataset is fixed and none has a budget."""
    if all(d.policy == DatasetPolicy.FIXED and not d.budget for d in data):
        return ()
    return tuple(
        DataTerm(
            owner=d.owner,
            id_or_stream=d.id_or_stream,
            lineage=d.lineage,
            policy=d.policy,
            min_version=d.min_version,
            budget=d.budget,
        )
        for d in data
    )


def admission(agreement: Agreement, quota: int = 0, proof: Sequence[bytes] = ()) -> Admission:
    return Admission(
        requesters=agreement.access.requesters, quota=quota, proof=tuple(proof), data=data_terms(agreement.data)
    )


def admission_hash(agreement: Agreement) -> bytes:
    """keccak256(abi.encode(requesters, dataHash)): what activation keeps for requests to be checked by."""
    terms = data_terms(agreement.data)
    if terms:
        # The odd length keeps this apart from concatenated ids.
        data = encode([f"{DataTerm.abi_type()}[]"], [[term.to_abi() for term in terms]]) + b"\x01"
    else:
        data = b"".join(d.id_or_stream for d in agreement.data)
    return keccak(agreement.access.requesters + keccak(data))


def settlement(agreement: Agreement) -> Settlement:
    return Settlement(enclave_registry=agreement.enclave_registry, tee=agreement.tee, price=agreement.price)


def pricing(agreement: Agreement) -> Pricing:
    return Pricing(
        enclave_registry=agreement.enclave_registry, tee_hash=agreement.tee.struct_hash(), price=agreement.price
    )


def settlement_hash(agreement: Agreement) -> bytes:
    """keccak256(abi.encode(enclaveRegistry, hashStruct(tee), hashStruct(price))): what activation keeps for settlements."""
    return keccak(
        encode(
            ["address", "bytes32", "bytes32"],
            [agreement.enclave_registry, agreement.tee.struct_hash(), agreement.price.struct_hash()],
        )
    )
