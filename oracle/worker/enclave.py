"""The enclave's HTTP API on its Unix socket, from the host's side. Its process is in process.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import aiohttp

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.release import ErrorBody
from enclave_app.protocol.wire import (
    AppraisalAnswer,
    AppraisalBody,
    BatchAnswer,
    BatchBody,
    EvidenceAnswer,
    EvidenceBody,
    Identity,
    RetireAnswer,
    RetireBody,
    RunBody,
    TaskBody,
    TaskDone,
    TaskStarted,
)
from oracle.errors import OracleError, Permanent, Refused, Retryable

D = TypeVar("D", bound=Document)
MAX_ANSWER = 32 << 20
MAX_ERROR = 1 << 16
QUICK = 30.0
"""Seconds for everything but a run and a file."""
UNREACHABLE = "enclave.unreachable"
TIMEOUT = "enclave.timeout"


class Enclave:
    """Errors are what the enclave says, Retryable or Permanent with its own code, and Retryable `enclave.unreachable` or
    `enclave.timeout`. Use it as an async context manager, or close it. A verifier enclave may be behind a URL."""

    def __init__(self, where: Path | str) -> None:
        self.where = where
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Enclave:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def identity(self, seconds: float = QUICK) -> Identity:
        """Who it is; also the probe of whether it lives, which it answers while functions run: they are other processes."""
        return await self._ask(Identity, "GET", "/v1/identity", None, seconds)

    async def evidence(self, body: EvidenceBody) -> EvidenceAnswer:
        return await self._ask(EvidenceAnswer, "POST", "/v1/evidence", body, QUICK)

    async def retire(self, body: RetireBody) -> RetireAnswer:
        return await self._ask(RetireAnswer, "POST", "/v1/retire", body, QUICK)

    async def appraise(self, body: AppraisalBody) -> AppraisalAnswer:
        """Of an enclave in the role `verifier`. Raises Permanent `http.404` from any other."""
        return await self._ask(AppraisalAnswer, "POST", "/v1/appraise", body, QUICK)

    async def start(self, body: TaskBody) -> TaskStarted:
        """Hand a task over; the enclave fetches and checks what the task names, hence `QUICK` is generous."""
        return await self._ask(TaskStarted, "POST", "/v1/tasks", body, QUICK)

    async def run(self, task_id: bytes, body: RunBody, seconds: float) -> TaskDone:
        """`seconds` bounds the wait: the agreed time limit and what loading takes."""
        return await self._ask(TaskDone, "POST", f"/v1/tasks/0x{task_id.hex()}/run", body, seconds)

    async def file(self, task_id: bytes, digest: bytes, size: int, seconds: float = 300.0) -> bytes:
        """A ciphertext file of an output, of at most `size` bytes; the caller checks its digest."""
        return await self._send("GET", f"/v1/tasks/0x{task_id.hex()}/files/0x{digest.hex()}", None, seconds, size)

    async def batch(self, tasks: Sequence[bytes]) -> BatchAnswer:
        """One signature over the results of these tasks, which ran there and are not forgotten."""
        return await self._ask(BatchAnswer, "POST", "/v1/batches", BatchBody(tasks=tuple(tasks)), QUICK)

    async def forget(self, task_id: bytes, seconds: float = QUICK) -> None:
        """Let the enclave free what it holds for a task, and stop it where it runs."""
        await self._send("DELETE", f"/v1/tasks/0x{task_id.hex()}", None, seconds)

    async def _ask(self, model: type[D], method: str, path: str, body: Document | None, seconds: float) -> D:
        raw = await self._send(method, path, None if body is None else body.canonical(), seconds)
        return parse(model, raw, limit=MAX_ANSWER, canonical=False)

    async def _send(self, method: str, path: str, body: bytes | None, seconds: float, most: int = MAX_ANSWER) -> bytes:
        if self._session is None:
            local = aiohttp.UnixConnector(str(self.where), limit=0) if isinstance(self.where, Path) else None
            self._session = aiohttp.ClientSession(connector=local)
        base = "http://enclave" if isinstance(self.where, Path) else self.where.rstrip("/")
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(
                method,
                f"{base}{path}",
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as answer:
                raw = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 20):
                    raw += chunk
                    if len(raw) > max(most, MAX_ERROR):
                        raise Retryable("enclave.size", f"the enclave answered with more than {most} bytes")
                if not 200 <= answer.status < 300:
                    raise error_of(bytes(raw), answer.status, "the enclave")
                return bytes(raw)
        except TimeoutError:
            raise Retryable(TIMEOUT, f"the enclave did not answer within {seconds:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(
                UNREACHABLE,
                f"no enclave answers on {self.where} ({type(error).__name__})",
                hint="Is it running? `oracle doctor` tells",
            ) from None


def error_of(raw: bytes, status: int, who: str) -> OracleError:
    """What a service of ours meant by an error answer (protocol/release.py, ErrorBody)."""
    try:
        body = parse(ErrorBody, raw, limit=MAX_ERROR, canonical=False)
    except Refused:
        kind = Retryable if status >= 500 or status in (408, 425, 429) else Permanent
        return kind(f"http.{status}", f"{who} answered with status {status} and no reason")
    return (Retryable if body.retry else Permanent)(body.code, f"{who}: {body.message}")
