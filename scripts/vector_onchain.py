"""The values behind tests/vectors/onchain.json: the digests that contracts keep of an agreement, and what callers show of it."""

from __future__ import annotations

from typing import Any

from enclave_app.protocol import onchain
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.structs import Agreement
from oracle.agreement.requesters import admission_of, requester_proof, requesters_root
from scripts import vector_structs as vs
from scripts.vector_structs import address, hexed, word


def commitments() -> dict[str, Any]:
    return {
        "agreements": [
            _agreement("fixed datasets, anyone", vs.AGREEMENT, onchain.NO_AUDITORS),
            _agreement("every term", vs.EVERY_TERM, vs.AUDITORS),
        ],
        "requesters": {
            "root": hexed(requesters_root(vs.QUOTAS)),
            "listed": [
                {
                    "address": each,
                    "quota": quota,
                    "leaf": hexed(onchain.requester_leaf(each, quota)),
                    "proof": [hexed(step) for step in requester_proof(vs.QUOTAS, each)],
                }
                for each, quota in vs.QUOTAS.items()
            ],
        },
        "recipients": [
            {
                "recipients": [hexed(each) for each in recipients],
                "resultKey": hexed(word("result key")),
                "digest": hexed(recipients_digest(recipients, word("result key"))),
            }
            for recipients in ((), (word("recipient"),), (bytes(32), word("recipient")))
        ],
    }


def _agreement(name: str, agreement: Agreement, auditors: onchain.Auditors) -> dict[str, Any]:
    shown = admission_of(agreement, vs.QUOTAS, address("requester 1"))
    return {
        "name": name,
        "value": agreement.model_dump(mode="json", by_alias=True),
        "abi": hexed(agreement.abi_encode()),
        "auditors": auditors.model_dump(mode="json", by_alias=True),
        "auditorsDigest": hexed(auditors.digest),
        "admission": shown.model_dump(mode="json", by_alias=True),
        "admissionAbi": hexed(shown.abi_encode()),
        "admissionHash": hexed(onchain.admission_hash(agreement)),
        "teeHash": hexed(agreement.tee.struct_hash()),
        "priceHash": hexed(agreement.price.struct_hash()),
        "settlementHash": hexed(onchain.settlement_hash(agreement)),
    }
