"""Asking an agreement's key brokers for a release: `t` good answers are enough, whatever the others do (R11, R12).

`t` are asked at first, in the order of what is known of them, and the others after a pause (`hedge`) or at the first failure. A
round belongs to one nonce of the enclave, and keeps the answers it got while it waits for more: brokers cap what they release
for a task (R13), so a broker that has answered is not asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import dump, parse
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import MAX_BODY, ReleaseAnswer, ReleaseBody, SignedRelease
from enclave_app.protocol.structs import Agreement, Chain
from oracle.errors import Bug, OracleError, Refused, Retryable
from oracle.logs import Log
from oracle.worker.enclave import error_of

MAX_ANSWER = 8 << 20
ANSWER_BASE, ANSWER_KEY = 1 << 16, 256
"""Bytes that an answer may have: statement, signature and encapsulated key, and one share, in hex and with room."""
MAX_SKEW = 86_400
"""Seconds by which a broker's clock may differ from ours before its word is doubted: receipts are judged at its time."""
MAX_REST = 60.0
FORGIVEN = 30.0
"""Seconds after which a broker's failures no longer put it behind the others."""
NEWEST = 0.3
"""Weight of the newest answer in what is remembered of a broker's latency."""


@dataclass
class BrokerHealth:
    """What this worker knows of a broker since its start. `latency` in seconds, None before its first answer; `failures` in a
    row, the last of them at `failed_at`; `rests_until` is when it may be asked again, both on the monotonic clock."""

    latency: float | None = None
    failures: int = 0
    failed_at: float = 0.0
    rests_until: float = 0.0
    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class BrokerClient:
    """POSTs to brokers. `timeout` in seconds bounds one broker's answer, `hedge` in seconds is how long the first `t` have
    before the others are asked as well."""

    def __init__(self, endpoints: Mapping[bytes, str], *, timeout: float, hedge: float = 0.5) -> None:
        self.endpoints, self._timeout = dict(endpoints), aiohttp.ClientTimeout(total=timeout)
        self.hedge = hedge
        self._session: aiohttp.ClientSession | None = None
        self.suspects: set[bytes] = set()
        """Brokers that the enclave blamed since this start: asked last, and no round is content with their word."""
        self.health: dict[bytes, BrokerHealth] = {broker: BrokerHealth() for broker in self.endpoints}

    def replace(self, endpoints: Mapping[bytes, str], *, timeout: float, hedge: float) -> None:
        """Ask these from now on. What is known of a broker stays with it, but for one that moved."""
        moved = {broker: BrokerHealth() for broker, url in endpoints.items() if self.endpoints.get(broker) != url}
        self.health = {**self.health, **moved}  # a round may still wait for one that is gone
        self.endpoints, self._timeout, self.hedge = dict(endpoints), aiohttp.ClientTimeout(total=timeout), hedge

    def order(self, brokers: Sequence[bytes], task_id: bytes) -> list[bytes]:
        """Those that may be asked now: suspects last, before them who failed last, then by latency.

        Brokers about as fast as each other come in another order for each task, so that they share the work.
        """
        now = time.monotonic()

        def rank(broker: bytes) -> tuple[bool, int, int, bytes]:
            health = self.health[broker]
            pace = 0 if health.latency is None else int(1000 * health.latency).bit_length()
            failures = health.failures if now < health.failed_at + FORGIVEN else 0
            return broker in self.suspects, failures, pace, sha256(task_id + broker)

        able = [each for each in brokers if each in self.endpoints and self.health[each].rests_until <= now]
        return sorted(able, key=rank)

    def note(self, broker: bytes, seconds: float, fault: OracleError | None) -> None:
        """How asking a broker went."""
        health = self.health[broker]
        if fault is None:
            health.latency = seconds if health.latency is None else health.latency + NEWEST * (seconds - health.latency)
            health.failures, health.answers = 0, health.answers + 1
        else:
            health.failures, health.failed_at = health.failures + 1, time.monotonic()
            health.faults[fault.code if len(health.faults) < 64 else "other"] += 1

    async def release(self, broker: bytes, body: bytes, most: int = MAX_ANSWER) -> ReleaseAnswer:
        """One broker's answer of at most `most` bytes, unchecked. Raises what the broker says, or Retryable
        `broker.unreachable`, `broker.timeout`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        url = self.endpoints.get(broker, "").rstrip("/")
        if not url:
            raise Retryable("broker.unreachable", "a broker is no longer in the configuration")
        try:
            async with self._session.post(
                f"{url}/v1/release",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                raw = await answer.content.read(most + 1)
                while not answer.content.at_eof() and len(raw) <= most:
                    raw += await answer.content.read(most + 1 - len(raw))
                if answer.status in (429, 503):
                    self.health[broker].rests_until = time.monotonic() + _seconds(answer.headers.get("Retry-After"))
                if answer.status >= 300:
                    raise error_of(raw, answer.status, "the broker")
                return parse(ReleaseAnswer, raw, limit=most, canonical=False)
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
    """One nonce's questions and the answers so far, by broker."""

    chain: Chain
    agreement: Agreement
    signer: str
    releases: Mapping[bytes, SignedRelease]
    body: SharedBody
    answers: dict[bytes, ReleaseAnswer] = field(default_factory=dict)
    faults: dict[bytes, OracleError] = field(default_factory=dict)
    insufficient: int = 0
    """How many answers the enclave found too few good ones in; it takes more to try again."""
    _doubted: set[bytes] = field(default_factory=set)
    """Whose statements are of another time than ours: taken only where there are no better ones."""
    _asking: dict[bytes, asyncio.Task[None]] = field(default_factory=dict)
    _failures: int = 0
    _with: tuple[BrokerClient, Log] | None = None

    @property
    def threshold(self) -> int:
        return self.agreement.keys.threshold

    async def gather(self, client: BrokerClient, log: Log, *, grace: float) -> tuple[ReleaseAnswer, ...]:
        """At least `t` answers that their brokers signed. Raises Retryable `release.too_few`, saying why each is missing.

        Returns `grace` seconds after enough have come; what comes later stays in `answers`.
        """
        self._with = client, log
        waiting, loop = self._unasked(client), asyncio.get_running_loop()
        others_at, failures = loop.time() + client.hedge, self._failures
        all_asked = False
        while (missing := self._missing(client.suspects)) > 0:
            all_asked = all_asked or self._failures > failures or loop.time() >= others_at
            first = missing - len(self._asking.keys() - client.suspects)
            while waiting and (all_asked or first > 0):
                first -= 1
                self._ask(client, waiting.pop(0), log)
            if not self._asking:
                break
            pause = max(0.0, others_at - loop.time()) if waiting else None
            await asyncio.wait(self._asking.values(), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if self._asking and grace:
            await asyncio.wait(self._asking.values(), timeout=grace)
        if len(self.answers) < max(self.threshold, self.insufficient + 1):
            raise self._too_few(client)
        return tuple(self.answers.values())

    async def rest(self) -> tuple[ReleaseAnswer, ...]:
        """All answers, once every broker that can be asked has answered or failed."""
        if self._with is not None:
            client, log = self._with
            for broker in self._unasked(client):
                if broker not in self.faults:
                    self._ask(client, broker, log)
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

    def _unasked(self, client: BrokerClient) -> list[bytes]:
        left = [each for each in self.releases if each not in self.answers and each not in self._asking]
        return client.order(left, next(iter(self.releases.values())).request.task_id)

    def _missing(self, suspects: set[bytes]) -> int:
        believed = self.answers.keys() - suspects - self._doubted
        return max(self.threshold - len(believed), self.insufficient + 1 - len(self.answers))

    def _ask(self, client: BrokerClient, broker: bytes, log: Log) -> None:
        self._asking[broker] = asyncio.create_task(self._question(client, broker, self.releases[broker], log))

    async def _question(self, client: BrokerClient, broker: bytes, release: SignedRelease, log: Log) -> None:
        started, fault = time.monotonic(), None
        try:
            answer = await client.release(broker, self.body.with_release(release), self._most())
            check_statement(self.chain, self.agreement, release, answer, self.signer)
            if abs(answer.statement.time - time.time()) > MAX_SKEW:
                log.warning("a broker's clock differs from ours", broker=broker.hex(), time=answer.statement.time)
                self._doubted.add(broker)
            self.answers[broker] = answer
            self.faults.pop(broker, None)
        except OracleError as error:
            fault = error
            log.warning("a broker did not release", broker=broker.hex(), code=error.code, message=error.message)
        except Exception as error:
            fault = Bug("broker.bug", "asking a broker failed in a way that nobody thought of")
            log.error("asking a broker failed", error, broker=broker.hex())
        finally:
            self._asking.pop(broker, None)
        if fault is not None:
            self.faults[broker] = fault
            self._failures += 1
        client.note(broker, time.monotonic() - started, fault)

    def _most(self) -> int:
        keys = sum(len(data.columns) + 1 for data in self.agreement.data)
        return min(MAX_ANSWER, ANSWER_BASE + ANSWER_KEY * keys)

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


@dataclass(frozen=True)
class SharedBody:
    """What all brokers are told: a body's canonical JSON up to its release, and behind it."""

    before: bytes
    after: bytes

    def with_release(self, release: SignedRelease) -> bytes:
        return self.before + release.canonical() + self.after


def shared_body(body: ReleaseBody) -> SharedBody:
    """Raises Refused `release.size` where brokers would not read it."""
    shared: dict[str, object] = body.model_dump(mode="json", by_alias=True)
    # Keys are sorted, so those before and those behind the release are a part each.
    before = dump({key: value for key, value in shared.items() if key < "release"})[1:-1]
    after = dump({key: value for key, value in shared.items() if key > "release"})[1:-1]
    parts = SharedBody(b"{" + before + b',"release":', b"," + after + b"}")
    if len(parts.with_release(body.release)) > MAX_BODY:
        raise Refused("release.size", "manifests and share lists are too large for a release", expected=MAX_BODY)
    return parts


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


def _seconds(retry_after: str | None) -> float:
    """How long a broker asks to be left alone; what it says is bounded, and a date counts as nothing."""
    return min(MAX_REST, float(retry_after)) if retry_after is not None and retry_after.isdecimal() else 0.0
