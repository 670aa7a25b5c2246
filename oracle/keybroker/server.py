"""The broker's HTTP face: parse, limit, answer, and say what happened in one JSON line. No rule lives here.

POST /v1/release  ReleaseBody → ReleaseAnswer      GET /v1/info  Info
POST /v1/output   OutputBody → OutputAnswer        GET /healthz
Errors are an ErrorBody: 403 refused, 503 the same call may succeed later, 429 with `Retry-After` the same in so many seconds,
500 a bug of ours, whose details stay here. SIGTERM lets running calls finish; SIGHUP reads the configuration again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TypeVar

from aiohttp import web

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.release import ErrorBody, OutputBody, ReleaseBody
from oracle.errors import Bug, OracleError, Retryable
from oracle.keybroker.admin import Admin
from oracle.keybroker.broker import KeyBroker, open_broker
from oracle.keybroker.config import KeyBrokerConfig, Listen, check_reload
from oracle.keybroker.intake import Intake, Slots
from oracle.keybroker.limits import TooMany
from oracle.logs import describe

LOGGER = logging.getLogger("oracle.keybroker")
SHUTDOWN_SECONDS = 10.0
SMALL = 1 << 16
"""Bytes of a body that is parsed and checked at once, in at most some milliseconds whatever it holds."""

B = TypeVar("B", ReleaseBody, OutputBody)


class Service:
    def __init__(self, broker: KeyBroker, config: KeyBrokerConfig) -> None:
        self._broker, self._config = broker, config
        self._intake = Intake(max(config.limits.body_bytes, config.max_body), config.max_body)
        self._slots = Slots(config.limits.concurrent)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/release", self._release)
        app.router.add_post("/v1/output", self._output)
        app.router.add_get("/v1/info", self._info)
        app.router.add_get("/healthz", self._health)
        return app

    async def _release(self, request: web.Request) -> web.Response:
        async def act(body: ReleaseBody, note: dict[str, object], small: bool) -> Document:
            note["task"] = body.release.request.task_id.hex()
            note["signer"] = body.evidence.signer
            answer, timing = await self._broker.releases.release(body, aside=not small)
            for step, milliseconds in asdict(timing).items():
                self._broker.metrics.step_seconds.labels(step.removesuffix("_ms")).observe(milliseconds / 1000)
            note.update(asdict(timing))
            return answer

        return await self._answer(request, "release", ReleaseBody, act)

    async def _output(self, request: web.Request) -> web.Response:
        async def act(body: OutputBody, note: dict[str, object], _small: bool) -> Document:
            note["task"], note["output"] = body.shares.task_id.hex(), body.output
            answer = await self._broker.outputs.output(body)
            self._broker.metrics.outputs.inc()
            return answer

        return await self._answer(request, "output", OutputBody, act)

    async def _info(self, _request: web.Request) -> web.Response:
        return _json(self._broker.info)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _answer(
        self,
        request: web.Request,
        what: str,
        model: type[B],
        act: Callable[[B, dict[str, object], bool], Awaitable[Document]],
    ) -> web.Response:
        started = time.perf_counter()
        note: dict[str, object] = {"event": what}
        try:
            self._broker.limiter.check(request.remote)
            async with self._intake.body(request) as data, self._slots.one(request.remote):
                small = len(data) <= SMALL
                body = await self._parsed(model, data, small)
                response = _json(await act(body, note, small))
        except Exception as error:
            response = _error(error)
            note["code"] = error.code if isinstance(error, OracleError) else "bug"
            self._broker.metrics.refused(what, str(note["code"]))
            if isinstance(error, TooMany):
                self._broker.metrics.limited.labels(error.by).inc()
            if isinstance(error, OracleError):
                note["message"] = error.message
            else:
                note["error"] = describe(error)
        seconds = time.perf_counter() - started
        self._broker.metrics.seconds.labels(what).observe(seconds)
        note["status"], note["ms"] = response.status, round(1000 * seconds, 2)
        _say(note, logging.INFO if response.status < 500 else logging.WARNING)
        return response

    async def _parsed(self, model: type[B], data: bytes, small: bool) -> B:
        """A small body is parsed in less time than a thread takes to be told."""
        if small:
            return parse(model, data, limit=self._config.max_body, canonical=False)
        return await asyncio.to_thread(parse, model, data, limit=self._config.max_body, canonical=False)


async def serve(
    config: KeyBrokerConfig,
    *,
    ready: Callable[[str], None] | None = None,
    reload: Callable[[], KeyBrokerConfig] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running calls finish. `ready` is told the address once it is served; `reload`
    gives the configuration anew on SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    LOGGER.setLevel(config.log_level)
    broker = await open_broker(config)
    try:
        async with AsyncExitStack() as stack:
            admin = Admin(broker, config)
            if config.admin is not None:
                runner, place = await listen(admin.application(), config.admin)
                stack.push_async_callback(runner.cleanup)
                _say({"event": "admin", "address": place}, logging.INFO)
            runner, address = await start(broker, config)
            stack.push_async_callback(runner.cleanup)
            running = [
                asyncio.create_task(broker.collateral.run(), name="collateral"),
                asyncio.create_task(broker.watch.run(), name="watch"),
                asyncio.create_task(stop.wait(), name="stop"),
            ]
            stack.push_async_callback(_ended, running)
            if reload is not None:
                loop.add_signal_handler(signal.SIGHUP, _reload, broker, admin, reload)
            _say({"event": "serving", "address": address, "broker": broker.info.card.digest.hex()}, logging.INFO)
            if ready is not None:
                ready(address)
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            admin.draining = True
            for task in running:
                if task.done():
                    task.result()  # all but `stop` end by a bug only, and then the broker must not idle on
            await runner.cleanup()
    finally:
        await broker.close()
        _say({"event": "stopped"}, logging.INFO)


async def _ended(running: Sequence[asyncio.Task[object]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _reload(broker: KeyBroker, admin: Admin, read: Callable[[], KeyBrokerConfig]) -> None:
    """Limits, log level, providers and what /readyz goes by. A file that is wrong, or changes more, changes nothing."""
    try:
        config = read()
        check_reload(admin.config, config)
    except OracleError as error:
        _say({"event": "reload", "code": error.code, "message": error.message}, logging.ERROR)
        return
    if config.limits != admin.config.limits:
        broker.limiter.set(config.limits)
    broker.chains.set(config.chains)
    LOGGER.setLevel(config.log_level)
    admin.config = config
    _say({"event": "reloaded"}, logging.WARNING)


async def start(broker: KeyBroker, config: KeyBrokerConfig) -> tuple[web.AppRunner, str]:
    """Listen as configured; the runner's `cleanup` stops it. The address is a URL, or `unix:` and a path."""
    return await listen(Service(broker, config).application(), config.listen)


async def listen(app: web.Application, where: Listen) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        return runner, await _listen(runner, where)
    except OSError as error:
        await runner.cleanup()
        raise Retryable("broker.listen", f"the broker cannot listen there ({error.strerror})") from None


async def _listen(runner: web.AppRunner, listen: Listen) -> str:
    if listen.unix is not None:
        listen.unix.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(listen.unix)).start()
        finally:
            os.umask(mask)
        return f"unix:{listen.unix}"
    await web.TCPSite(runner, listen.host, listen.port).start()
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _json(document: Document, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        text=document.model_dump_json(by_alias=True),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _error(error: Exception) -> web.Response:
    if isinstance(error, OracleError) and not isinstance(error, Bug):
        retry = isinstance(error, Retryable)
        body = ErrorBody(code=error.code, message=error.message[:2000], retry=retry)
        if isinstance(error, TooMany):
            return _json(body, 429, {"Retry-After": str(error.seconds)})
        return _json(body, 503 if retry else 403)
    return _json(ErrorBody(code="bug", message="the broker failed; its operator's log says how", retry=False), 500)


def _say(note: dict[str, object], level: int) -> None:
    LOGGER.log(level, json.dumps(note, separators=(",", ":"), default=str))
