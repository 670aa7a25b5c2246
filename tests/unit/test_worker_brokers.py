"""What a worker sees of a broker's answer from outside the enclave, and what it asks with (R11, R12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import ReleaseAnswer, ReleaseBody, SignedRelease
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Broker, Chain, ReleaseRequest, ReleaseStatement
from oracle.errors import Refused, Retryable
from oracle.logs import Log
from oracle.worker.brokers import BrokerClient, check_statement, make_round
from tests.receipt_kit import make_story

STORY = make_story()
CHAIN, AGREEMENT, REQUEST = STORY.record.chain, STORY.record.agreement, STORY.record.request
ENCLAVE, BROKER = STORY.keys.enclave, STORY.keys.brokers[0]
SEALED = b"sealed to the enclave"


@dataclass
class Answered:
    """One broker's answer to one request; all of it fits, but for what a test changes."""

    release: SignedRelease
    answer: ReleaseAnswer
    agreement: Agreement = AGREEMENT
    chain: Chain = CHAIN

    def check(self) -> None:
        check_statement(self.chain, self.agreement, self.release, self.answer, ENCLAVE.address)


def asked(**changes: Any) -> SignedRelease:
    fields: dict[str, Any] = {
        "agreement_id": CHAIN.agreement_id(AGREEMENT),
        "task_id": b"\x01" * 32,
        "broker": AGREEMENT.keys.brokers[0].hpke_key,
        "nonce": b"\x02" * 32,
        "sealing_key": b"\x03" * 32,
        "anchor": AGREEMENT.tee.anchors[0],
    }
    request = ReleaseRequest(**{**fields, **changes})
    return SignedRelease(request=request, signature=ENCLAVE.sign(request.typed_digest(CHAIN.oracle_domain(AGREEMENT))))


def answered(by: SigningKey = BROKER, **changes: Any) -> Answered:
    release = asked()
    fields: dict[str, Any] = {
        "agreement_id": release.request.agreement_id,
        "task_id": release.request.task_id,
        "signer": ENCLAVE.address,
        "nonce": release.request.nonce,
        "broker": release.request.broker,
        "keys": b"\x04" * 32,
        "answer": sha256(SEALED),
        "collateral": b"\x05" * 32,
        "time": 1_800_000_000,
        "block_number": 1,
        "block_hash": b"\x06" * 32,
    }
    said = ReleaseStatement(**{**fields, **changes})
    signature = by.sign(said.typed_digest(CHAIN.oracle_domain(AGREEMENT)))
    return Answered(release, ReleaseAnswer(statement=said, signature=signature, sealed=SEALED))


def refusal(given: Answered) -> str:
    with pytest.raises(Refused) as caught:
        given.check()
    return caught.value.code


def test_a_brokers_answer_to_what_was_asked_is_taken() -> None:
    answered().check()


@pytest.mark.parametrize("field", ["agreement_id", "task_id", "nonce", "broker", "answer"])
def test_an_answer_about_something_else_is_refused(field: str) -> None:
    change: dict[str, Any] = {field: b"\x0f" * 32}
    assert refusal(answered(**change)) == "release.statement"


def test_an_answer_to_another_enclave_is_refused() -> None:
    given = answered()
    said = given.answer.statement.model_copy(update={"signer": SigningKey.generate().address})
    given.answer = given.answer.model_copy(update={"statement": said})
    assert refusal(given) == "release.statement"


def test_an_answer_that_another_key_signed_is_refused() -> None:
    assert refusal(answered(STORY.keys.brokers[1])) == "signature.signer"


def test_an_answer_of_a_broker_that_the_agreement_lacks_is_refused() -> None:
    given = answered()
    others = tuple(b for b in AGREEMENT.keys.brokers if b.hpke_key != given.release.request.broker)
    keys = AGREEMENT.keys.model_copy(
        update={"brokers": (*others, Broker(hpke_key=b"\x0e" * 32, signer=BROKER.address))}
    )
    given.agreement = AGREEMENT.model_copy(update={"keys": keys})
    assert refusal(given) == "release.broker"


async def test_a_false_answer_does_not_count_towards_the_threshold() -> None:
    """The enclave would find out later, with the release spent."""
    given = answered()

    class Liar(BrokerClient):
        async def release(self, broker: bytes, body: bytes, most: int = 0) -> ReleaseAnswer:
            said = given.answer.statement.model_copy(update={"nonce": b"\x0f" * 32})
            return given.answer.model_copy(update={"statement": said})

    asking = make_round(everything(), (given.release,), ENCLAVE.address)
    client = Liar({given.release.request.broker: "http://a.broker"}, timeout=1.0)
    with pytest.raises(Retryable) as caught:
        await asking.gather(client, Log("test"), grace=0)
    assert caught.value.code == "release.too_few"
    assert asking.answers == {}
    assert [fault.code for fault in asking.faults.values()] == ["release.statement"]


def everything() -> ReleaseBody:
    return ReleaseBody(
        chain=CHAIN,
        agreement=AGREEMENT,
        signatures=(),
        request=REQUEST,
        manifests=(),
        share_lists=(),
        release=asked(),
        evidence=STORY.record.evidence,
    )


def test_brokers_are_asked_with_one_nonce() -> None:
    body, other = everything(), AGREEMENT.keys.brokers[1].hpke_key
    assert len(make_round(body, (asked(), asked(broker=other)), ENCLAVE.address).releases) == 2
    with pytest.raises(Refused) as caught:
        make_round(body, (asked(), asked(broker=other, nonce=b"\x07" * 32)), ENCLAVE.address)
    assert caught.value.code == "release.nonce"
