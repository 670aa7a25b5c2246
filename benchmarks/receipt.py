"""`scripts/bench receipt`: how fast receipts are verified offline, how large they are, and how fast they are made.

Two receipts: `small` is one of a task over two tables of a few columns, `wide` one over two tables of 500 columns each, both with
three parties, two of three brokers, and one output. Everything is signed for real; nothing is read from a network. One process:
`verify_ms`, `make_ms` and `verified_per_s` go by its CPU time, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oracle.receipt import Expected, Verdict, verify_receipt
from tests.receipt_kit import Story, make_story

WARM_UP = 5


def measure(story: Story, rounds: int) -> dict[str, Any]:
    data, expected = story.receipt, Expected(agreement_id=story.record.result.agreement_id)
    times = []
    for _ in range(WARM_UP + rounds):
        start = time.process_time()
        found = verify_receipt(data, expected, story.time + 60, allow_simulated=True)
        times.append(time.process_time() - start)
        if found.verdict is not Verdict.AUTHENTIC:
            raise SystemExit(f"a receipt did not verify: {found.failed} {found.reason}")
    start = time.process_time()
    for _ in range(rounds):
        _ = story.receipt
    making = (time.process_time() - start) / rounds
    milliseconds = sorted(1000 * each for each in times[WARM_UP:])
    return {
        "bytes": len(data),
        "verified_per_s": round(1000 * rounds / sum(milliseconds), 1),
        "verify_ms": {
            "p50": round(statistics.median(milliseconds), 2),
            "p95": round(milliseconds[int(rounds * 0.95) - 1], 2),
        },
        "make_ms": round(1000 * making, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench receipt", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    wide = tuple(f"column_{number:03d}" for number in range(500))
    stories = {"small": make_story(), "wide": make_story(columns={"clinic": wide, "pathology": wide})}
    results = {name: measure(story, arguments.rounds) for name, story in stories.items()}
    if not arguments.json:
        for name, result in results.items():
            print(f"{name}: {json.dumps(result)}")
    print(json.dumps({"rounds": arguments.rounds, **results["small"], "wide": results["wide"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
