"""A small hostile input costs little: limits are checked before work is done, and nothing grows far beyond what came in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from aiohttp import web

from enclave_app.protocol import canonical, structs
from enclave_app.protocol.bundle import MAGIC, read_bundle
from enclave_app.protocol.errors import OracleError, Refused, Retryable
from enclave_app.protocol.structs import ANYONE
from oracle import arrow, keys
from oracle.attestation import Collateral
from oracle.chain import events, rpc
from oracle.files import read_file
from oracle.keybroker.terms import agreement_memory
from oracle.storage import HttpStorage
from oracle.worker.enclave import Enclave
from oracle.yamlfile import parse_yaml
from tests.property.parsers import _KEYSTORE, _log, ipc, story

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PACKED = gzip.compress(bytes(256 * MIB), 1)
HANG = 60
"""Seconds after which something hangs; nothing here takes more than a few."""


@contextmanager
def within(most: int) -> Iterator[None]:
    """Python's own memory never grows by more than `most` bytes inside."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def exploded(*arguments: str) -> str:
    """What `bombs.py` says, in a process of its own that may take so much memory and no more; nothing where all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.property.bombs", *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=ROOT,
    )
    return done.stdout + (f"ended with {done.returncode}: {done.stderr[-2000:]}" if done.returncode else "")


def test_a_mebibyte_of_what_fits_a_parser_takes_bounded_memory() -> None:
    assert exploded() == ""


@pytest.mark.slow
def test_a_mebibyte_of_anything_takes_bounded_memory() -> None:
    assert exploded("--all") == ""


# --- lengths that promise too much ------------------------------------------------------------------------------------


def test_a_bundles_length_field_is_not_believed() -> None:
    with within(MIB), pytest.raises(Refused):
        read_bundle(MAGIC + b"\xff\xff\xff\xff" + bytes(100), None)


@pytest.mark.parametrize("count", [1 << 31, 1 << 64, 1 << 200, (1 << 256) - 1])
def test_an_abi_array_is_no_longer_than_its_data(count: int) -> None:
    with within(MIB), pytest.raises(Refused):
        structs.Agreement.abi_decode(words(32, *[0] * 5, count, *[0] * 50))
    with within(MIB), pytest.raises(Refused):
        events.read_event(_log(words(64, count, count), "AgreementActivated", 1))


def test_abi_offsets_that_all_lead_to_one_place_are_refused() -> None:
    """A thousand datasets that are one, of a thousand columns that are one: kilobytes that a general decoder makes
    gigabytes of."""
    fan, text = 1000, b"x" * 1024
    columns = words(fan, *[32 * fan] * fan, len(text)) + text
    dataset = words(*[288] * 9) + columns
    data = words(fan, *[32 * fan] * fan) + dataset
    agreement = words(*[0] * 8, 32 * 30, *[0] * 21) + data
    body = words(64, 64 + len(agreement)) + agreement + words(0)
    with within(4 * MIB), pytest.raises(Refused) as refused:
        events.read_event(_log(body, "AgreementActivated", 1))
    assert refused.value.code == "abi.decode"


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_output_is_refused_before_it_is_unpacked(codec: str) -> None:
    bomb = ipc(pa.table({"a": pa.array([0] * 4_000_000)}), compression=codec)
    assert len(bomb) < MIB
    before = pa.total_allocated_bytes()
    with pytest.raises(Refused) as refused:
        arrow.read_table(bomb, most_rows=1 << 40)
    assert refused.value.code == "arrow.compressed"
    assert pa.total_allocated_bytes() - before < MIB


def test_a_compressed_dictionary_is_refused() -> None:
    table = pa.table({"a": pa.array(["x" * 100_000]).dictionary_encode()})
    with pytest.raises(Refused) as refused:
        arrow.read_table(ipc(table, compression="zstd"), most_rows=10)
    assert refused.value.code == "arrow.compressed"


def test_rows_that_take_no_bytes_are_counted() -> None:
    with pytest.raises(Refused) as refused:
        arrow.read_table(ipc(pa.table({"n": pa.nulls(10_000_000)})), most_rows=1000)
    assert refused.value.code == "arrow.size"


def test_false_offsets_in_an_output_are_refused() -> None:
    """Found by mutation: touching such a value ended the process."""
    table = pa.table({"s": ["first", "second"]})
    data = bytearray(ipc(table))
    place = data.index((5).to_bytes(4, "little") + (11).to_bytes(4, "little"))
    data[place : place + 4] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(Refused) as refused:
        arrow.read_table(data, most_rows=10)
    assert refused.value.code == "arrow.format"


# --- files and keys ---------------------------------------------------------------------------------------------------


def test_a_file_is_read_up_to_its_bound_only(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as target:
        target.truncate(1 << 33)
    with within(4 * MIB), pytest.raises(Refused) as refused:
        read_file(path, MIB)
    assert refused.value.code == "file.size"


@pytest.mark.parametrize(
    "costs", [{"p": 1 << 30}, {"r": 1 << 30}, {"n": 1 << 40}, {"dklen": 1 << 30}, {"p": 0}, {"n": -8}, {"p": 1 << 14}]
)
def test_a_keystore_that_costs_too_much_is_not_tried(tmp_path: Path, costs: dict[str, int]) -> None:
    store = json.loads(_KEYSTORE)
    store["crypto"]["kdfparams"].update(costs)
    (tmp_path / "w.json").write_text(json.dumps(store))
    with pytest.raises(Refused) as refused:
        keys.load_wallet(tmp_path / "w.json", pytest.fail)
    assert refused.value.code == "keystore.format"


def test_a_file_of_few_bytes_a_value_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        parse_yaml(b"- a\n" * 200_000)
    assert refused.value.code == "yaml.size"


def test_collateral_nested_in_a_string_is_no_deeper_than_any_other() -> None:
    collateral = story().papers.collateral
    assert collateral is not None
    value = json.loads(collateral.to_json())
    for name in ("tcb_info", "qe_identity"):
        nested = Collateral.from_json(json.dumps({**value, name: "[" * 1_000_000}))
        with pytest.raises(OracleError):
            nested.window()


def test_what_a_broker_remembers_of_agreements_is_bounded() -> None:
    """Anyone can send agreements that name a broker: neither long names nor long signatures stay in its memory."""
    identify, signed = agreement_memory()
    agreed, chain = story().record.agreement, story().record.chain
    with within(40 * MIB):
        for number in range(12):
            signed(bytes([number]) * 32, ("0x" + "11" * 20,), (bytes([number]) * (8 * MIB),))
    with within(60 * MIB):
        for number in range(24):
            named = agreed.data[0].model_copy(update={"columns": (f"{number}" + "c" * (4 * MIB),)})
            identify(chain, agreed.model_copy(update={"data": (named, *agreed.data[1:])}))
    assert agreed.access.requesters == ANYONE


# --- streams ----------------------------------------------------------------------------------------------------------

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(respond: Respond, path: Path | None = None) -> AsyncIterator[str]:
    """A server of the attacker's, on a port or a Unix socket."""
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", respond)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if path is not None:
            await web.UnixSite(runner, str(path)).start()
            yield str(path)
        else:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"[" * 65_536)
    return response


async def packed(_: web.Request) -> web.StreamResponse:
    return web.Response(body=PACKED, headers={"Content-Encoding": "gzip"})


async def many(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b'{"id":1,"result":[' + b"[]," * 2_500_000 + b"[]]}")


async def trickling(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)
    return response


@pytest.mark.parametrize("method", ["eth_call", "eth_getLogs"])
@pytest.mark.parametrize("respond", [endless, packed, many])
async def test_an_endpoint_fills_no_memory(respond: Respond, method: str) -> None:
    async with serving(respond) as url, asyncio.timeout(HANG):
        client = rpc.Rpc(url, timeout=HANG)
        try:
            # Some chunks lie in buffers beside the answer itself.
            with (
                within(3 * (rpc.MAX_LOGS if method == "eth_getLogs" else 4 * rpc.MAX_ANSWER)),
                pytest.raises(Retryable) as caught,
            ):
                await client.call(method)
        finally:
            await client.close()
    assert caught.value.code in ("rpc.size", "rpc.answer")


async def test_an_endpoint_that_trickles_runs_out_of_time() -> None:
    async with serving(trickling) as url, asyncio.timeout(HANG):
        client = rpc.Rpc(url, timeout=0.3)
        try:
            with pytest.raises(Retryable) as caught:
                await client.call("eth_chainId")
        finally:
            await client.close()
    assert caught.value.code == "rpc.timeout"


@pytest.mark.parametrize("respond", [endless, trickling])
async def test_a_storage_server_gets_neither_all_memory_nor_all_time(respond: Respond) -> None:
    async with serving(respond) as url, asyncio.timeout(HANG), HttpStorage(url, timeout=0.5) as storage:
        with within(16 * MIB), pytest.raises(OracleError) as caught:
            await storage.get(bytes(32), 1 << 16)
    assert caught.value.code in ("blob.size", "storage.http")


async def test_an_enclave_fills_no_memory(tmp_path: Path) -> None:
    async with serving(endless, tmp_path / "e.sock") as path, asyncio.timeout(HANG), Enclave(Path(path)) as enclave:
        with within(8 * MIB), pytest.raises(Retryable) as caught:
            await enclave.file(bytes(32), bytes(32), MIB)
    assert caught.value.code == "enclave.size"


def test_canonical_json_counts_values_before_it_makes_them() -> None:
    with within(40 * MIB), pytest.raises(Refused) as refused:
        canonical.load(b"[" + b"[]," * 2_000_000 + b"[]]", canonical=False)
    assert refused.value.code == "json.size"
