"""What an agreement and a request under it are called: ids recomputed from their own words, believed from nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from enclave_app.protocol.rules import check_agreement, check_request
from enclave_app.protocol.structs import Agreement, Chain, TaskRequest
from oracle.errors import Refused

Identify = Callable[[Chain, Agreement], bytes]


@dataclass(frozen=True)
class Terms:
    """An agreement and a request under it, with the ids that follow from them."""

    chain: Chain
    agreement: Agreement
    agreement_id: bytes
    request: TaskRequest
    task_id: bytes


def identify_agreement(chain: Chain, agreement: Agreement) -> bytes:
    """R7, R13: the agreement's id, once its terms keep the protocol's rules; Refused `agreement.*`."""
    check_agreement(agreement)
    return chain.agreement_id(agreement)


def check_request_terms(chain: Chain, agreement: Agreement, agreement_id: bytes, request: TaskRequest) -> Terms:
    """R7, R13: the ids that a request makes, once it is one under this agreement; Refused `request.*` or `agreement.not_yet`."""
    if request.agreement_id != agreement_id:
        raise Refused(
            "request.agreement",
            "a request is for another agreement",
            found=request.agreement_id.hex(),
            expected=agreement_id.hex(),
        )
    check_request(agreement, request)
    return Terms(chain, agreement, agreement_id, request, request.typed_digest(chain.oracle_domain(agreement)))
