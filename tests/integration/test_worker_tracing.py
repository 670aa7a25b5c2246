"""Traces against a real OTLP collector's HTTP side, and against one that is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from oracle.errors import Retryable
from oracle.worker.config import TracingConfig
from oracle.worker.metrics import Metrics
from oracle.worker.steps import Steps
from oracle.worker.tracing import Tracer, open_tracer

TASK = bytes(range(32))


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Span]]]:
    spans: list[Span] = []

    async def take(request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.read())
        spans.extend(span for r in message.resource_spans for s in r.scope_spans for span in s.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", spans
    finally:
        await runner.cleanup()


def attempt(steps: Steps) -> None:
    with steps.task(TASK):
        with steps.step("plan"):
            pass
        with steps.step("release"):
            raise Retryable("release.too_few", "a secret that a stranger sent")


async def test_a_task_is_one_span_with_its_steps_as_children_and_the_code_of_what_stopped_it() -> None:
    async with collector() as (endpoint, spans):
        tracer = open_tracer(TracingConfig(endpoint=endpoint))
        steps = Steps(Metrics(), tracer)
        with pytest.raises(Retryable):
            attempt(steps)
        await tracer.close()
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"task", "plan", "release"}
    assert by_name["plan"].parent_span_id == by_name["release"].parent_span_id == by_name["task"].span_id
    assert {a.key: a.value.string_value for a in by_name["task"].attributes} == {
        "oracle.task": TASK.hex(),
        "oracle.code": "release.too_few",
    }
    assert by_name["release"].status.code == by_name["task"].status.code == 2
    assert by_name["plan"].status.code == 0
    assert not any(b"secret" in span.SerializeToString() for span in spans)


async def test_the_trace_that_a_task_is_told_is_the_one_that_is_sent() -> None:
    async with collector() as (endpoint, spans):
        tracer = open_tracer(TracingConfig(endpoint=endpoint))
        with tracer.task(TASK) as trace:
            pass
        await tracer.close()
    assert [span.trace_id.hex() for span in spans] == [trace]


async def test_a_task_outside_the_share_has_no_span_nor_have_its_steps() -> None:
    async with collector() as (endpoint, spans):
        tracer = open_tracer(TracingConfig(endpoint=endpoint, share=0))
        steps = Steps(Metrics(), tracer)
        with steps.task(TASK), steps.step("plan"):
            pass
        await tracer.close()
    assert spans == []


def test_a_collector_that_is_down_breaks_nothing_and_holds_a_stop_up_only_so_long() -> None:
    # In a process of its own: the library's threads go on trying for as long as there is one.
    told = subprocess.run(
        [sys.executable, "-m", "tests.integration.untraced"], capture_output=True, text=True, timeout=60, check=False
    )
    events = [json.loads(line)["event"] for line in told.stderr.splitlines()]
    assert (told.returncode, events[-1:]) == (0, ["the last traces were not sent in time"])
    assert "traces do not reach their collector" in events


def test_without_configuration_nothing_of_the_library_is_imported() -> None:
    program = (
        "import sys; from oracle.worker.tracing import open_tracer; open_tracer(None);"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_only_a_step_that_succeeds_is_measured() -> None:
    metrics, clock = Metrics(), iter([0.0, 2.0, 5.0])
    steps = Steps(metrics, Tracer(), lambda: next(clock))
    with steps.step("plan"):
        pass
    with pytest.raises(Retryable), steps.step("plan"):
        raise Retryable("task.delay", "not yet")
    assert metrics.get("step_seconds", step="plan") == 1
    assert 'oracle_worker_step_seconds_bucket{le="2.5",step="plan"} 1.0' in metrics.text()
