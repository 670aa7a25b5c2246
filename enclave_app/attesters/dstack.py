"""A container on dstack (TDX): the guest agent's HTTP API on /var/run/dstack.sock.

Source: dstack's guest-agent/rpc/proto/agent_rpc.proto and sdk/curl/api.md. `GetQuote` at the unversioned path is in every
release since 0.5. The agent runs in the same TD as the container, and what it says is checked like any platform's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import aiohttp

from enclave_app.attesters.base import EvidenceError, PlatformError, PlatformTimeout, checked_report_data
from enclave_app.attesters.bound import MAX_QUOTE, tdx_quote
from enclave_app.attesters.device import FILE_SYSTEM, SECONDS, Hardware
from enclave_app.protocol.canonical import load
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.measurement import TEE_TDX

SOCKET: Final = Path("/var/run/dstack.sock")
MAX_ANSWER: Final = 4 << 20
"""Bytes: beside the quote it holds the event log and the VM's configuration."""
_URL: Final = "http://dstack/GetQuote"


class DstackAttester(Hardware):
    def __init__(self, root: Path = FILE_SYSTEM, seconds: float = SECONDS) -> None:
        super().__init__("dstack", TEE_TDX, SOCKET, root, seconds)
        self._seconds = seconds

    async def quote(self, report_data: bytes) -> bytes:
        """A version 4 or 5 TDX quote. Raises AttesterError's kinds."""
        data = checked_report_data(report_data)
        status, answer = await self._ask({"report_data": data.hex()})
        if status != 200:
            raise PlatformError(
                f"the dstack guest agent refuses with status {status}: {answer[:200].decode('utf-8', 'replace')!r}"
            )
        return tdx_quote(read_answer(answer), data)

    async def _ask(self, body: dict[str, str]) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        connector = aiohttp.UnixConnector(path=str(self.path))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
                session.post(_URL, json=body, allow_redirects=False) as response,
            ):
                answer = bytearray()
                async for part in response.content.iter_any():
                    answer += part
                    if len(answer) > MAX_ANSWER:
                        raise EvidenceError(f"the dstack guest agent's answer is larger than {MAX_ANSWER} bytes")
                return response.status, bytes(answer)
        except TimeoutError:
            raise PlatformTimeout(f"the dstack guest agent gave no quote within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PlatformError(f"the dstack guest agent at {self.path} cannot be asked: {error}") from error


def read_answer(answer: bytes) -> bytes:
    """The quote in a GetQuoteResponse. Raises EvidenceError."""
    try:
        quote = load(answer, limit=MAX_ANSWER, canonical=False)["quote"]
        if len(quote) > 2 * MAX_QUOTE:
            raise EvidenceError(f"the dstack guest agent's quote is larger than {MAX_QUOTE} bytes")
        return bytes.fromhex(quote)
    except (Refused, ValueError, KeyError, TypeError) as error:
        raise EvidenceError("the dstack guest agent's answer holds no quote in hexadecimal") from error
