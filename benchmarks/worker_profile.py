"""The worker, with a thread that looks a hundred times a second at what the others do: by part, how often each was at work.

python benchmarks/worker_profile.py COUNTS worker run --config …  writes the counts to a file as JSON when the worker ends.
A sampled stack belongs to the part that its innermost module of ours, or of a library that says it all, belongs to.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

PAUSE = 0.01
PARTS = (
    ("journal", ("oracle/worker/journal", "oracle/worker/database", "oracle/worker/rows", "oracle/worker/schema")),
    (
        "crypto",
        (
            "coincurve",
            "eth_account",
            "eth_keys",
            "/cryptography/",
            "protocol/hpke",
            "protocol/signing",
            "protocol/eip712",
        ),
    ),
    ("brokers", ("oracle/worker/brokers",)),
    ("enclave", ("oracle/worker/enclave",)),
    (
        "chain",
        (
            "oracle/chain/",
            "oracle/worker/follower",
            "oracle/worker/settle",
            "oracle/worker/outbox",
            "oracle/worker/fees",
        ),
    ),
    ("storage", ("oracle/storage", "oracle/worker/store", "oracle/worker/blobs")),
    ("logs", ("oracle/logs", "/logging/")),
)
IDLE = ("selectors.py", "threading.py", "concurrent/futures/thread.py", "worker_profile.py")


def part_of(frame: FrameType | None) -> str | None:
    """None for a thread that waits."""
    if frame is None or any(frame.f_code.co_filename.endswith(name) for name in IDLE):
        return None
    while frame is not None:
        name = frame.f_code.co_filename
        for part, marks in PARTS:
            if any(mark in name for mark in marks):
                return part
        frame = frame.f_back
    return "other"


def sample(counts: Counter[str], over: threading.Event) -> None:
    own = threading.get_ident()
    while not over.wait(PAUSE):
        for thread, frame in sys._current_frames().items():
            if thread != own and (part := part_of(frame)) is not None:
                counts[part] += 1


def main() -> None:
    target = Path(sys.argv[1])
    sys.argv[1:] = sys.argv[2:]
    counts: Counter[str] = Counter()
    over = threading.Event()
    sampler = threading.Thread(target=sample, args=(counts, over), daemon=True)
    started = time.monotonic()
    sampler.start()
    from oracle.cli import main as run

    try:
        run()
    finally:
        over.set()
        sampler.join(1)
        target.write_text(json.dumps({"seconds": time.monotonic() - started, **counts}))


if __name__ == "__main__":
    main()
