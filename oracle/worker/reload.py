"""A new configuration for a worker that runs (SIGHUP): taken as a whole, or not at all.

What may change is what nothing that is already open rests on. Where another field differs, or the file is broken, the old
configuration stays in force, and log and metrics say so: half of a change is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from oracle.errors import OracleError, Refused
from oracle.logs import Log, set_level
from oracle.worker.config import WorkerConfig
from oracle.worker.metrics import Metrics

RELOADABLE: Final = (
    "rpc",
    "brokers",
    "log_level",
    "poll",
    "concurrency",
    "in_flight",
    "max_runs",
    "max_crashes",
    "release_timeout",
    "release_hedge",
    "release_grace",
    "retry_first",
    "retry_most",
    "receipt_patience",
    "drain",
    "min_fee",
    "min_token_fees",
    "max_callback_gas",
)


def check_change(running: WorkerConfig, new: WorkerConfig) -> tuple[str, ...]:
    """The fields that differ, as the file names them. Raises Refused `config.restart` naming those that only a restart takes."""
    differing = [name for name in WorkerConfig.model_fields if getattr(running, name) != getattr(new, name)]
    fixed = [yaml_name(name) for name in differing if name not in RELOADABLE]
    if fixed:
        raise Refused(
            "config.restart",
            "the file changes what a running worker cannot change; nothing of it was taken",
            found=", ".join(fixed),
            hint="Restart the worker for these, or take them back and reload",
        )
    return tuple(yaml_name(name) for name in differing)


def yaml_name(name: str) -> str:
    alias = WorkerConfig.model_fields[name].alias
    return name if alias is None else alias


class Reloader:
    """`reload()` reads the file again and hands it to `apply`, which must not wait and must not fail."""

    def __init__(
        self, path: Path, running: WorkerConfig, apply: Callable[[WorkerConfig], None], metrics: Metrics
    ) -> None:
        self._path, self.running, self._apply, self._metrics = path, running, apply, metrics
        self._log = Log("worker.reload")
        metrics.set("config_reload_failed", 0)

    def reload(self) -> bool:
        """Whether it was taken. Never raises for what is wrong with the file."""
        try:
            new = WorkerConfig.read(self._path)
            changed = check_change(self.running, new)
        except OracleError as error:
            self._failed()
            self._log.error(
                "the configuration was not reloaded; the old one is in force", code=error.code, message=str(error)
            )
            return False
        except Exception as error:
            self._failed()
            self._metrics.count("bugs_total", where="reload")
            self._log.error("a bug: please report it; the old configuration is in force", error)
            return False
        self._apply(new)
        set_level(new.log_level)
        self.running = new
        self._metrics.count("config_reloads_total", outcome="applied")
        self._metrics.set("config_reload_failed", 0)
        self._log.info("the configuration was reloaded", changed=list(changed))
        return True

    def _failed(self) -> None:
        self._metrics.count("config_reloads_total", outcome="refused")
        self._metrics.set("config_reload_failed", 1)
