"""One place that every step of a task passes: its time is measured, its lines in the log carry it, its trace has it as a span."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oracle.logs import fields
from oracle.worker.metrics import Metrics
from oracle.worker.tracing import Tracer


class Steps:
    """Without metrics and tracer it only marks the log's lines. Only a step that succeeds is measured: how long an error or a
    wait took says nothing about the work."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._tracer, self._monotonic = metrics, tracer or Tracer(), monotonic

    @contextmanager
    def task(self, task_id: bytes) -> Iterator[None]:
        """Around one attempt at a task."""
        with self._tracer.task(task_id) as trace, fields(**({} if trace is None else {"trace": trace})):
            yield

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Around one of metrics.STEPS."""
        began = self._monotonic()
        with self._tracer.step(name), fields(step=name):
            yield
        if self._metrics is not None:
            self._metrics.observe("step_seconds", max(0.0, self._monotonic() - began), step=name)
