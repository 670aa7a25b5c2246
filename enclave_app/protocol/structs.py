"""The signed structures. Field order and names are consensus and equal those of contracts/src/Types.sol."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

from .digests import keccak
from .eip712 import Domain, Struct
from .fields import Address, Bytes, Bytes32, Flag, Text, Uint8, Uint16, Uint32, Uint64, Uint256

ANYONE = keccak(text="enclave-oracle/anyone")
"""`Access.requesters` when any address may request."""


class FunctionKind(IntEnum):
    SQL = 1
    PYTHON = 2
    ONNX = 3
    PADDLE = 4
    WASM = 5


class DatasetPolicy(IntEnum):
    """R7b: which version of a dataset a request may name."""

    FIXED = 1
    PINNED = 2
    AT_LEAST = 3
    LATEST = 4


class TcbStatus(IntEnum):
    """Intel's TCB statuses; `Enclaves.status_mask` has bit 1 << status set for each one that is taken."""

    UP_TO_DATE = 1
    SW_HARDENING_NEEDED = 2
    CONFIGURATION_NEEDED = 3
    CONFIGURATION_AND_SW_HARDENING_NEEDED = 4
    OUT_OF_DATE = 5
    OUT_OF_DATE_CONFIGURATION_NEEDED = 6
    REVOKED = 7
    TD_RELAUNCH_ADVISED = 8
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = 9


class Tee(IntEnum):
    SGX = 1
    TDX = 2
    SNP = 3
    NITRO = 4


class Confirmation(IntEnum):
    """R9: which block counts as confirmed."""

    LATEST = 1
    SAFE = 2
    FINALIZED = 3


class OutputKind(IntEnum):
    ARROW_TABLE = 1
    ABI_VALUES = 2
    """One row, as Solidity's ABI encodes it: public outputs, and only they."""


class PaymentKind(IntEnum):
    """How a fee in a token is approved."""

    ALLOWANCE = 0
    PERMIT = 1
    AUTHORIZATION = 2


class Outcome(IntEnum):
    SUCCEEDED = 1
    FAILED = 2


class TaskState(IntEnum):
    NONE = 0
    REQUESTED = 1
    FULFILLED = 2
    FAILED = 3
    CANCELLED = 4
    EXPIRED = 5


class Limits(Struct):
    memory_mib: Uint32
    time_seconds: Uint32
    output_bytes: Uint64
    output_rows: Uint64


class Function(Struct):
    id: Bytes32
    sealed_id: Bytes32
    shares_digest: Bytes32
    owner: Address
    kind: Uint8
    deterministic: Flag
    limits: Limits


class Dataset(Struct):
    name: Text
    owner: Address
    id_or_stream: Bytes32
    lineage: Bytes32
    shares_digest: Bytes32
    policy: Uint8
    min_version: Uint64
    columns: tuple[Text, ...]
    budget: Uint256


class Enclaves(Struct):
    measurements: tuple[Bytes32, ...]
    anchors: tuple[Bytes32, ...]
    status_mask: Uint32
    eval_floor: Uint32
    grace_days: Uint32
    max_evidence_age: Uint64
    any_host: Flag
    operators: tuple[Address, ...]
    platforms: tuple[Bytes32, ...]


class Broker(Struct):
    hpke_key: Bytes32
    signer: Address


class KeyRelease(Struct):
    brokers: tuple[Broker, ...]
    threshold: Uint8
    max_releases: Uint8
    confirmation: Uint8
    confirm_blocks: Uint32
    release_delay: Uint32


class Output(Struct):
    name: Text
    kind: Uint8
    recipients: tuple[Bytes32, ...]
    owners: tuple[Address, ...]
    size_class: Uint32

    @property
    def is_public(self) -> bool:
        """R17: nothing is sealed; the content stands in the settlement, and the host knows it before."""
        return not self.recipients


class Access(Struct):
    requesters: Bytes32
    quota: Uint64
    quota_per_requester: Uint64


class Price(Struct):
    token: Address
    fee: Uint256
    min_fee: Uint256
    failed_fee: Uint256
    to: tuple[Address, ...]
    bps: tuple[Uint16, ...]


class Agreement(Struct):
    """A data-use agreement (R7). Its id is its digest in the AgreementRegistry's domain."""

    oracle: Address
    enclave_registry: Address
    fn: Function
    data: tuple[Dataset, ...]
    tee: Enclaves
    keys: KeyRelease
    param_domain: Bytes32
    outputs: tuple[Output, ...]
    access: Access
    price: Price
    not_before: Uint64
    not_after: Uint64
    activate_before: Uint64
    supersedes: Bytes32
    auditors: Bytes32
    salt: Bytes32

    def parties(self) -> tuple[str, ...]:
        """Who must sign: the function owner, then the data owners, each once."""
        return tuple(dict.fromkeys([self.fn.owner, *(d.owner for d in self.data)]))

    def struct_hash(self) -> bytes:
        return _agreement_hash(self)


@lru_cache(maxsize=4)
def _agreement_hash(agreement: Agreement) -> bytes:
    """The few that are in use are hashed again and again; equal ones have equal hashes. So few, because a host can make them
    as large as a message."""
    return Struct.struct_hash(agreement)


class TaskRequest(Struct):
    """A request under an agreement. Its task id is its digest in the ComputeOracle's domain."""

    agreement_id: Bytes32
    requester: Address
    nonce: Bytes32
    versions: tuple[Bytes32, ...]
    inputs_id: Bytes32
    input_shares: Bytes32
    params: Bytes
    result_key: Bytes32
    spend: Uint256
    max_fee: Uint256
    as_of: Uint64
    deadline: Uint64
    callback: Address
    callback_gas: Uint32


class Out(Struct):
    name: Text
    kind: Uint8
    recipients_digest: Bytes32
    length: Uint64
    digest: Bytes32


class Result(Struct):
    """What `signer` says came out of a task; the payee is inside (R20)."""

    agreement_id: Bytes32
    task_id: Bytes32
    outcome: Uint8
    outputs: tuple[Out, ...]
    payee: Address
    anchor: Bytes32


class Batch(Struct):
    """One signature for many tasks of one agreement: `results[i]` is the digest of the Result of `tasks[i]`, each a success
    without public outputs that names this payee and anchor."""

    agreement_id: Bytes32
    payee: Address
    anchor: Bytes32
    tasks: tuple[Bytes32, ...]
    results: tuple[Bytes32, ...]


class Audit(Struct):
    """An auditor's word about a function, in the FunctionAudits' domain; `report` is the digest of what it wrote."""

    function_id: Bytes32
    report: Bytes32


class VerifierStatement(Struct):
    tee: Uint8
    measurement: Bytes32
    report_data: Bytes32
    root: Bytes32
    tcb_status: Uint8
    evaluation: Uint32
    platform: Bytes32
    svn_digest: Bytes32
    collateral: Bytes32
    appraised_at: Uint64
    valid_until: Uint64


class Enrolment(Struct):
    """The enclave key's proof of possession (R2), in the EnclaveRegistry's domain."""

    signer: Address
    sealing_key: Bytes32
    block_hash: Bytes32
    operator: Address


class Host(Struct):
    """An operator's word that it hosts `signer` (R5), in the EnclaveRegistry's domain."""

    signer: Address


class Retire(Struct):
    signer: Address


class RegisteredIdentity(Struct):
    """IEnclaveRegistry.Identity: what a registration says for good. The registry keeps its digest, and whoever needs the parts
    brings them. `verifier` is the measurement of the enclave that vouched for it, zero where a contract checked the evidence.
    """

    measurement: Bytes32
    platform: Bytes32
    sealing_key: Bytes32
    svn_digest: Bytes32
    verifier: Bytes32
    operator: Address
    tee: Uint8

    @property
    def digest(self) -> bytes:
        """keccak256(abi.encode(identity)), as the registry keeps it."""
        return keccak(self.abi_encode())


class ReleaseRequest(Struct):
    """What an enclave asks one broker (R12, R13), signed by `signer` in the ComputeOracle's domain."""

    agreement_id: Bytes32
    task_id: Bytes32
    broker: Bytes32
    nonce: Bytes32
    sealing_key: Bytes32
    anchor: Bytes32


class ReleaseStatement(Struct):
    """What a broker says it released (R13), signed by the broker in the ComputeOracle's domain. Receipts keep it.

    `keys` is the digest of the key ids, `answer` the SHA-256 of the sealed answer, `time` the broker's clock in unix
    seconds, `block_number` and `block_hash` the confirmed block at which it read the chain.
    """

    agreement_id: Bytes32
    task_id: Bytes32
    signer: Address
    nonce: Bytes32
    broker: Bytes32
    keys: Bytes32
    answer: Bytes32
    collateral: Bytes32
    time: Uint64
    block_number: Uint64
    block_hash: Bytes32


class OutputShares(Struct):
    """`signer`'s word for the share list of a sealed output (R17), in the ComputeOracle's domain."""

    agreement_id: Bytes32
    task_id: Bytes32
    output_id: Bytes32
    shares: Bytes32


class Chain(Struct):
    """Where an agreement lives; not signed, it makes the domains."""

    chain_id: Uint256
    agreement_registry: Address

    def agreement_domain(self) -> Domain:
        return Domain(chain_id=self.chain_id, verifying_contract=self.agreement_registry)

    def agreement_id(self, agreement: Agreement) -> bytes:
        return agreement.typed_digest(self.agreement_domain())

    def oracle_domain(self, agreement: Agreement) -> Domain:
        return Domain(chain_id=self.chain_id, verifying_contract=agreement.oracle)

    def enclave_domain(self, agreement: Agreement) -> Domain:
        return Domain(chain_id=self.chain_id, verifying_contract=agreement.enclave_registry)
