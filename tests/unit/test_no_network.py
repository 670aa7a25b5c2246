"""The guard in conftest.py."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

BLOCKED = "unit tests have no network"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, -1])
def test_internet_sockets_are_refused(family: int) -> None:
    with pytest.raises(RuntimeError, match=BLOCKED):
        socket.socket(family)


def test_connecting_by_address_is_refused() -> None:
    with pytest.raises(RuntimeError, match=BLOCKED):
        socket.create_connection(("127.0.0.1", 9))


def test_name_lookups_are_refused() -> None:
    with pytest.raises(RuntimeError, match=BLOCKED):
        socket.getaddrinfo("localhost", 80)


async def test_an_http_client_is_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(RuntimeError, match=BLOCKED):
            await session.get("http://127.0.0.1:9/")


async def test_unix_sockets_work(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(echo, tmp_path / "s")
    async with server:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"ping")
        assert await reader.read() == b"ping"
        writer.close()
        await writer.wait_closed()
