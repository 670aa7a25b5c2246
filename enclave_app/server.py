"""The host's only way in: HTTP on a Unix socket (`enclave_app/protocol/wire.py`). All that comes in is untrusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from aiohttp import web

from enclave_app.attesters.base import AttesterError
from enclave_app.identity import EnclaveIdentity
from enclave_app.logs import Log
from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.digests import parse_digest
from enclave_app.protocol.errors import OracleError, Refused, Retryable
from enclave_app.protocol.release import ErrorBody
from enclave_app.protocol.wire import AppraisalBody, BatchBody, EvidenceBody, RetireBody, RunBody, TaskBody

if TYPE_CHECKING:
    from enclave_app.tasks import Tasks
    from enclave_app.verifier import Verifier

MAX_BODY: Final = 32 << 20
_CHUNK: Final = 1 << 20
_NOT_FOUND: Final = frozenset({"task.unknown", "task.file", "http.404"})

M = TypeVar("M", bound=Document)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(identity: EnclaveIdentity, routes: Sequence[web.RouteDef], log: Log) -> web.Application:
    """What every enclave answers, and the `routes` of its role. Those of another role are not there."""
    api = _Api(identity, log)

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await api.answer(request, handler)

    app = web.Application(middlewares=[errors], client_max_size=MAX_BODY)
    app.router.add_get("/v1/identity", api.identity)
    app.router.add_post("/v1/evidence", api.evidence)
    app.router.add_post("/v1/retire", api.retire)
    app.router.add_routes(routes)
    return app


def task_routes(tasks: Tasks) -> tuple[web.RouteDef, ...]:
    async def start(request: web.Request) -> web.Response:
        return _json(await tasks.start(await _read(request, TaskBody)))

    async def run(request: web.Request) -> web.Response:
        return _json(await tasks.run(_digest(request, "id"), await _read(request, RunBody)))

    async def forget(request: web.Request) -> web.Response:
        tasks.forget(_digest(request, "id"))
        return web.Response(status=204)

    async def batch(request: web.Request) -> web.Response:
        return _json(tasks.batch(await _read(request, BatchBody)))

    async def file(request: web.Request) -> web.StreamResponse:
        data = memoryview(tasks.file(_digest(request, "id"), _digest(request, "digest")))
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = len(data)
        await response.prepare(request)
        for at in range(0, len(data), _CHUNK):
            await response.write(data[at : at + _CHUNK])
        await response.write_eof()
        return response

    return (
        web.post("/v1/tasks", start),
        web.post("/v1/tasks/{id}/run", run),
        web.get("/v1/tasks/{id}/files/{digest}", file),
        web.delete("/v1/tasks/{id}", forget),
        web.post("/v1/batches", batch),
    )


def verifier_routes(verifier: Verifier) -> tuple[web.RouteDef, ...]:
    async def appraise(request: web.Request) -> web.Response:
        return _json(verifier.appraise(await _read(request, AppraisalBody)))

    return (web.post("/v1/appraise", appraise),)


class _Api:
    def __init__(self, identity: EnclaveIdentity, log: Log) -> None:
        self._identity, self._log = identity, log

    async def identity(self, _: web.Request) -> web.Response:
        return _json(self._identity.describe())

    async def evidence(self, request: web.Request) -> web.Response:
        return _json(await self._identity.evidence(await _read(request, EvidenceBody)))

    async def retire(self, request: web.Request) -> web.Response:
        return _json(self._identity.retire(await _read(request, RetireBody)))

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or an ErrorBody: never a traceback, never a value."""
        try:
            return await handler(request)
        except Retryable as error:
            return self._refuse(503, error.code, error.message, retry=True)
        except Refused as error:
            return self._refuse(404 if error.code in _NOT_FOUND else 400, error.code, error.message)
        except OracleError as error:
            return self._refuse(500, error.code, error.message)
        except AttesterError as error:
            return self._refuse(503, error.code, str(error), retry=True)
        except web.HTTPException as error:
            return self._refuse(error.status, f"http.{error.status}", error.reason)
        except Exception as error:
            # Its text may quote a value, so neither the host nor the log gets to read it.
            self._log.unexpected("enclave.bug", error, path=request.path)
            return self._refuse(500, "enclave.bug", "the enclave has a defect; its log says where")

    def _refuse(self, status: int, code: str, message: str, retry: bool = False) -> web.Response:
        self._log("error", status=status, code=code, message=message)
        return _json(ErrorBody(code=code[:100], message=message[:2000], retry=retry), status)


def _json(document: Document, status: int = 200) -> web.Response:
    return web.Response(body=document.canonical(), status=status, content_type="application/json")


async def _read(request: web.Request, model: type[M]) -> M:
    return parse(model, await request.read(), limit=MAX_BODY, canonical=False)


def _digest(request: web.Request, name: str) -> bytes:
    return parse_digest(request.match_info[name])
