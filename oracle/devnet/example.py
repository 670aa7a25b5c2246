"""Files to try the commands with, written beside a new devnet: two hospitals' tables, a function, a draft that fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CLINIC = """\
patient,malignant,age
1,true,61
2,false,48
3,true,57
4,false,39
5,false,66
"""
IMAGING = """\
patient,radius
1,17.5
2,11.5
3,18.5
4,12.5
5,13.5
"""
FUNCTION = """\
name: radius-by-diagnosis
description: Mean tumour radius by diagnosis, over both hospitals' cases
kind: sql
entry: query.sql
tables:
  clinic: {patient: int64, malignant: bool, age: int64}
  imaging: {patient: int64, radius: double}
params:
  - {name: youngest, type: integer, min: 0, max: 120}
outputs: [result]
"""
QUERY = """\
SELECT c.malignant, count(*) AS cases, avg(i.radius) AS radius
FROM clinic c JOIN imaging i ON c.patient = i.patient
WHERE c.age >= $youngest
GROUP BY c.malignant
ORDER BY c.malignant
"""
STATISTIC_FUNCTION = """\
name: large-tumours
description: Number of malignant cases with a tumour of more than 15 mm, over both hospitals' cases
kind: sql
entry: query.sql
tables:
  clinic: {patient: int64, malignant: bool, age: int64}
  imaging: {patient: int64, radius: double}
params:
  - {name: youngest, type: integer, min: 0, max: 120}
outputs: [statistic]
"""
STATISTIC_QUERY = """\
SELECT count(*) AS cases
FROM clinic c JOIN imaging i ON c.patient = i.patient
WHERE c.malignant AND c.age >= $youngest AND i.radius > 15
"""
"""One row of one integer: what a public output can hold, and a contract can read."""


def write_example(
    directory: Path,
    parties: Mapping[str, str],
    measurement: bytes,
    anchor: bytes,
    brokers: Sequence[Mapping[str, str]],
) -> None:
    """`parties` are addresses by name; `brokers` have `key` (a card's path), `signer` and `url`."""
    directory.mkdir()
    (directory / "statistic").mkdir()
    texts = {
        "clinic.csv": CLINIC,
        "imaging.csv": IMAGING,
        "function.yaml": FUNCTION,
        "query.sql": QUERY,
        "statistic/function.yaml": STATISTIC_FUNCTION,
        "statistic/query.sql": STATISTIC_QUERY,
    }
    for name, text in texts.items():
        (directory / name).write_text(text)
    draft: dict[str, Any] = {
        "parties": dict(parties),
        "function": {
            "bundle": "function.bundle",
            "owner": "institute",
            "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 1000},
        },
        "data": [
            {"name": name, "owner": owner, "manifest": name, "shares": f"{name}/shares.json", "columns": "all"}
            for name, owner in (("clinic", "hospital-a"), ("imaging", "hospital-b"))
        ],
        "enclaves": {
            "measurements": ["0x" + measurement.hex()],
            "anchors": ["0x" + anchor.hex()],
            "statuses": ["UP_TO_DATE"],
            "evaluationFloor": 1,
            "maxEvidenceAge": "24 h",
            "hosts": ["operator"],
        },
        "brokers": {
            "threshold": min(2, len(brokers)),
            "confirmation": {"latest": 0},
            "list": [dict(broker) for broker in brokers],
        },
        "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["institute"]}],
        "access": {"requesters": ["requester"], "quota": 10},
        "price": {"fee": "0.01 ether", "shares": {"hospital-a": "30 %", "hospital-b": "30 %"}},
        "validity": {"until": "30 days"},
    }
    (directory / "draft.yaml").write_text(yaml.safe_dump(draft, sort_keys=False, width=100))
