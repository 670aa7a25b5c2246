"""The codes of errors that metrics have a label for. What strangers answer is counted under one of these, or as `other`."""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"

REASONS: Final = (
    # What a key broker says of itself, of the chain as it sees it, or of the one who asks.
    "broker.busy",
    "broker.rate",
    "broker.timeout",
    "broker.unreachable",
    "broker.answer",
    "chain.quorum",
    "chain.reorganising",
    "chain.stale",
    "release.fork",
    "release.statement",
    "release.nonce",
    "release.task",
    "release.size",
    "release.cap",
    "release.too_few",
    "release.too_few_good",
    "log.full",
    # Terms of the agreement that do not hold for this release.
    "agreement.revoked",
    "agreement.suspended",
    "agreement.superseded",
    "agreement.dropped",
    "agreement.inactive",
    "agreement.evidence",
    "agreement.hosts",
    "agreement.releases",
    "agreement.validity",
    "consent.missing",
    "evidence.block_unknown",
    "enclave.anchor",
    "enclave.unknown",
    "enclave.retired",
    "identity.measurement",
    "signature.signer",
    "task.closed",
    "task.unknown",
    # The chain, as this worker sees it.
    "chain.wrong",
    "rpc.answer",
    "rpc.batch",
    "rpc.fault",
    "rpc.rate_limited",
    "rpc.size",
    "rpc.status",
    "rpc.timeout",
    "rpc.unreachable",
    # The enclave.
    "enclave.forgot",
    "enclave.restarted",
    "enclave.start",
    "enclave.timeout",
    "enclave.unreachable",
    "enclave.unregistered",
    "enclave.unusable",
    "run.memory",
    "run.time",
    "sandbox.gone",
    "task.forgotten",
    "task.running",
    # Storage and journal.
    "blob.missing",
    "journal.disk",
    "journal.unreachable",
    "storage.http",
    "storage.read",
    "storage.write",
    "store.enclave_gone",
    "store.outputs",
    "receipt.early",
    # Transactions.
    "settle.lost",
    "transaction.fee_cap",
    "transaction.funds",
    "transaction.unmined",
    OTHER,
)

_REASONS: Final = frozenset(REASONS)


def known_code(code: str) -> str:
    return code if code in _REASONS else OTHER
