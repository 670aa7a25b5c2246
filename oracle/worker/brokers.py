"""Asking an agreement's key brokers for a release: all at once, and `t` good answers are enough (R11, R12).

A round belongs to one nonce of the enclave, and keeps the answers it got while it waits for more: brokers cap what they
release for a task (R13), so a broker that has answered is not asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import dump, parse
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import MAX_BODY, ReleaseAnswer, ReleaseBody, SignedRelease
from enclave_app.protocol.structs import Agreement, Chain
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.logs import Log
from oracle.worker.enclave import error_of

MAX_ANSWER = 8 << 20


class BrokerClient:
    """POSTs to brokers. `timeout` in seconds bounds one broker's answer."""

    def __init__(self, endpoints: Mapping[bytes, str], *, timeout: float) -> None:
        self.endpoints, self._timeout = dict(endpoints), aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None
        self.suspects: set[bytes] = set()
        """Brokers that the enclave blamed since this start: asked as ever, but no round is content with their word."""

    async def release(self, broker: bytes, body: bytes) -> ReleaseAnswer:
        """One broker's answer, unchecked. Raises what the broker says, or Retryable `broker.unreachable`, `broker.timeout`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        url = self.endpoints[broker].rstrip("/")
        try:
            async with self._session.post(
                f"{url}/v1/release",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                raw = await answer.content.read(MAX_ANSWER + 1)
                while not answer.content.at_eof() and len(raw) <= MAX_ANSWER:
                    raw += await answer.content.read(MAX_ANSWER + 1 - len(raw))
                if answer.status >= 300:
                    raise error_of(raw, answer.status, "the broker")
                return parse(ReleaseAnswer, raw, limit=MAX_ANSWER, canonical=False)
        except TimeoutError:
            raise Retryable("broker.timeout", "a broker did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("broker.unreachable", f"a broker cannot be reached ({type(error).__name__})") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


@dataclass
class Round:
    """One nonce's questions and the answers so far, by broker. `body` is what all brokers are told, without `release`."""

    chain: Chain
    agreement: Agreement
    signer: str
    releases: Mapping[bytes, SignedRelease]
    body: dict[str, object]
    answers: dict[bytes, ReleaseAnswer] = field(default_factory=dict)
    faults: dict[bytes, OracleError] = field(default_factory=dict)
    insufficient: int = 0
    """How many answers the enclave found too few good ones in; it takes more to try again."""
    _asking: dict[bytes, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def threshold(self) -> int:
        return self.agreement.keys.threshold

    async def gather(self, client: BrokerClient, log: Log, *, grace: float) -> tuple[ReleaseAnswer, ...]:
        """At least `t` answers that their brokers signed. Raises Retryable `release.too_few`, saying why each is missing.

        Returns `grace` seconds after enough have come; what comes later stays in `answers`.
        """
        for broker, release in self.releases.items():
            if broker in client.endpoints and broker not in self.answers and broker not in self._asking:
                self._asking[broker] = asyncio.create_task(self._ask(client, broker, release, log))
        while not self._enough(client.suspects) and self._asking:
            await asyncio.wait(self._asking.values(), return_when=asyncio.FIRST_COMPLETED)
        if self._asking and grace:
            await asyncio.wait(self._asking.values(), timeout=grace)
        if len(self.answers) < max(self.threshold, self.insufficient + 1):
            raise self._too_few(client)
        return tuple(self.answers.values())

    async def rest(self) -> tuple[ReleaseAnswer, ...]:
        """All answers, once every broker that was asked has answered or failed."""
        while self._asking:
            await asyncio.wait(self._asking.values())
        return tuple(self.answers.values())

    @property
    def exhausted(self) -> bool:
        """Whether every broker has answered: a new nonce is the only way to other answers."""
        return len(self.answers) == len(self.releases)

    def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()

    def _enough(self, suspects: set[bytes]) -> bool:
        return len(self.answers.keys() - suspects) >= self.threshold and len(self.answers) > self.insufficient

    async def _ask(self, client: BrokerClient, broker: bytes, release: SignedRelease, log: Log) -> None:
        try:
            answer = await client.release(broker, dump({**self.body, "release": _plain(release)}))
            check_statement(self.chain, self.agreement, release, answer, self.signer)
            self.answers[broker] = answer
            self.faults.pop(broker, None)
        except (Retryable, Permanent) as error:
            self.faults[broker] = error
            log.warning("a broker did not release", broker=broker.hex(), code=error.code, message=error.message)
        finally:
            self._asking.pop(broker, None)

    def _too_few(self, client: BrokerClient) -> Retryable:
        reasons = [f"{broker.hex()[:8]}: {fault.code}" for broker, fault in self.faults.items()]
        unknown = sum(1 for broker in self.releases if broker not in client.endpoints)
        if unknown:
            reasons.append(f"{unknown} without an endpoint in the configuration")
        return Retryable(
            "release.too_few",
            "too few key brokers released",
            found=f"{len(self.answers)} ({', '.join(reasons) or 'no reasons'})",
            expected=f"at least {max(self.threshold, self.insufficient + 1)}",
        )


def make_round(body: ReleaseBody, releases: Sequence[SignedRelease], signer: str) -> Round:
    """A round for the enclave's `releases`; `body` is complete, and its own `release` stands for any of them.

    Raises Refused `release.nonce` where the enclave asks in the name of several nonces, and what `shared_body` raises.
    """
    if len({release.request.nonce for release in releases}) != 1:
        raise Refused("release.nonce", "the enclave did not ask all brokers with one nonce (R12)")
    by_broker = {release.request.broker: release for release in releases}
    return Round(body.chain, body.agreement, signer, by_broker, shared_body(body))


def shared_body(body: ReleaseBody) -> dict[str, object]:
    """What all brokers are told. Raises Refused `release.size` where brokers would not read it."""
    shared: dict[str, object] = body.model_dump(mode="json", by_alias=True)
    if len(dump(shared)) > MAX_BODY:
        raise Refused("release.size", "manifests and share lists are too large for a release", expected=MAX_BODY)
    del shared["release"]
    return shared


def check_statement(
    chain: Chain, agreement: Agreement, release: SignedRelease, answer: ReleaseAnswer, signer: str
) -> None:
    """What can be seen of an answer from outside the enclave, so that a false one does not count towards `t`.

    The enclave checks the same again, and the shares (R11).
    """
    request, statement = release.request, answer.statement
    expected = {
        "agreement_id": request.agreement_id,
        "task_id": request.task_id,
        "signer": signer,
        "nonce": request.nonce,
        "broker": request.broker,
        "answer": sha256(answer.sealed),
    }
    for name, value in expected.items():
        if getattr(statement, name) != value:
            raise Refused("release.statement", f"a broker's statement has another {name} than was asked for")
    broker_signer = next((b.signer for b in agreement.keys.brokers if b.hpke_key == request.broker), None)
    if broker_signer is None:
        raise Refused("release.broker", "the enclave asked a broker that the agreement does not name")
    digest = statement.typed_digest(chain.oracle_domain(agreement))
    signing.check(digest, answer.signature, broker_signer, "a release statement")


def _plain(release: SignedRelease) -> object:
    return release.model_dump(mode="json", by_alias=True)
