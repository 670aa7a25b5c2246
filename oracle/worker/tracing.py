"""OpenTelemetry traces, where they are configured: one span for an attempt at a task, with a child for each step.

Without configuration this imports nothing and does nothing. With it, spans leave from a thread of the library's own through
a bounded queue: a collector that is slow or down costs spans, never time. Attributes are the task's id and codes of errors;
no message, which may quote what a stranger sent.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from oracle.errors import OracleError, Refused
from oracle.logs import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from opentelemetry.trace import Tracer as OtelTracer

    from oracle.worker.config import TracingConfig

QUEUE: Final = 2048
"""Spans that wait for the collector; more are dropped."""
EXPORT_SECONDS: Final = 5
CLOSE_SECONDS: Final = 3.0
"""How long a stop waits for the last spans to leave."""


class Tracer:
    """The tracer of a worker without `tracing`: does nothing."""

    @contextmanager
    def task(self, task_id: bytes) -> Iterator[str | None]:
        """Gives the trace's id in hex, or None where this attempt is not traced."""
        yield None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        yield

    async def close(self) -> None:
        """Send what waits, for a short while."""


def open_tracer(config: TracingConfig | None, service: str = "oracle-worker") -> Tracer:
    """Raises Refused `tracing.missing` where the extra is not installed."""
    if config is None:
        return Tracer()
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise Refused(
            "tracing.missing",
            "traces are configured, and OpenTelemetry is not installed",
            hint="pip install 'enclave-oracle[otel]'",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OpenTelemetry(OTLPSpanExporter(endpoint=config.endpoint, timeout=EXPORT_SECONDS), config.share, service)


class OpenTelemetry(Tracer):
    """`share` of the attempts is traced, by chance."""

    def __init__(self, exporter: SpanExporter, share: float, service: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        _quiet_library()
        # `Resource` itself, not `create`, which looks at the environment and the host.
        self._provider: TracerProvider = TracerProvider(
            resource=Resource({"service.name": service}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=QUEUE, export_timeout_millis=1000 * EXPORT_SECONDS)
        )
        self._tracer: OtelTracer = self._provider.get_tracer("oracle.worker")
        self._share = share

    @contextmanager
    def task(self, task_id: bytes) -> Iterator[str | None]:
        if secrets.randbelow(1_000_000) >= self._share * 1_000_000:
            yield None
            return
        with self._span("task", **{"oracle.task": task_id.hex()}) as span:
            yield f"{span.get_span_context().trace_id:032x}"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        from opentelemetry.trace import get_current_span

        if not get_current_span().get_span_context().is_valid:
            yield  # an attempt that is not traced
            return
        with self._span(name):
            yield

    async def close(self) -> None:
        # On a thread that nobody waits for at the process's end: the library may try again for longer than we would wait.
        await _bounded(self._provider.shutdown, CLOSE_SECONDS)

    @contextmanager
    def _span(self, name: str, **attributes: str) -> Iterator[Span]:
        from opentelemetry.trace import Status, StatusCode

        started: AbstractContextManager[Span] = self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        )
        with started as span:
            try:
                yield span
            except BaseException as error:
                code = error.code if isinstance(error, OracleError) else type(error).__name__
                span.set_attribute("oracle.code", code)
                span.set_status(Status(StatusCode.ERROR))
                raise


class _ToOurLog(logging.Handler):
    """What the library complains about, as lines of ours: by its logger's name only, for its messages quote addresses."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log = Log("worker.tracing")

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning("traces do not reach their collector", part=record.name)


def _quiet_library() -> None:
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not any(isinstance(each, _ToOurLog) for each in logger.handlers):
        logger.addHandler(_ToOurLog())


async def _bounded(work: Callable[[], object], seconds: float) -> None:
    import threading

    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def run() -> None:
        try:
            work()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="tracing-close", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        Log("worker.tracing").warning("the last traces were not sent in time", seconds=seconds)
