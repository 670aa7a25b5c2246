"""A contract asks for an answer that everyone may read, and gets it by callback from a real worker and enclave (R17)."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address

from enclave_app.protocol.abi_output import decode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.structs import TaskState
from oracle.chain.abi import load
from oracle.chain.events import TaskRequested, logs_of_receipt, read_event
from oracle.chain.rpc import Rpc, as_bytes, as_hex
from oracle.chain.sender import Sender, account_of
from oracle.devnet import Devnet, Options
from oracle.devnet.scenario import activate, prepare
from oracle.receipt import Expected, Verdict, read_receipt, verify_receipt
from oracle.task import Task
from tests.e2e.conftest import PARAMS, ROWS, tables

QUERY = """
SELECT count(*) AS n, CAST(sum(b.amount) AS BIGINT) AS total, CAST(avg(b.amount) AS DECIMAL(18, 2)) AS mean, true AS good
FROM a JOIN b ON a.id = b.id WHERE b.amount >= $least
"""
COLUMNS = ("int64", "int64", "decimal128(18, 2)", "bool")
LEAST = 10


async def test_a_contract_reads_a_public_output_that_a_worker_computed(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(block_time=1.0)) as devnet:
        brokers = [{"key": "0x" + b.card.digest.hex(), "signer": b.card.signer} for b in devnet.brokers]
        changes: dict[str, Any] = {
            "brokers": {"threshold": 2, "confirmation": "finalized", "list": brokers},
            "outputs": [{"name": "result", "recipients": "public", "owners": ["institute"]}],
        }
        prepared = await prepare(devnet, tmp_path / "owners", tables(), QUERY, params=PARAMS, changes=changes)
        agreement, agreement_id = prepared.agreement, await activate(devnet, prepared)
        rpc = Rpc(devnet.rpc_url)
        try:
            owner = Sender(rpc, account_of(devnet.accounts["requester"].wallet))
            # A contract has no key.
            made = await owner.transact(None, load("RiskDesk").deployment(agreement.oracle, agreement_id, ZERO32))
            desk = str(to_checksum_address(made.contract_address or ""))
            versions = [term.id_or_stream for term in agreement.data]
            asked = await owner.transact(desk, load("RiskDesk").call("ask", versions, b'{"least":%d}' % LEAST, 0))
            (request,) = (
                event for log in logs_of_receipt(asked.raw) if isinstance(event := read_event(log), TaskRequested)
            )

            async def answer() -> bytes:
                call = as_hex(load("RiskDesk").call("answers", request.task_id))
                return as_bytes(await rpc.call("eth_call", {"to": desk, "data": call}, "latest"))

            async with devnet.client("requester") as client:
                task = Task(client, request.task_id, agreement, request.request)
                assert await answer() == ZERO32
                assert await task.wait(patience=120) is TaskState.FULFILLED
                settled = await task.settlement()
                (content,) = await task.public_outputs(settled.result)
                amounts = [i * 2 for i in range(ROWS) if i * 2 >= LEAST]
                n, total, mean, good = decode_row(COLUMNS, content)
                assert (n, total, good) == (len(amounts), sum(amounts), True)
                assert mean == Decimal(f"{sum(amounts) / len(amounts):.2f}")
                # The callback brought it, under the digest that the enclave signed.
                assert await answer() == sha256(content) == settled.result.outputs[0].digest
                assert not (await task.state()).callback

                receipt = await task.fetch_receipt(patience=60)
                assert read_receipt(receipt).outputs == (content,)
                report = verify_receipt(
                    receipt, Expected(agreement_id=agreement_id), int(time.time()), allow_simulated=True
                )
                assert report.verdict is Verdict.AUTHENTIC, report.reason
                # Whoever reads storage did not know it before the chain did.
                record = await client.record(request.task_id)
                assert (record.outputs, record.public_outputs) == ((), ())
            stored = b"".join(path.read_bytes() for path in _files(devnet) if "receipt-" not in path.name)
            assert content not in stored
            assert content.hex().encode() not in stored
        finally:
            await rpc.close()


def _files(devnet: Devnet) -> list[Path]:
    return [path for path in (devnet.directory / "storage").rglob("*") if path.is_file()]
