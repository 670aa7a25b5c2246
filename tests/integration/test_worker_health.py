"""The health pages on a TCP port."""

from __future__ import annotations

import pytest

from oracle.errors import Permanent
from oracle.worker.health import HealthServer, Pulse
from oracle.worker.metrics import Metrics


async def test_it_listens_on_a_port_and_says_which() -> None:
    server = HealthServer("127.0.0.1:0", Metrics(), Pulse(), dict)
    await server.start()
    try:
        port = int(server.address.rpartition(":")[2])
        other = HealthServer(f"127.0.0.1:{port}", Metrics(), Pulse(), dict)
        with pytest.raises(Permanent, match="cannot listen"):
            await other.start()
    finally:
        await server.close()
