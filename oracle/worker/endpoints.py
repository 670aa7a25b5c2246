"""The worker's endpoints, from its configuration."""

from __future__ import annotations

from collections.abc import Callable

from oracle.chain.deploy import Deployment
from oracle.chain.endpoints import Endpoints
from oracle.worker.config import HostConfig


def open_endpoints(
    config: HostConfig, deployment: Deployment, on_error: Callable[[str, str], None] | None = None
) -> Endpoints:
    """Of the deployment's chain only. Close it."""
    policy = config.rpc_policy
    return Endpoints(
        config.endpoints(),
        chain_id=deployment.chain_id,
        genesis=deployment.genesis,
        quorum=policy.quorum,
        max_lag=policy.max_lag,
        on_error=on_error,
    )
