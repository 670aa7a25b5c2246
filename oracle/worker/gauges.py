"""What an operator watches, as numbers: one flat set of gauges, in the text form that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from oracle.attestation import TcbStatus
from oracle.errors import Bug

PREFIX: Final = "oracle_worker_"
HELP: Final = {
    "registered": "1 while the enclave is registered, and not retired or revoked",
    "registration_valid_until": "unix seconds until which the registration counts",
    "registration_evidence_at": "unix seconds of the registration or its last renewal",
    "registration_evaluation": "TCB evaluation number that the platform was judged under",
    "registration_tcb_status": "1 for the TCB status that the registration has",
    "registration_grace_from": "unix seconds from which agreements count their grace; absent without an earlier status",
    "collateral_ends": "unix seconds at which a piece of the collateral in use ends",
    "collateral_evaluation": "TCB evaluation number of the collateral in use",
    "collateral_available": "1 while there is collateral under which the enclave can be registered or renewed",
    "coming_evaluation": "TCB evaluation number that Intel has announced; absent where there is none",
    "coming_tcb_status": "1 for the TCB status that the platform will have under it",
}
"""Every gauge; times are in unix seconds."""
STATUSES: Final = {status: status.name.lower() for status in TcbStatus}
Labels = tuple[tuple[str, str], ...]


class Gauges:
    """Set by the worker's loops, read by whoever shows them."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {}

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """None takes the gauge away."""
        _check(name)
        place = tuple(sorted(labels.items()))
        if value is None:
            self._values.get(name, {}).pop(place, None)
        else:
            self._values.setdefault(name, {})[place] = value

    def set_only(self, name: str, values: Mapping[str, float], label: str) -> None:
        """One value for each label value, and none for others that were there."""
        _check(name)
        self._values[name] = {((label, each),): value for each, value in values.items()}

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get(name, {}).get(tuple(sorted(labels.items())))

    def text(self) -> str:
        """Prometheus' text form, version 0.0.4."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for name, about in HELP.items():
            values = self._values.get(name)
            if not values:
                continue
            yield f"# HELP {PREFIX}{name} {about}"
            yield f"# TYPE {PREFIX}{name} gauge"
            for labels, value in sorted(values.items()):
                shown = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
                yield f"{PREFIX}{name}{{{shown}}} {_number(value)}" if shown else f"{PREFIX}{name} {_number(value)}"


def _check(name: str) -> None:
    if name not in HELP:
        raise Bug("gauges.name", "a gauge that is not in the list", found=name)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
