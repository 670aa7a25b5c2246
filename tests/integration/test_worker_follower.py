"""The follower on a real chain that grows, reorganises and answers badly, across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.onchain import admission, pricing
from enclave_app.protocol.structs import TaskState
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc
from oracle.errors import Retryable, RpcFault
from oracle.worker.follower import Follower
from oracle.worker.journal import JournalThread
from oracle.worker.states import State
from tests.rpc_kit import proxy
from tests.worker_kit import World, world


class Narrow(Rpc):
    """An endpoint that refuses log ranges of more than `most` blocks, as public ones do."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__(url)
        self.most, self.refused = most, 0

    async def call(self, method: str, *params: Any) -> Any:
        if method == "eth_getLogs":
            query = params[0]
            if int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= self.most:
                self.refused += 1
                raise RpcFault(-32005, "query exceeds max block range", None)
        return await super().call(method, *params)


OPENED: list[JournalThread] = []


@pytest.fixture(autouse=True)
def _close_journals() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


class Followed:
    """A journal with a follower on it; `news` are the calls it made."""

    def __init__(
        self, place: World, rpc: Rpc | None = None, *, subscribe: str | None = None, poll: float = 0.01
    ) -> None:
        self.place = place
        self.db = JournalThread(place.directory / "follow.sqlite")
        OPENED.append(self.db)
        self.news: list[bool] = []
        addresses = (place.deployment.oracle, place.deployment.agreement_registry)
        first = place.deployment.first_block
        self.heard = asyncio.Event()
        self.follower = Follower(
            rpc or place.rpc, self.db, addresses, first, poll=poll, on_news=self._note, subscribe=subscribe
        )

    async def _note(self, reorganised: bool) -> None:
        self.news.append(reorganised)
        self.heard.set()

    async def catch_up(self) -> None:
        for _ in range(500):
            await self.follower.step()
            head = await self.place.rpc.call("eth_getBlockByNumber", "latest", False)
            cursor = self.db.journal.cursor()
            if cursor is not None and cursor[1].hex() == head["hash"][2:]:
                return
        raise AssertionError("the follower does not catch up")

    def states(self) -> dict[bytes, State]:
        return {task.id: task.state for task in self.db.journal.tasks()}


async def test_back_fill_finds_everything_from_the_first_block(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement_id = await place.activate(agreement)
        first, request, _ = await place.request(agreement)
        await place.rpc.call("anvil_mine", hex(50))
        second, _, _ = await place.request(agreement)
        followed = Followed(place)
        await followed.catch_up()
        assert followed.states() == {first: State.SEEN, second: State.SEEN}
        stored = followed.db.journal.agreement(agreement_id)
        assert stored is not None
        assert stored.agreement == agreement
        assert stored.signatures == (place.owner.sign(agreement_id),)
        task = followed.db.journal.task(first)
        assert task is not None
        assert task.request == request
        followed.db.close()


async def test_a_range_that_is_refused_is_asked_for_in_parts(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        await place.rpc.call("anvil_mine", hex(100))
        task_id, _, _ = await place.request(agreement)
        rpc = Narrow(place.rpc.url, 20)
        followed = Followed(place, rpc)
        await followed.catch_up()
        assert rpc.refused > 0
        assert followed.states() == {task_id: State.SEEN}
        followed.db.close()
        await rpc.close()


@pytest.mark.parametrize("how", ["left out", "twice and in disorder", "of another block"])
async def test_logs_that_an_endpoint_leaves_out_doubles_or_makes_up(tmp_path: Path, how: str) -> None:
    """By range, as an overloaded node would; asked by a block's hash it tells the truth."""
    forged = 0

    def forgery(call: dict[str, Any], value: Any) -> Any:
        nonlocal forged
        if call["method"] != "eth_getLogs" or "blockHash" in call["params"][0] or not value:
            return value
        forged += 1
        if how == "left out":
            return []
        if how == "twice and in disorder":
            return [*reversed(value), *value]
        # One lie, and then the truth: a chain that changes between two questions looks like this.
        return [{**log, "blockHash": "0x" + "77" * 32} for log in value] if forged < 3 else value

    async with world(tmp_path) as place, proxy(place.rpc.url, forgery) as url:
        agreement = await place.agreement()
        followed = Followed(place, rpc := Rpc(url))
        await followed.catch_up()
        await place.activate(agreement)
        first, _, _ = await place.request(agreement)
        second, _, _ = await place.request(agreement)
        for _ in range(5):
            with suppress(Retryable):
                await followed.catch_up()
                break
        assert followed.states() == {first: State.SEEN, second: State.SEEN}
        assert forged
        followed.db.close()
        await rpc.close()


async def test_a_subscription_makes_the_follower_look_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        followed = Followed(place, subscribe=place.rpc.url.replace("http", "ws"), poll=3600)
        running = asyncio.create_task(followed.follower.run())
        try:
            task_id, _, _ = await place.request(agreement)
            async with asyncio.timeout(30):
                while task_id not in followed.states():
                    followed.heard.clear()
                    await followed.heard.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        followed.db.close()


async def test_a_restart_goes_on_from_the_cursor_and_misses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        first, _, _ = await place.request(agreement)
        before = Followed(place)
        await before.catch_up()
        before.db.close()
        second, _, _ = await place.request(agreement)
        after = Followed(place)
        assert after.states() == {first: State.SEEN}
        await after.catch_up()
        assert after.states() == {first: State.SEEN, second: State.SEEN}
        after.db.close()


async def test_cancel_and_expiry_are_seen(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement = agreement.model_copy(update={"keys": agreement.keys.model_copy(update={"release_delay": 9})})
        await place.activate(agreement)
        cancelled, request, _ = await place.request(agreement)
        expired, late, _ = await place.request(agreement)
        oracle = load("ComputeOracle")
        await place.requester.transact(place.deployment.oracle, oracle.call("cancel", request, admission(agreement)))
        await place.rpc.call("evm_increaseTime", 7200)
        await place.requester.transact(place.deployment.oracle, oracle.call("expire", late, pricing(agreement)))
        followed = Followed(place)
        await followed.catch_up()
        assert followed.states() == {cancelled: State.CANCELLED, expired: State.EXPIRED}
        followed.db.close()


@pytest.mark.parametrize("restart", [False, True])
async def test_a_reorganisation_is_followed_to_the_new_chain(tmp_path: Path, restart: bool) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        kept, _, _ = await place.request(agreement)
        await place.rpc.call("anvil_mine", hex(3))
        followed = Followed(place)
        await followed.catch_up()
        lost, _, _ = await place.request(agreement)
        await followed.catch_up()
        assert followed.states() == {kept: State.SEEN, lost: State.SEEN}
        if restart:
            followed.db.close()
        await place.rpc.call("anvil_reorg", 2, [])
        assert (await place.on_chain(lost)).state is TaskState.NONE
        if restart:
            followed = Followed(place)
        await followed.catch_up()
        assert followed.states() == {kept: State.SEEN, lost: State.ORPHANED}
        assert followed.news.count(True) == 1
        followed.db.close()


async def test_another_chain_under_the_same_journal_is_followed_from_its_beginning(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        task_id, _, _ = await place.request(agreement)
        snapshot = await place.rpc.call("evm_snapshot")
        followed = Followed(place)
        await followed.catch_up()
        await place.rpc.call("evm_revert", snapshot)
        await place.rpc.call("anvil_reorg", 3, [])
        await place.rpc.call("anvil_mine", hex(2))
        await followed.catch_up()
        assert followed.states() == {task_id: State.ORPHANED}
        followed.db.close()


async def test_a_reorganisation_after_a_long_back_fill_goes_back_a_short_way_only(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        await place.rpc.call("anvil_mine", hex(200))
        await place.request(agreement)
        followed = Followed(place)
        await followed.catch_up()
        await place.rpc.call("anvil_reorg", 10, [])
        await followed.catch_up()
        # The rewind is the last news: the agreement below was not taken in anew.
        assert followed.news[-1] is True
        assert followed.db.journal.agreement(place.chain.agreement_id(agreement)) is not None


async def test_a_log_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    """Anyone can request with a uri that is no UTF-8."""
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        _, request, _ = await place.request(agreement)
        other = request.model_copy(update={"nonce": b"\x01" * 32})
        call = load("ComputeOracle").call("request", other, admission(agreement), "~" * 32)
        assert call.count(b"~" * 32) == 1
        poisoned = call.replace(b"~" * 32, b"\xff" * 32)
        receipt = await place.requester.transact(place.deployment.oracle, poisoned, value=10**15)
        assert receipt.ok
        last, _, _ = await place.request(agreement)
        followed = Followed(place)
        await followed.catch_up()
        assert last in followed.states()
        assert len(followed.states()) == 2
        followed.db.close()
