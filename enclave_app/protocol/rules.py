"""What an agreement must hold, whoever reads it: the same checks as AgreementRegistry.activate, field by field.

A field whose behaviour is not built yet must hold its off value (`agreement.not_yet`); an empty policy refuses (R21).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .errors import Refused
from .fields import ZERO32, ZERO_ADDRESS
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

MAX_DATASETS = MAX_BROKERS = MAX_OUTPUTS = 16
KNOWN_STATUSES = sum(1 << s for s in TcbStatus if s is not TcbStatus.REVOKED)
AS_OF_WINDOW = 3600
"""How far a request's `asOf` may lie before the block's time, in seconds; it never lies after it (R14)."""
MAX_DEADLINE = 30 * 86400
MAX_PARAMS = 4096
MAX_CALLBACK_GAS = 1_000_000
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def check_agreement(agreement: Agreement) -> None:
    """Raise `Refused` for the first rule that an agreement breaks."""
    fn = agreement.fn
    _set("fn.id", fn.id)
    _address("fn.owner", fn.owner)
    _not_yet("fn.kind", fn.kind == FunctionKind.SQL)
    _not_yet("fn.deterministic", fn.deterministic)
    _not_yet("fn.sealedId", fn.sealed_id == ZERO32)
    _not_yet("fn.sharesDigest", fn.shares_digest == ZERO32)
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
        _count(f"data.{data.name}.columns", data.columns, 4096)
        _distinct(f"data.{data.name}.columns", data.columns)
        _not_yet(f"data.{data.name}.policy", data.policy == DatasetPolicy.FIXED)
        _not_yet(f"data.{data.name}.minVersion", data.min_version == 0)
        _not_yet(f"data.{data.name}.budget", data.budget == 0)
    _check_enclaves(agreement.tee)
    _check_keys(agreement.keys)
    _count("outputs", agreement.outputs, MAX_OUTPUTS)
    _distinct("outputs", [o.name for o in agreement.outputs])
    for output in agreement.outputs:
        _check_output(output)
    _set("access.requesters", agreement.access.requesters)
    if not 1 <= agreement.access.quota_per_requester <= agreement.access.quota:
        raise Refused(
            "agreement.quota", "the quota must be at least 1, and a requester's share of it between 1 and that"
        )
    _check_price(agreement.price)
    if not agreement.not_before < agreement.not_after:
        raise Refused("agreement.validity", "an agreement ends before it begins")
    _not_yet("supersedes", agreement.supersedes == ZERO32)
    _not_yet("auditors", agreement.auditors == ZERO32)


def check_request(agreement: Agreement, request: TaskRequest) -> None:
    """Raise `Refused` where a request does not fit its agreement; time and quota are the contract's."""
    if request.versions != tuple(d.id_or_stream for d in agreement.data):
        raise Refused("request.versions", "a request names other dataset versions than its agreement takes (R7b)")
    _not_yet("request.inputsId", request.inputs_id == ZERO32)
    _not_yet("request.inputShares", request.input_shares == ZERO32)
    _not_yet("request.spend", request.spend == 0)
    _set("request.resultKey", request.result_key)
    if len(request.params) > MAX_PARAMS:
        raise Refused("request.params", "the parameters are too long", found=len(request.params), expected=MAX_PARAMS)


def _check_enclaves(tee: Enclaves) -> None:
    _count("tee.measurements", tee.measurements, 64)
    _count("tee.anchors", tee.anchors, 16)
    for value in (*tee.measurements, *tee.anchors, *tee.platforms):
        _set("tee", value)
    if not tee.status_mask or tee.status_mask & ~KNOWN_STATUSES:
        raise Refused("agreement.statuses", "the TCB statuses taken are none, unknown, or include Revoked (R21)")
    if tee.eval_floor < 1 or tee.max_evidence_age < 1:
        raise Refused("agreement.evidence", "the evaluation floor and the oldest evidence must be set (R21)")
    _not_yet("tee.graceDays", tee.grace_days == 0)
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
    _not_yet(f"outputs.{output.name}.kind", output.kind == OutputKind.ARROW_TABLE)
    _not_yet(f"outputs.{output.name}.recipients", bool(output.recipients))
    _distinct(f"outputs.{output.name}.recipients", output.recipients)
    _count(f"outputs.{output.name}.owners", output.owners, 16)
    if output.size_class < 1:
        raise Refused("agreement.size_class", "an output has no size class (R18)")


def _check_price(price: Price) -> None:
    _not_yet("price.token", price.token == ZERO_ADDRESS)
    _not_yet("price.minFee", price.min_fee == 0)
    if price.fee >= 1 << 128 or price.failed_fee > price.fee:
        raise Refused("agreement.price", "the fee is too large, or the fee for a failure is above it")
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


def _count(label: str, values: Sequence[object], limit: int) -> None:
    if not 1 <= len(values) <= limit:
        raise Refused(
            "agreement.count", f"{label} has the wrong number of entries", found=len(values), expected=f"1 to {limit}"
        )


def _distinct(label: str, values: Sequence[object]) -> None:
    if len(set(values)) != len(values):
        raise Refused("agreement.duplicate", f"{label} names something twice")


def _not_yet(label: str, off: bool) -> None:
    if not off:
        raise Refused("agreement.not_yet", f"{label} has a value that this version does not support yet")
