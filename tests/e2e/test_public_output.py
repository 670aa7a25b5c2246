"""A contract asks for an answer that everyone may read, and gets it by callback from a real worker and enclave (R17)."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address

from enclave_app.protocol.abi_output import decode_row
from enclave_app.protocol.digests import keccak
from enclave_app.protocol.onchain import admission
from enclave_app.protocol.structs import Agreement, TaskState
from oracle.chain.abi import load
from oracle.chain.events import TaskRequested, logs_of_receipt, read_event
from oracle.chain.rpc import Rpc, as_bytes, as_hex
from oracle.chain.sender import Sender, account_of
from oracle.devnet import Devnet, Options
from oracle.devnet.scenario import OwnedTable, activate, prepare
from oracle.errors import Refused
from oracle.receipt import Expected, Verdict, read_receipt, verify_receipt
from oracle.task import Task
from tests.cli_kit import answer

QUERY = """
SELECT CAST(coalesce(max(a.points), 0) AS BIGINT) AS score, CAST(coalesce(max(b.headroom), 0) AS BIGINT) AS credit
FROM a JOIN b USING (subject) WHERE a.subject = $subject
"""
PARAMS = [{"type": "decimal", "name": "subject", "min": "0", "max": "9" * 31}]
SCORE, LIMIT = 712, 5_000_000
OPENED, DECLINED = 2, 3


def subject_of(account: str) -> int:
    """As the pool names its customers to the banks."""
    return int.from_bytes(keccak(encode(["address"], [account])), "big") % 10**31


def banks(customer: str) -> dict[str, OwnedTable]:
    kind = pa.decimal128(31, 0)
    subjects = pa.array([Decimal(subject_of(customer)), Decimal(7), Decimal(8)], kind)
    return {
        "a": OwnedTable("hospital-a", pa.table({"subject": subjects, "points": [SCORE, 300, 800]})),
        "b": OwnedTable("hospital-b", pa.table({"subject": subjects, "headroom": [LIMIT, 10, 10]})),
    }


class Pool:
    """contracts/examples/CreditLine.sol. Nobody deposits here, so that its asset need not be a token."""

    def __init__(self, devnet: Devnet, rpc: Rpc, agreement: Agreement, address: str) -> None:
        self._devnet, self._rpc, self._agreement, self.address = devnet, rpc, agreement, address

    async def apply(self, account: str) -> TaskRequested:
        versions = [term.id_or_stream for term in self._agreement.data]
        call = load("CreditLine").call("applyForCredit", versions, admission(self._agreement))
        sent = await sender(self._devnet, self._rpc, account).transact(self.address, call)
        events = [read_event(log) for log in logs_of_receipt(sent.raw)]
        (request,) = (event for event in events if isinstance(event, TaskRequested))
        return request

    async def stage(self, task_id: bytes) -> int:
        _, _, stage = decode(["address", "uint40", "uint8"], await self._view("applications", task_id))
        return int(stage)

    async def limit(self, account: str) -> int:
        return int.from_bytes((await self._view("lines", account))[:32], "big")

    async def _view(self, function: str, argument: object) -> bytes:
        call = {"to": self.address, "data": as_hex(load("CreditLine").call(function, argument))}
        return as_bytes(await self._rpc.call("eth_call", call, "latest"))


def sender(devnet: Devnet, rpc: Rpc, account: str) -> Sender:
    return Sender(rpc, account_of(devnet.accounts[account].wallet))


async def test_a_contract_lends_on_a_public_output_that_a_worker_computed(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(block_time=1.0)) as devnet:
        customer, stranger = (devnet.accounts[name].wallet.address for name in ("requester", "institute"))
        brokers = [{"key": "0x" + b.card.digest.hex(), "signer": b.card.signer} for b in devnet.brokers]
        changes: dict[str, Any] = {
            "brokers": {"threshold": 2, "confirmation": "finalized", "list": brokers},
            "outputs": [{"name": "result", "recipients": "public", "owners": ["institute"]}],
        }
        prepared = await prepare(devnet, tmp_path / "owners", banks(customer), QUERY, params=PARAMS, changes=changes)
        agreement, agreement_id = prepared.agreement, await activate(devnet, prepared)
        rpc = Rpc(devnet.rpc_url)
        try:
            terms = (agreement.oracle, agreement_id, agreement.oracle, 600, 10**9, 500)
            made = await sender(devnet, rpc, "institute").transact(None, load("CreditLine").deployment(*terms))
            pool = Pool(devnet, rpc, agreement, str(to_checksum_address(made.contract_address or "")))
            asked = await pool.apply("requester")
            unknown = await pool.apply("institute")
            async with devnet.client("requester") as client:
                task = Task(client, asked.task_id, agreement, asked.request)
                assert await task.wait(patience=120) is TaskState.FULFILLED
                other = Task(client, unknown.task_id, agreement, unknown.request)
                assert await other.wait(patience=120) is TaskState.FULFILLED
                settled = await task.settlement()
                (content,) = await task.public_outputs(settled.result)
                assert decode_row(("int64", "int64"), content) == (SCORE, LIMIT)
                assert await task.public_output() == content
                with pytest.raises(Refused, match="not sealed"):
                    await task.result()
                words = (
                    "--column",
                    "int64",
                    "--column",
                    "int64",
                    "--config",
                    devnet.directory / "requester.yaml",
                )
                shown = await asyncio.to_thread(answer, "task", "result", "0x" + asked.task_id.hex(), *words)
                assert (shown["values"], shown["data"]) == ([str(SCORE), str(LIMIT)], "0x" + content.hex())
                # What the callback brought has opened a line, and for whom no bank knows it has not.
                assert [await pool.stage(each.task_id) for each in (asked, unknown)] == [OPENED, DECLINED]
                assert [await pool.limit(account) for account in (customer, stranger)] == [LIMIT, 0]
                assert not (await task.state()).callback

                receipt = await task.fetch_receipt(patience=60)
                assert read_receipt(receipt).outputs == (content,)
                known = Expected(agreement_id=agreement_id)
                report = verify_receipt(receipt, known, int(time.time()), allow_simulated=True)
                assert report.verdict is Verdict.AUTHENTIC, report.reason
                # Whoever reads storage did not know it before the chain did.
                record = await client.record(asked.task_id)
                assert (record.outputs, record.public_outputs) == ((), ())
        finally:
            await rpc.close()
