"""Lies about keys, told to a running enclave: shares of something else, of another time, of too few, or wrong ones.

The host carries the brokers' answers, and fewer than `t` of the brokers may lie. A wrong answer is blamed on its broker by
name, counts for nothing, and does not keep `t` good ones from being enough (R11).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.release import ReleaseAnswer
from enclave_app.protocol.shares import key_ids_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Outcome
from enclave_app.protocol.wire import Identity, TaskBody, TaskStarted
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import CHAIN, MARKER, Refusal, RunningEnclave, World, enclave, make_world, measured

pytestmark = pytest.mark.asyncio(loop_scope="module")

Shares = dict[tuple[int, int], bytes]
Lie = Callable[["Asked"], ReleaseAnswer]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rebooted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    """The same program once more, as after a restart: another identity (R1)."""
    async with enclave(tmp_path_factory.mktemp("rebooted")) as found:
        yield found


@pytest.fixture
def agreed(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


@dataclass(frozen=True)
class Asked:
    """A task that is started, and what its enclave asks of the brokers."""

    world: World
    body: TaskBody
    started: TaskStarted
    identity: Identity

    def answer(self, position: int = 0, **how: Any) -> ReleaseAnswer:
        return self.world.answer(self.body, self.started.releases[position], self.identity, position, **how)

    def good(self, *positions: int) -> list[ReleaseAnswer]:
        return [self.answer(position) for position in positions]


async def start(running: RunningEnclave, world: World, body: TaskBody | None = None) -> Asked:
    body = body or world.body()
    return Asked(world, body, await running.start(body), await running.identity())


def told(what: str, rules: str, reason: str, value: Callable[..., Any]) -> Any:
    return pytest.param(value, marks=lie("keys", what, rules, reason), id=what)


# Too few


@pytest.mark.parametrize(
    "answers",
    [
        told("the answers of t - 1 brokers", "R12", "release.too_few", lambda asked: asked.good(1)),
        told("one broker's answer twice", "R12", "release.too_few", lambda asked: asked.good(1) * 2),
        told(
            "two answers of one broker",
            "R12",
            "release.too_few",
            lambda asked: [*asked.good(1), *asked.good(1)],
        ),
        told(
            "one broker's answer under another's name, too",
            "R12 R13",
            "release.too_few",
            lambda asked: [*asked.good(1), relabelled(asked)],
        ),
        told("no answer at all", "R12", "release.too_few", lambda asked: []),
    ],
)
async def test_fewer_than_t_brokers_open_nothing(
    running: RunningEnclave, agreed: World, refused: Refused, answers: Callable[[Asked], Sequence[ReleaseAnswer]]
) -> None:
    asked = await start(running, agreed)
    refused.watch(running.footprint)
    refused.keep(MARKER)
    async with refused():
        await running.run(asked.started.task_id, answers(asked))
    done = await running.run(asked.started.task_id, asked.good(0, 1))
    assert done.result.outcome == Outcome.SUCCEEDED


def relabelled(asked: Asked) -> ReleaseAnswer:
    (answer,) = asked.good(1)
    other = asked.started.releases[0].request.broker
    return answer.model_copy(update={"statement": answer.statement.model_copy(update={"broker": other})})


# From another time or place: all t answers are good, for something else


async def of_an_earlier_start(running: RunningEnclave, _: RunningEnclave, agreed: World) -> tuple[Asked, Asked]:
    earlier = await start(running, agreed)
    return await start(running, agreed, earlier.body), earlier


async def of_another_task(running: RunningEnclave, _: RunningEnclave, agreed: World) -> tuple[Asked, Asked]:
    return await start(running, agreed), await start(running, agreed)


async def of_another_boot(running: RunningEnclave, rebooted: RunningEnclave, agreed: World) -> tuple[Asked, Asked]:
    earlier = await start(rebooted, agreed)
    return await start(running, agreed, earlier.body), earlier


async def of_another_agreement(running: RunningEnclave, _: RunningEnclave, agreed: World) -> tuple[Asked, Asked]:
    other = agreed.changed(salt=bytes([1]) * 32)
    return await start(running, agreed), await start(running, agreed, agreed.body(other))


@pytest.mark.parametrize(
    "told_for",
    [
        told("answers to an earlier start of the task", "R12", "release.too_few", of_an_earlier_start),
        told("answers for another task", "R12", "release.too_few", of_another_task),
        told("answers to the enclave before it was restarted", "R1 R12", "release.too_few", of_another_boot),
        told("answers under another agreement on the same data", "R12", "release.too_few", of_another_agreement),
    ],
)
async def test_answers_count_for_what_was_asked(
    running: RunningEnclave, rebooted: RunningEnclave, agreed: World, refused: Refused, told_for: Callable[..., Any]
) -> None:
    asked, other = await told_for(running, rebooted, agreed)
    refused.watch(running.footprint)
    async with refused():
        await running.run(asked.started.task_id, other.good(0, 1, 2))
    done = await running.run(asked.started.task_id, asked.good(0, 1, 2))
    assert (done.result.outcome, done.blamed) == (Outcome.SUCCEEDED, ())


@lie("keys", "good answers to an enclave that was restarted and did not ask", "R1 R12", "task.unknown")
async def test_a_restarted_enclave_knows_no_task(
    running: RunningEnclave, rebooted: RunningEnclave, agreed: World, refused: Refused
) -> None:
    asked = await start(running, agreed)
    refused.watch(rebooted.footprint)
    async with refused():
        await rebooted.run(asked.started.task_id, asked.good(0, 1))
    assert (await running.run(asked.started.task_id, asked.good(0, 1))).result.outcome == Outcome.SUCCEEDED


# A wrong answer is blamed by name


def shares(change: Callable[[Shares], object], **how: Any) -> Lie:
    """A broker that answers with other shares, and signs for it."""

    def alter(found: Shares) -> None:
        change(found)

    return lambda asked: asked.answer(change=alter, **how)


def flip(found: Shares) -> None:
    found[1, 0] = bytes([found[1, 0][0] ^ 1]) + found[1, 0][1:]


def anothers_shares(asked: Asked) -> ReleaseAnswer:
    """Those of broker 1, as if they were broker 0's own."""
    others = asked.world.shares_of(asked.body, 1)
    return asked.answer(change=lambda found: found.update(others))


def unopened(asked: Asked) -> ReleaseAnswer:
    answer = asked.answer()
    return answer.model_copy(update={"sealed": answer.sealed[:-1] + bytes([answer.sealed[-1] ^ 1])})


def said(**fields: Any) -> Lie:
    return lambda asked: asked.answer(**fields)


def bound(**fields: Any) -> Lie:
    """Sealed for another question, while the statement is about this one."""
    return lambda asked: asked.answer(bound=asked.started.releases[0].request.model_copy(update=fields))


def sealed_less_than_said(asked: Asked) -> ReleaseAnswer:
    """The statement, which receipts keep, names all keys, and the seal holds one less."""
    named = key_ids_digest(sorted(asked.world.shares_of(asked.body, 0)))
    return asked.answer(change=lambda found: found.pop((0, 1)), keys=named)


@pytest.mark.parametrize(
    "lying",
    [
        told("a share with one bit flipped", "R11", "shares.wrong", shares(flip)),
        told(
            "a share of another dataset in its place",
            "R11",
            "shares.wrong",
            shares(lambda found: found.update({(0, 0): found[1, 0]})),
        ),
        told(
            "the shares of two columns in each other's place",
            "R11",
            "shares.wrong",
            shares(lambda found: found.update({(0, 1): found[0, 2], (0, 2): found[0, 1]})),
        ),
        told("another broker's shares as its own", "R11", "shares.wrong", anothers_shares),
        told("its shares at another broker's place", "R11", "release.keys", said(x=2)),
        told("an answer without one of the keys", "R11", "release.keys", shares(lambda found: found.pop((0, 1)))),
        told(
            "an answer with a key that is not released",
            "R10",
            "release.keys",
            shares(lambda found: found.update({(0, 4): bytes(32)})),
        ),
        told("an answer with fewer keys than it signed for", "R13", "release.statement", sealed_less_than_said),
        told("a statement that names other keys", "R13", "release.keys", said(keys=bytes([1]) * 32)),
        told("a statement about another agreement", "R13", "release.statement", said(agreement_id=bytes([1]) * 32)),
        told("a statement about another task", "R12 R13", "release.statement", said(task_id=bytes([1]) * 32)),
        told("a statement about another enclave", "R12 R13", "release.statement", said(signer="0x" + "11" * 20)),
        told("a statement about another nonce", "R12 R13", "release.statement", said(nonce=bytes([1]) * 32)),
        told("a statement about another answer", "R13", "release.statement", said(answer=bytes([1]) * 32)),
        told("a statement that someone else signed", "R13", "signature.signer", said(signed_by=SigningKey.generate())),
        told("an answer with one bit flipped", "R13", "release.statement", unopened),
        told("an answer sealed to another enclave", "R12", "hpke.open", said(to=SealingKey.generate().public)),
        told("an answer sealed for another task", "R12", "hpke.open", bound(task_id=bytes([1]) * 32)),
        told("an answer sealed to an older nonce", "R12", "hpke.open", bound(nonce=bytes([1]) * 32)),
        told("an answer sealed by another broker", "R12", "hpke.open", bound(broker=bytes([1]) * 32)),
    ],
)  # fmt: skip
async def test_a_wrong_answer_is_blamed_and_t_good_ones_suffice(
    running: RunningEnclave, agreed: World, refused: Refused, lying: Lie
) -> None:
    asked = await start(running, agreed)
    refused.keep(MARKER)
    wrong, brokers = lying(asked), [broker.hpke_key for broker in agreed.agreement.keys.brokers]
    before = await running.footprint()
    with pytest.raises(Refusal, match=r"release\.too_few"):
        await running.run(asked.started.task_id, [wrong, *asked.good(1)])
    assert await running.footprint() == before, "an answer that is blamed has counted"
    done = await running.run(asked.started.task_id, [wrong, *asked.good(1, 2)])
    assert (done.result.outcome, done.used) == (Outcome.SUCCEEDED, tuple(brokers[1:]))
    (blame,) = done.blamed
    assert blame.broker == brokers[0]
    refused.as_reason(blame.code)


@lie("keys", "an answer of a broker that nobody agreed on", "R15", "release.broker")
async def test_a_stranger_is_no_broker(running: RunningEnclave, agreed: World, refused: Refused) -> None:
    asked, key = await start(running, agreed), SigningKey.generate()
    wrong = asked.answer(signed_by=key, broker=bytes([1]) * 32)
    done = await running.run(asked.started.task_id, [wrong, *asked.good(0, 1)])
    (blame,) = done.blamed
    assert blame.broker == bytes([1]) * 32
    assert done.used == tuple(broker.hpke_key for broker in agreed.agreement.keys.brokers[:2])
    refused.as_reason(blame.code)


# Other keys in the agreement's or the request's place (R15)


def keys(agreement: Agreement, **changes: Any) -> Agreement:
    return agreement.model_copy(update={"keys": agreement.keys.model_copy(update=changes)})


def with_broker(agreement: Agreement, **changes: Any) -> Agreement:
    first, *others = agreement.keys.brokers
    return keys(agreement, brokers=(first.model_copy(update=changes), *others))


def with_recipient(agreement: Agreement) -> Agreement:
    (output,) = agreement.outputs
    own = SealingKey.generate().public.digest
    return agreement.model_copy(update={"outputs": (output.model_copy(update={"recipients": (own,)}),)})


def signed_text(change: Callable[[Agreement], Agreement]) -> Callable[[World], TaskBody]:
    """The host's own text of the agreement, under the id of the one that was signed."""
    return lambda world: world.body(change(world.agreement), agreement_id=CHAIN.agreement_id(world.agreement))


def published(change: Callable[[Agreement, bytes], Agreement]) -> Callable[[World], TaskBody]:
    """An agreement that is consistent with a key of the host's, which lies in storage like any broker's."""

    def body(world: World) -> TaskBody:
        return world.body(change(world.agreement, world.put(SealingKey.generate().public.wire)))

    return body


@pytest.mark.parametrize(
    "change",
    [
        told(
            "a text of the agreement with its own key as a broker's",
            "R15",
            "task.agreement",
            signed_text(lambda a: with_broker(a, hpke_key=bytes([1]) * 32)),
        ),
        told(
            "a text of the agreement with its own signer as a broker's",
            "R15",
            "task.agreement",
            signed_text(lambda a: with_broker(a, signer="0x" + "11" * 20)),
        ),
        told("a text of the agreement with its own key as the recipient's", "R15", "task.agreement", signed_text(with_recipient)),
        told(
            "a text of the agreement that needs fewer brokers",
            "R12",
            "task.agreement",
            signed_text(lambda a: keys(a, threshold=1)),
        ),
        told(
            "another agreement with its own key as a broker's",
            "R10 R15",
            "task.brokers",
            published(lambda a, own: with_broker(a, hpke_key=own)),
        ),
        told(
            "another agreement with the brokers in another order",
            "R10",
            "task.brokers",
            lambda world: world.body(keys(world.agreement, brokers=world.agreement.keys.brokers[::-1])),
        ),
        told(
            "another agreement that needs fewer brokers",
            "R10",
            "task.threshold",
            lambda world: world.body(keys(world.agreement, threshold=1)),
        ),
    ],
)  # fmt: skip
async def test_keys_come_from_what_was_signed(
    running: RunningEnclave, agreed: World, refused: Refused, change: Callable[[World], TaskBody]
) -> None:
    assert (await running.whole(agreed, agreed.body())).result.outcome == Outcome.SUCCEEDED
    refused.watch(running.footprint)
    body = change(agreed)
    async with refused():
        await running.whole(agreed, body)
