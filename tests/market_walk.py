"""A long random walk through a market: every move of the contracts, in an order that a seed decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import Auditors, Fulfilment
from enclave_app.protocol.structs import Access, Agreement, Audit, DatasetPolicy, PaymentKind, TaskRequest
from oracle.chain.sender import Receipt
from oracle.errors import Reverted
from tests.market_kit import FEE, Market, compiled, tree

ASKERS = ("alice", "bob")
PARTIES = ("author", "first", "second")


@dataclass
class Entry:
    """An agreement of the walk; `leaves` are (quota, proof) of who may ask, where not everybody may."""

    agreement: Agreement
    leaves: dict[str, tuple[int, list[bytes]]] = field(default_factory=dict)
    open: list[tuple[TaskRequest, str]] = field(default_factory=list)


class Walk:
    """`refused` and `made` count the moves. A move that the contracts refuse sends nothing."""

    def __init__(self, market: Market) -> None:
        self.market, self.random = market, market.random
        self.entries: list[Entry] = []
        self.drafts: list[Agreement] = []
        self.streams: list[tuple[str, bytes, list[bytes]]] = []
        self.functions: list[bytes] = []
        self.failed: list[tuple[TaskRequest, Fulfilment]] = []
        self.last = b""
        self.made: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._moves: dict[Callable[[], Awaitable[Any]], int] = {
            self.activate: 5, self.draft: 2, self.approve: 2, self.sign: 2, self.revoke_draft: 1, self.publish: 4,
            self.withdraw_version: 1, self.audit: 2, self.withdraw_audit: 1, self.suspend: 2, self.resume: 3,
            self.revoke: 1, self.drop: 2, self.request: 25, self.relay: 5, self.ask_by_contract: 8, self.cancel: 4,
            self.fulfil: 8, self.fail: 3, self.fulfil_many: 2, self.fulfil_batch: 2, self.expire: 3, self.retry: 4,
            self.distribute: 4, self.withdraw: 4, self.wait: 2, self.mine: 2,
        }  # fmt: skip

    async def run(self, steps: int) -> None:
        """At least so many steps, and until every move was made twice."""
        for step in range(10 * steps):
            if step >= steps and min(self.made[name] for name in self.names) >= 2:
                return
            (move,) = self.random.choices(list(self._moves), list(self._moves.values()))
            name = move.__name__
            try:
                await move()
            except Reverted:
                self.refused[name] += 1
            except IndexError:
                self.refused[name] += 1  # nothing to choose from
            else:
                self.made[name] += 1

    async def finish(self) -> None:
        """So that every status, state and event is there at the end, wherever the walk went."""
        market = self.market
        suspended, ended = await market.active(), await market.active()
        asked = await market.active(data=(market.dataset("people", "first", budget=1),))
        await market.registry("author", "suspend", market.agreement_id(suspended))
        for drop in ("dropMeasurement", "dropHost"):
            await market.registry("author", drop, market.agreement_id(asked), bytes(31) + bytes([len(drop) % 3]))
        request = await market.request(asked)
        successor = await market.active(supersedes=market.agreement_id(ended))
        self.entries += [Entry(agreement) for agreement in (suspended, ended, successor, asked)]
        self.keep(self.entries[-1], request, "alice")

    @property
    def names(self) -> set[str]:
        return {move.__name__ for move in self._moves}

    def one(self, things: Any) -> Any:
        return self.random.choice(list(things))

    # agreements

    async def activate(self) -> None:
        market, leaves = self.market, {}
        changes: dict[str, Any] = {"price": self.price()}
        shape = self.one(["plain", "plain", "budget", "stream", "list", "own", "successor", "audited"])
        auditors = Auditors(accounts=(), threshold=0)
        if shape == "budget":
            lineage = self.one([bytes(31) + b"\x01", bytes(31) + b"\x02"])
            changes["data"] = (market.dataset("people", "first", budget=self.random.randint(1, 9), lineage=lineage),)
        elif shape == "stream":
            owner, stream, _ = self.one(self.streams)
            policy = self.one([DatasetPolicy.PINNED, DatasetPolicy.AT_LEAST, DatasetPolicy.LATEST])
            daily = {"id_or_stream": stream, "shares_digest": ZERO32, "policy": policy, "min_version": 1}
            changes["data"] = (market.dataset("daily", owner, **daily), market.dataset("fixed", "second"))
        elif shape == "list":
            quotas = [(market.address(who), self.random.randint(1, 5)) for who in ASKERS]
            root, proofs = tree(quotas)
            leaves = {who: (quotas[n][1], proofs[n]) for n, who in enumerate(ASKERS)}
            changes["access"] = Access(requesters=root, quota=4, quota_per_requester=3)
        elif shape == "own":
            changes["access"] = Access(
                requesters=(await market.agreement()).access.requesters, quota=9, quota_per_requester=3
            )
        elif shape == "successor":
            changes["supersedes"] = market.agreement_id(self.one(self.entries).agreement)
        elif shape == "audited":
            auditors = Auditors(accounts=(market.address("auditor"),), threshold=1)
            changes["auditors"] = auditors.digest
        agreement = await market.agreement(**changes)
        if shape == "audited":
            given = market.bytes32()
            await market.audits("auditor", "approve", Audit(function_id=agreement.fn.id, report=given))
        await market.activate(agreement, auditors=auditors)
        self.entries.append(Entry(agreement, leaves))

    def price(self) -> Any:
        market = self.market
        split = self.one(
            [
                ((3000, 2501), "first", "second"),
                ((10_000,), "author"),
                ((3333, 3333, 3333), *PARTIES),
                ((5000, 5000), "first", "author"),
                ((),),
            ]
        )
        to = tuple(market.address(who) for who in split[1:])
        return market.price(
            token=self.one([ZERO_ADDRESS, ZERO_ADDRESS, market.coin]),
            fee=self.one([FEE, 7, 0]) if not to else self.one([FEE, FEE + 1, 7]),
            min_fee=self.one([0, 3]) if to else 0,
            failed_fee=0 if not to else self.one([0, 2]),
            to=to,
            bps=split[0],
        )

    async def draft(self) -> None:
        self.drafts.append(await self.market.agreement(price=self.price()))

    async def approve(self) -> None:
        agreement = self.one(self.drafts)
        await self.market.registry(self.one((*PARTIES, "alice")), "approve", self.market.agreement_id(agreement))

    async def sign(self) -> None:
        market, agreement = self.market, self.one(self.drafts)
        who = self.one(PARTIES)
        agreement_id = market.agreement_id(agreement)
        await market.registry("relayer", "sign", agreement_id, market.address(who), market.key(who).sign(agreement_id))
        if self.random.random() < 0.5:
            given = [b"" if party == market.address(who) else signature for party, signature in self._signed(agreement)]
            await market.activate(agreement, given)
            self.drafts.remove(agreement)
            self.entries.append(Entry(agreement))

    def _signed(self, agreement: Agreement) -> list[tuple[str, bytes]]:
        return list(zip(agreement.parties(), self.market.signatures(agreement), strict=True))

    async def revoke_draft(self) -> None:
        await self.market.registry(self.one(PARTIES), "revoke", self.market.agreement_id(self.one(self.drafts)))

    def active(self) -> tuple[Entry, bytes]:
        entry = self.one(self.entries[-12:])
        return entry, self.market.agreement_id(entry.agreement)

    async def suspend(self) -> None:
        await self.market.registry(self.one(PARTIES), "suspend", self.active()[1])

    async def resume(self) -> None:
        who = self.one(PARTIES)
        for entry in self.entries:
            asked = ("isSuspendedBy", self.market.agreement_id(entry.agreement), self.market.address(who))
            if (await self.market.views("AgreementRegistry", self.market.deployment.agreement_registry, asked))[0]:
                await self.market.registry(who, "resume", self.market.agreement_id(entry.agreement))
                return
        raise IndexError

    async def revoke(self) -> None:
        await self.market.registry(self.one(PARTIES), "revoke", self.active()[1])

    async def drop(self) -> None:
        function = self.one(["dropMeasurement", "dropHost"])
        dropped = self.one([bytes(31) + bytes([n]) for n in range(3)])
        await self.market.registry(self.one(PARTIES), function, self.active()[1], dropped)

    # streams and audits

    async def publish(self) -> None:
        market = self.market
        if len(self.streams) < 3:
            self.streams.append((self.one(("first", "second")), market.bytes32(), []))
        owner, stream, versions = self.one(self.streams)
        version = market.bytes32()
        await market.streams(owner, "publish", stream, version, market.bytes32())
        versions.append(version)

    async def withdraw_version(self) -> None:
        owner, stream, versions = self.one(self.streams)
        await self.market.streams(owner, "withdraw", stream, self.random.randint(1, len(versions) or 1))

    async def audit(self) -> None:
        market = self.market
        audit = Audit(function_id=market.bytes32(), report=market.bytes32())
        digests = await market.views("FunctionAudits", market.deployment.audits, ("auditDigestOf", audit))
        signature = market.key("auditor").sign(digests[0])
        await market.audits("relayer", "approveFor", market.address("auditor"), audit, signature)
        self.functions.append(audit.function_id)

    async def withdraw_audit(self) -> None:
        await self.market.audits("auditor", "withdraw", self.one(self.functions))

    # tasks

    async def request(self) -> None:
        who = self.one(ASKERS)
        entry, _ = self.active()
        changes: dict[str, Any] = {"deadline": (await self.market.head()).timestamp + self.random.randint(200, 5000)}
        if entry.leaves:
            changes["quota"], changes["proof"] = entry.leaves[who]
        if entry.agreement.data[0].policy != DatasetPolicy.FIXED:
            stream = entry.agreement.data[0].id_or_stream
            versions = next(versions for _, name, versions in self.streams if name == stream)
            changes["versions"] = (self.one(versions), entry.agreement.data[1].id_or_stream)
        self.keep(entry, await self.market.request(entry.agreement, who, **changes), who)

    async def relay(self) -> None:
        entry, who = self.active()[0], self.one(ASKERS)
        kind = self.one([PaymentKind.PERMIT, PaymentKind.AUTHORIZATION])
        self.keep(entry, await self.market.relay(entry.agreement, who, kind), who)

    async def ask_by_contract(self) -> None:
        entry = self.one(e for e in self.entries if e.agreement.price.token == ZERO_ADDRESS)
        self.keep(entry, await self.market.request(entry.agreement, "caller"), "caller")

    def keep(self, entry: Entry, request: TaskRequest, who: str) -> None:
        entry.open.append((request, who))
        self.last = request.nonce

    def standing(self, count: int = 1, *, plain: bool = False) -> tuple[Entry, list[tuple[TaskRequest, str]]]:
        """Open tasks of one agreement."""
        entry = self.one(e for e in self.entries if e.open)
        open_ = [task for task in entry.open if not plain or task[1] != "caller"]
        return entry, self.random.sample(open_, min(count, len(open_)))

    async def cancel(self) -> None:
        await self.one([self.request, self.relay])()
        entry = next(e for e in self.entries if e.open and e.open[-1][0].nonce == self.last)
        request, who = entry.open[-1]
        leaf = dict(zip(("quota", "proof"), entry.leaves.get(who, ()), strict=False))
        await self.market.cancel(entry.agreement, request, self.one([who, who, "payee"]), **leaf)
        entry.open.pop()

    async def fulfil(self, failed: bool = False) -> None:
        entry, (task,) = self.standing()
        await self._tell(self.one([True, False]))
        payee = self.market.address(self.one(["payee", "relayer"]))
        made = await self.market.fulfil(entry.agreement, task[0], failed=failed, payee=payee)
        entry.open.remove(task)
        if task[1] == "caller":
            self.failed.append((task[0], made))

    async def fail(self) -> None:
        await self.fulfil(failed=True)

    async def fulfil_many(self) -> None:
        entry, tasks = self.standing(5)
        await self._tell(self.one([True, False]))
        made = [
            self.market.fulfilment(
                entry.agreement, request, failed=self.one([True, False]),
                payee=self.market.address(self.one(["payee", "relayer"])),
            )
            for request, _ in tasks
        ]  # fmt: skip
        await self.market.fulfil_many(entry.agreement, made)
        for task, each in zip(tasks, made, strict=True):
            if await self._settled(entry.agreement, task[0]):
                entry.open.remove(task)
                if task[1] == "caller":
                    self.failed.append((task[0], each))

    async def fulfil_batch(self) -> None:
        entry, tasks = self.standing(8, plain=True)
        await self.market.fulfil_batch(
            entry.agreement, [request for request, _ in tasks], self.one(["payee", "relayer"])
        )
        for task in tasks:
            if await self._settled(entry.agreement, task[0]):
                entry.open.remove(task)

    async def _settled(self, agreement: Agreement, request: TaskRequest) -> bool:
        """Late ones are left out of many."""
        return bool((await self.market.task(agreement, request))["state"] != 1)

    async def _tell(self, failing: bool) -> Receipt:
        return await self.market.send("relayer", self.market.caller, compiled("Caller").call("fail", failing))

    async def expire(self) -> None:
        now = (await self.market.head()).timestamp
        entry, task = self.one((e, task) for e in self.entries for task in e.open if task[0].deadline < now)
        await self.market.expire(entry.agreement, task[0])
        entry.open.remove(task)

    async def retry(self) -> None:
        request, made = self.one(self.failed)
        await self._tell(False)
        await self.market.oracle("relayer", "retryCallback", request, made.result, [])
        self.failed.remove((request, made))

    # money and time

    async def distribute(self) -> None:
        await self.market.distribute(self.one(self.entries).agreement)

    async def withdraw(self) -> None:
        token = self.one([ZERO_ADDRESS, self.market.coin])
        if self.random.random() < 0.2:
            await self.market.send("relayer", self.market.caller, compiled("Caller").call("withdraw", token))
            return
        who = self.one([*ASKERS, *PARTIES, "payee", "relayer"])
        await self.market.oracle(who, "withdraw", token, self.market.address(self.one(["payee", who])))

    async def wait(self) -> None:
        await self.market.wait(self.random.randint(10, 1500))

    async def mine(self) -> None:
        await self.market.mine(self.random.randint(1, 6))
