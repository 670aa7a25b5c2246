"""One devnet for a file of tests: a chain, three brokers (two needed), a worker and its enclave, all real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pytest
import pytest_asyncio

from oracle.devnet import Devnet, Options
from oracle.devnet.scenario import OwnedTable, activate, prepare

MARKER = "MARKER-7f3a9c51"
"""In a column that the query reads and does not output: it may be in memory, and nowhere else."""
QUERY = """
SELECT a.grp, count(*) AS n, sum(b.amount * CASE WHEN $least = 1000 THEN 9223372036854775807 ELSE 1 END) AS total
FROM a JOIN b ON a.id = b.id
WHERE a.note <> 'nothing' AND (b.amount >= $least OR $least = 1000)
GROUP BY a.grp ORDER BY a.grp
"""
"""With least = 1000 its product overflows: a deterministic error of the function (R19)."""
PARAMS = [{"type": "integer", "name": "least", "min": 0, "max": 1000}]
ROWS = 200


def tables() -> dict[str, OwnedTable]:
    ids = list(range(ROWS))
    a = pa.table({"id": ids, "grp": [i % 3 for i in ids], "note": [f"{MARKER}-{i}" for i in ids]})
    b = pa.table({"id": ids, "amount": [i * 2 for i in ids], "unused": [f"{MARKER}-unreleased-{i}" for i in ids]})
    return {"a": OwnedTable("hospital-a", a), "b": OwnedTable("hospital-b", b, columns=("id", "amount"))}


def expected(least: int) -> list[dict[str, int]]:
    groups: dict[int, list[int]] = {}
    for i in range(ROWS):
        if i * 2 >= least:
            groups.setdefault(i % 3, []).append(i * 2)
    return [{"grp": g, "n": len(v), "total": sum(v)} for g, v in sorted(groups.items())]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devnet")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def devnet(home: Path) -> AsyncIterator[Devnet]:
    options = Options(patience=240, worker={"retryFirst": 0.2, "retryMost": 1.0, "poll": 0.05, "releaseHedge": 0})
    async with Devnet.open(home / "net", options) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agreement_id(devnet: Devnet, home: Path) -> bytes:
    prepared = await prepare(devnet, home / "owners", tables(), QUERY, params=PARAMS)
    return await activate(devnet, prepared)
