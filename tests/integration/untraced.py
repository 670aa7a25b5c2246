"""A worker's traces where nobody takes them: ends with status 0 once they are given up, and within seconds."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from oracle.logs import configure
from oracle.worker import tracing
from oracle.worker.config import TracingConfig

TASK = bytes(32)


async def main() -> None:
    tracer = tracing.open_tracer(TracingConfig(endpoint="http://127.0.0.1:9/v1/traces"))
    for _ in range(2 * tracing.QUEUE):
        with tracer.task(TASK), tracer.step("plan"):
            pass
    async with asyncio.timeout(10):
        await tracer.close()


if __name__ == "__main__":
    configure("worker")
    with patch.object(tracing, "CLOSE_SECONDS", 0.3):
        asyncio.run(main())
