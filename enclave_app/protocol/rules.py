"""What an agreement must hold, whoever reads it: the checks of AgreementRegistry.activate, field by field, and stricter in
names (identifiers, no duplicate columns or recipients), so an agreement that passes here activates, and not the other way.

A field whose behaviour is not built yet must hold its off value (`agreement.not_yet`); an empty policy refuses (R21).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .eip712 import Struct
from .errors import Refused
from .fields import ZERO32, ZERO_ADDRESS, is_label
from .structs import (
    Agreement,
    Confirmation,
    DatasetPolicy,
    Enclaves,
    FunctionKind,
    KeyRelease,
    Output,
    OutputKind,
    Price,
    TaskRequest,
    TcbStatus,
)

MAX_DATASETS = MAX_BROKERS = MAX_OUTPUTS = MAX_PAYEES = 16
MAX_COLUMNS = 1024
MAX_RECIPIENTS = 64
MAX_OWNERS = MAX_DATASETS + 1
MAX_POLICY_LIST = 64
"""`fulfil` searches measurements, anchors, operators and platforms, so their number is a cost of every task."""
MAX_NOT_AFTER = (1 << 40) - 1
KNOWN_STATUSES = sum(1 << s for s in TcbStatus if s is not TcbStatus.REVOKED)
AS_OF_WINDOW = 3600
"""How far a request's `asOf` may lie before the block's time, in seconds; it never lies after it (R14)."""
MAX_DEADLINE = 30 * 86400
MAX_PARAMS = 4096
MAX_CALLBACK_GAS = 1_000_000
AGREEMENT_OFF: Mapping[str, object] = {
    "fn.sealedId": ZERO32,
    "fn.sharesDigest": ZERO32,
    "fn.kind": FunctionKind.SQL,
    "fn.deterministic": True,
    "data.policy": DatasetPolicy.FIXED,
    "data.minVersion": 0,
    "data.budget": 0,
}
"""The only value that this version takes, by field; docs/protocol.md and the contracts have the same table."""
REQUEST_OFF: Mapping[str, object] = {"inputsId": ZERO32, "inputShares": ZERO32, "spend": 0}
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def check_agreement(agreement: Agreement) -> None:
    """Raise `Refused` for the first term that is not one (R7), is empty (R21), or is not built yet."""
    _check_off(agreement, AGREEMENT_OFF)
    fn = agreement.fn
    _set("fn.id", fn.id)
    _address("fn.owner", fn.owner)
    limits = fn.limits
    if min(limits.memory_mib, limits.time_seconds, limits.output_bytes, limits.output_rows) < 1:
        raise Refused("agreement.limits", "a limit of the function is zero")
    _address("oracle", agreement.oracle)
    _address("enclaveRegistry", agreement.enclave_registry)
    _set("paramDomain", agreement.param_domain)
    _set("salt", agreement.salt)
    _count("data", agreement.data, MAX_DATASETS)
    _distinct("data", [d.name for d in agreement.data])
    for data in agreement.data:
        if not _IDENTIFIER.fullmatch(data.name):
            raise Refused(
                "agreement.name", "a dataset's name is not a lower-case identifier", found=repr(data.name[:80])
            )
        _address(f"data.{data.name}.owner", data.owner)
        for label, value in (
            ("idOrStream", data.id_or_stream),
            ("lineage", data.lineage),
            ("sharesDigest", data.shares_digest),
        ):
            _set(f"data.{data.name}.{label}", value)
        _count(f"data.{data.name}.columns", data.columns, MAX_COLUMNS)
        _distinct(f"data.{data.name}.columns", data.columns)
        if not all(column and is_label(column) for column in data.columns):
            raise Refused("agreement.name", "a column's name is empty, or does not read as what it is", found=data.name)
    _check_enclaves(agreement.tee)
    _check_keys(agreement.keys)
    _count("outputs", agreement.outputs, MAX_OUTPUTS)
    _distinct("outputs", [o.name for o in agreement.outputs])
    for output in agreement.outputs:
        _check_output(output)
    # R9: what the chain says cannot be taken back, so the chain must not be able to take the request back.
    if any(o.is_public for o in agreement.outputs) and agreement.keys.confirmation != Confirmation.FINALIZED:
        raise Refused("agreement.confirmation", "a public output goes with the confirmation rule `finalized` only (R9)")
    _set("access.requesters", agreement.access.requesters)
    if not 1 <= agreement.access.quota_per_requester <= agreement.access.quota:
        raise Refused(
            "agreement.quota", "the quota must be at least 1, and a requester's share of it between 1 and that"
        )
    _check_price(agreement.price)
    if not agreement.not_before < agreement.not_after:
        raise Refused("agreement.validity", "an agreement ends before it begins")
    if agreement.not_after > MAX_NOT_AFTER:
        raise Refused("agreement.validity", "an agreement ends too late", expected=f"at most {MAX_NOT_AFTER}")


def check_request(agreement: Agreement, request: TaskRequest) -> None:
    """Raise `Refused` where a request does not fit its agreement (R7); time and quota are the contract's."""
    if request.versions != tuple(d.id_or_stream for d in agreement.data):
        raise Refused("request.versions", "a request names other dataset versions than its agreement takes (R7b)")
    _check_off(request, REQUEST_OFF)
    # R15: a contract has no key, and needs none where no output is for it.
    if any(ZERO32 in output.recipients for output in agreement.outputs):
        _set("request.resultKey", request.result_key)
    if len(request.params) > MAX_PARAMS:
        raise Refused("request.params", "the parameters are too long", found=len(request.params), expected=MAX_PARAMS)


def _check_enclaves(tee: Enclaves) -> None:
    _count("tee.measurements", tee.measurements, MAX_POLICY_LIST)
    _count("tee.anchors", tee.anchors, MAX_POLICY_LIST)
    _count("tee.operators", tee.operators, MAX_POLICY_LIST, least=0)
    _count("tee.platforms", tee.platforms, MAX_POLICY_LIST, least=0)
    for value in (*tee.measurements, *tee.anchors, *tee.platforms):
        _set("tee", value)
    if not tee.status_mask or tee.status_mask & ~KNOWN_STATUSES:
        raise Refused("agreement.statuses", "the TCB statuses taken are none, unknown, or include Revoked (R21)")
    if tee.eval_floor < 1 or tee.max_evidence_age < 1:
        raise Refused("agreement.evidence", "the evaluation floor and the oldest evidence must be set (R21)")
    if tee.any_host == bool(tee.operators or tee.platforms):
        raise Refused("agreement.hosts", "an agreement names its hosts or writes anyHost out, one of the two (R5)")
    if ZERO_ADDRESS in tee.operators:
        raise Refused("agreement.hosts", "the zero address is no operator (R5)")


def _check_keys(keys: KeyRelease) -> None:
    _count("keys.brokers", keys.brokers, MAX_BROKERS)
    _distinct("keys.brokers", [b.hpke_key for b in keys.brokers])
    _distinct("keys.brokers", [b.signer for b in keys.brokers])
    for broker in keys.brokers:
        _set("keys.brokers", broker.hpke_key)
        _address("keys.brokers", broker.signer)
    if not 1 <= keys.threshold <= len(keys.brokers):
        raise Refused("agreement.threshold", "the threshold must be between 1 and the number of brokers")
    if keys.max_releases < 1:
        raise Refused("agreement.releases", "the cap of releases must be at least 1 (R13)")
    if keys.confirmation not in set(Confirmation):
        raise Refused("agreement.confirmation", "an unknown confirmation rule", found=keys.confirmation)
    if keys.confirm_blocks and keys.confirmation != Confirmation.LATEST:
        raise Refused("agreement.confirmation", "confirmation blocks go with the confirmation rule `latest` only")


def _check_output(output: Output) -> None:
    if not _IDENTIFIER.fullmatch(output.name):
        raise Refused("agreement.name", "an output's name is not a lower-case identifier", found=repr(output.name[:80]))
    if output.kind not in set(OutputKind):
        raise Refused("agreement.output_kind", f"outputs.{output.name} is of an unknown kind", found=output.kind)
    # What a contract reads is public; nobody decodes a sealed one on chain, nor a table.
    if (output.kind == OutputKind.ABI_VALUES) != output.is_public:
        raise Refused(
            "agreement.output_kind",
            f"outputs.{output.name}: ABI values are for outputs without recipients, and tables for those with some (R17)",
            found=output.kind,
        )
    _count(f"outputs.{output.name}.recipients", output.recipients, MAX_RECIPIENTS, least=0)
    _distinct(f"outputs.{output.name}.recipients", output.recipients)
    _count(f"outputs.{output.name}.owners", output.owners, MAX_OWNERS)
    for owner in output.owners:
        _address(f"outputs.{output.name}.owners", owner)
    if output.size_class < 1:
        raise Refused("agreement.size_class", "an output has no size class (R18)")
    if output.is_public and output.size_class != 1:
        raise Refused(
            "agreement.size_class", "a public output is not padded: its size class is 1", found=output.size_class
        )


def _check_price(price: Price) -> None:
    _count("price.to", price.to, MAX_PAYEES, least=0)
    if price.fee >= 1 << 128 or price.failed_fee > price.fee:
        raise Refused("agreement.price", "the fee is too large, or the fee for a failure is above it")
    if price.min_fee > price.fee or (price.min_fee and not sum(price.bps)):
        raise Refused(
            "agreement.price", "what is kept of the fee of a task that expires is above the fee, or goes to nobody"
        )
    if len(price.to) != len(price.bps) or sum(price.bps) > 10_000 or ZERO_ADDRESS in price.to:
        raise Refused(
            "agreement.price", "the shares of the fee do not match their payees, or exceed 10,000 basis points"
        )


def _set(label: str, value: bytes) -> None:
    if not any(value):
        raise Refused("agreement.empty", f"{label} is not set")


def _address(label: str, value: str) -> None:
    if value == ZERO_ADDRESS:
        raise Refused("agreement.empty", f"{label} is the zero address")


def _count(label: str, values: Sequence[object], limit: int, *, least: int = 1) -> None:
    if not least <= len(values) <= limit:
        raise Refused(
            "agreement.count",
            f"{label} has the wrong number of entries",
            found=len(values),
            expected=f"{least} to {limit}",
        )


def _distinct(label: str, values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise Refused("agreement.duplicate", f"{label} names something twice")


def _check_off(struct: Struct, table: Mapping[str, object]) -> None:
    """A request's code is `agreement.not_yet` too: what is missing is the same thing."""
    for path, off in table.items():
        if any(value != off for value in field_values(struct, path)):
            raise Refused("agreement.not_yet", f"{path} has a value that this version does not support yet")


def field_values(struct: Struct, path: str) -> Iterator[object]:
    """Every value at a dotted path of EIP-712 field names; an array on the way stands for all its entries."""
    alias, _, rest = path.partition(".")
    name = next(name for name, field in type(struct).model_fields.items() if field.alias == alias)
    value = getattr(struct, name)
    for item in value if isinstance(value, tuple) else (value,):
        yield from field_values(item, rest) if rest else (item,)
