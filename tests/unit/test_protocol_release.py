"""Release answers: what the enclave and the recipient check of a broker's word, one field at a time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol import release
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.shares import key_ids_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Chain, OutputShares, ReleaseRequest, ReleaseStatement

CASES = {
    case["type"]: case["value"]
    for case in json.loads((Path(__file__).parents[1] / "vectors" / "eip712.json").read_text("utf-8"))["cases"]
}
AGREEMENT = Agreement(**CASES["Agreement"])
REQUEST = ReleaseRequest(**CASES["ReleaseRequest"])
OUTPUT = OutputShares(**CASES["OutputShares"])
CHAIN = Chain(chain_id=31337, agreement_registry="0x" + "11" * 20)
DATASETS = [d.id_or_stream for d in AGREEMENT.data]
SIGNER = SigningKey(b"\x01" * 32).address
BROKER = SigningKey(b"\x02" * 32)
ENCLAVE = SealingKey(b"\x03" * 32)
SHARES = {(0, 0): bytes([1]) * 32, (0, 2): bytes([2]) * 32, (1, 1): bytes([3]) * 32}


def answer(statement_changes: dict[str, Any] | None = None, *, broker: SigningKey = BROKER) -> release.ReleaseAnswer:
    info = release.answer_info(CHAIN, AGREEMENT, REQUEST, DATASETS, SIGNER)
    sealed = ENCLAVE.public.seal(release.pack_answer(2, SHARES), info)
    statement = ReleaseStatement(
        agreement_id=REQUEST.agreement_id,
        task_id=REQUEST.task_id,
        signer=SIGNER,
        nonce=REQUEST.nonce,
        broker=REQUEST.broker,
        keys=key_ids_digest(sorted(SHARES)),
        answer=hashlib.sha256(sealed).digest(),
        collateral=bytes(32),
        time=1,
        block_number=2,
        block_hash=bytes(32),
    ).model_copy(update=statement_changes or {})
    signature = broker.sign(statement.typed_digest(CHAIN.oracle_domain(AGREEMENT)))
    return release.ReleaseAnswer(statement=statement, signature=signature, sealed=sealed)


def opened(given: release.ReleaseAnswer, **changes: Any) -> tuple[int, dict[tuple[int, int], bytes]]:
    arguments: dict[str, Any] = {
        "chain": CHAIN,
        "agreement": AGREEMENT,
        "request": REQUEST,
        "datasets": DATASETS,
        "signer": SIGNER,
        "broker_signer": BROKER.address,
        "key": ENCLAVE,
    }
    return release.open_answer(given, **{**arguments, **changes})


def test_an_answer_opens() -> None:
    assert opened(answer()) == (2, SHARES)


@pytest.mark.parametrize("field", ["agreement_id", "task_id", "nonce", "broker", "keys", "answer"])
def test_a_statement_about_something_else_is_refused(field: str) -> None:
    with pytest.raises(Refused) as caught:
        opened(answer({field: bytes([9]) * 32}))
    assert caught.value.code == "release.statement"


def test_a_statement_for_another_enclave_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        opened(answer({"signer": "0x" + "11" * 20}))
    assert caught.value.code == "release.statement"


def test_an_answer_that_another_signed_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        opened(answer(broker=SigningKey(b"\x04" * 32)))
    assert caught.value.code == "signature.signer"


def test_a_statement_changed_after_signing_is_refused() -> None:
    given = answer()
    later = given.statement.model_copy(update={"time": 2})
    with pytest.raises(Refused) as caught:
        opened(given.model_copy(update={"statement": later}))
    assert caught.value.code == "signature.signer"


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": DATASETS[::-1]},
        {"datasets": DATASETS[:1]},
        {"key": SealingKey(b"\x05" * 32)},
    ],
)
def test_an_answer_opens_for_its_own_task_only(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        opened(answer(), **changes)
    assert caught.value.code == "hpke.open"


def test_another_oracle_has_another_domain() -> None:
    with pytest.raises(Refused) as caught:
        opened(answer(), chain=Chain(chain_id=1, agreement_registry=CHAIN.agreement_registry))
    assert caught.value.code == "signature.signer"


PACKED = release.pack_answer(2, SHARES)
ENTRY = 36


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        PACKED[:3],
        b"\x02" + PACKED[1:],
        PACKED[:-1],
        PACKED + b"\0",
        PACKED[:2] + b"\0\x02" + PACKED[4:],
        PACKED[:4] + PACKED[4 : 4 + ENTRY] * 3,
        PACKED[:4] + PACKED[4 + ENTRY : 4 + 2 * ENTRY] + PACKED[4 : 4 + ENTRY] + PACKED[4 + 2 * ENTRY :],
    ],
)
def test_a_packed_answer_has_one_form(plaintext: bytes) -> None:
    assert release.unpack_answer(PACKED) == (2, SHARES)
    with pytest.raises(Refused) as caught:
        release.unpack_answer(plaintext)
    assert caught.value.code == "release.answer"


def test_an_output_share_opens_for_its_recipient() -> None:
    sealed = release.seal_output_share(CHAIN, AGREEMENT, OUTPUT, REQUEST.broker, ENCLAVE.public, 3, bytes(32))
    assert release.open_output_share(sealed, CHAIN, AGREEMENT, OUTPUT, REQUEST.broker, ENCLAVE) == (3, bytes(32))


@pytest.mark.parametrize("field", ["agreement_id", "task_id", "output_id"])
def test_an_output_share_opens_for_its_output_only(field: str) -> None:
    sealed = release.seal_output_share(CHAIN, AGREEMENT, OUTPUT, REQUEST.broker, ENCLAVE.public, 3, bytes(32))
    other = OUTPUT.model_copy(update={field: bytes([9]) * 32})
    with pytest.raises(Refused) as caught:
        release.open_output_share(sealed, CHAIN, AGREEMENT, other, REQUEST.broker, ENCLAVE)
    assert caught.value.code == "hpke.open"


@pytest.mark.parametrize("shares", [{}, {(0, 1): bytes(32)}, {(0, 0): bytes(32), (0, 1): bytes(32)}])
def test_an_output_answer_holds_the_outputs_key_only(shares: dict[tuple[int, int], bytes]) -> None:
    info = release.output_info(CHAIN, AGREEMENT, OUTPUT, REQUEST.broker, ENCLAVE.public.digest)
    sealed = ENCLAVE.public.seal(release.pack_answer(1, shares), info)
    with pytest.raises(Refused) as caught:
        release.open_output_share(sealed, CHAIN, AGREEMENT, OUTPUT, REQUEST.broker, ENCLAVE)
    assert caught.value.code == "release.answer"


def test_every_messages_error_fits_an_error_body() -> None:
    error = Refused("x.y", "z" * 5000)
    assert release.ErrorBody(code=error.code, message=error.message, retry=False).message == error.message
