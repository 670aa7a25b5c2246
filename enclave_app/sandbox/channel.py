"""What the enclave and one sandboxed child say to each other, over a socket pair of their own.

    enclave → child   length (4, big-endian) ‖ JSON, with the inputs' descriptors
    child → enclave   length (4, big-endian) ‖ JSON {"ok": …, "parts": [lengths]} ‖ the parts

The zygote only passes the socket on, so neither a key nor a value ever lies in memory that later children inherit (R6).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from enclave_app.protocol.canonical import load
from enclave_app.protocol.errors import Refused, Retryable

HEAD: Final = 4
MAX_ANSWER: Final = 1 << 16
"""What a child says beside its parts: their sizes, a few numbers, or why it refused. More would be no answer, and the
enclave's own process parses it."""
MAX_PARTS: Final = 64
MAX_DESCRIPTORS: Final = 48
_CHUNK: Final = 1 << 20


class ChildClosed(Retryable):
    """The child went away before it answered."""


def receive_job(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """In the child: the job and its descriptors."""
    data, descriptors, _, _ = socket.recv_fds(connection, HEAD, MAX_DESCRIPTORS)
    while len(data) < HEAD:
        data += _some(connection, HEAD - len(data))
    length = int.from_bytes(data, "big")
    body = bytearray()
    while len(body) < length:
        body += _some(connection, min(_CHUNK, length - len(body)))
    return json.loads(body), descriptors


def send_answer(connection: socket.socket, answer: dict[str, Any], parts: Sequence[bytes | memoryview]) -> None:
    """In the child: the answer and its parts."""
    head = json.dumps({**answer, "parts": [len(part) for part in parts]}).encode()
    for piece in (len(head).to_bytes(HEAD, "big") + head, *parts):
        view = memoryview(piece)
        while view:
            # write(2), because sendto(2) can name an address and is filtered.
            view = view[os.write(connection.fileno(), view[:_CHUNK]) :]


async def send_job(connection: socket.socket, job: dict[str, Any], descriptors: Sequence[int]) -> None:
    """In the enclave. Raises ChildClosed."""
    loop = asyncio.get_running_loop()
    body = json.dumps(job).encode()
    try:
        # Four bytes fit the buffer of a new socket, so this does not block.
        socket.send_fds(connection, [len(body).to_bytes(HEAD, "big")], list(descriptors))
        await loop.sock_sendall(connection, body)
    except OSError:
        raise ChildClosed("sandbox.closed", "a sandboxed process went away") from None


async def receive_answer(connection: socket.socket, limit: int) -> tuple[dict[str, Any], list[bytearray]]:
    """In the enclave: the answer, and at most `limit` bytes of parts; all of it is untrusted. Raises ChildClosed."""
    length = int.from_bytes(await _exactly(connection, HEAD), "big")
    if length > MAX_ANSWER:
        raise ChildClosed("sandbox.answer", "a sandboxed process answered out of form")
    raw = await _exactly(connection, length)
    try:
        answer: Any = load(bytes(raw), canonical=False)
    except Refused:
        answer = None
    sizes = answer.get("parts") if isinstance(answer, dict) else None
    if not isinstance(sizes, list) or len(sizes) > MAX_PARTS or any(type(size) is not int for size in sizes):
        raise ChildClosed("sandbox.answer", "a sandboxed process answered out of form")
    if any(size < 0 for size in sizes) or sum(sizes) > limit:
        # Without the sizes: this text goes to the host, and a child that was taken over would write values in them.
        raise ChildClosed("sandbox.answer", "a sandboxed process answered with too much")
    return answer, [await _exactly(connection, size) for size in sizes]


async def _exactly(connection: socket.socket, length: int) -> bytearray:
    loop = asyncio.get_running_loop()
    data = bytearray()
    try:
        while len(data) < length:
            chunk = await loop.sock_recv(connection, min(_CHUNK, length - len(data)))
            if not chunk:
                raise ChildClosed("sandbox.closed", "a sandboxed process ended without an answer")
            data += chunk
    except OSError:
        raise ChildClosed("sandbox.closed", "a sandboxed process went away") from None
    return data


def _some(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    if not data:
        raise EOFError
    return data
