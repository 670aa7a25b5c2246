"""python -m tests.chaos.worker_main CONTROL ROLE worker run … : the worker, its boundaries wrapped, its clock movable."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.points import Points

JOURNAL = ("take_in", "rewind", "ran", "stored", "settling_together", "ended", "start_over", "receipt_done")
BOOK = ("add", "mined", "unmined")
ENCLAVE = {"/v1/evidence": "evidence", "/v1/tasks": "start", "run": "run", "files": "file"}
SENT = {
    "eth_sendRawTransaction": "send",
    "eth_estimateGas": "estimate",
    "eth_getTransactionReceipt": "receipt",
    "eth_getLogs": "logs",
}


def main() -> None:
    points = Points(Path(sys.argv[1]), sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    real = time.time
    time.time = lambda: real() + points.offset
    # The kernel's word for a write beyond RLIMIT_FSIZE, which stands for a full disk here.
    signal.signal(signal.SIGXFSZ, lambda *_: points.fire())

    import oracle.worker.enclave as enclave
    import oracle.worker.journal as journal
    import oracle.worker.pipeline as pipeline
    from oracle.chain.endpoints import Endpoints
    from oracle.storage import FileStorage
    from oracle.worker import ending
    from oracle.worker.transactions import TransactionBook

    for method in JOURNAL:
        points.wrap(journal.Journal, method, f"journal.{method}")
    for method in BOOK:
        points.wrap(TransactionBook, method, f"book.{method}")
    points.wrap_by(
        enclave.Enclave, "_send", _enclave_call, [f"enclave.{each}" for each in (*ENCLAVE.values(), "forget")]
    )
    rpc = [f"rpc.{each}" for each in SENT.values()]
    points.wrap_by(Endpoints, "call", _rpc_call, rpc)
    points.wrap_by(Endpoints, "batch", _rpc_batch, [])
    points.wrap(FileStorage, "_write", "storage.write")
    points.wrap(FileStorage, "_write_before", "storage.write_before")
    points.wrap(pipeline.Pipeline, "plan")
    points.wrap(pipeline.Pipeline, "release")
    points.wrap(ending.Ending, "write_receipt", "receipt.write")
    points.tell()
    from oracle.cli import main as run

    run()


def _enclave_call(_: Any, method: str, path: str, *args: Any, **kwargs: Any) -> str | None:
    if method == "DELETE":
        return "enclave.forget"
    if path == "/v1/identity":
        return None  # asked all the time
    name = ENCLAVE.get(path) or next((ENCLAVE[each] for each in ("run", "files") if f"/{each}" in path), None)
    return None if name is None else f"enclave.{name}"


def _rpc_call(_: Any, method: str, *args: Any, **kwargs: Any) -> str | None:
    return f"rpc.{SENT[method]}" if method in SENT else None


def _rpc_batch(_: Any, calls: Sequence[tuple[str, Sequence[Any]]]) -> str | None:
    """By the first of them: what is asked together is of one kind."""
    return _rpc_call(None, calls[0][0]) if calls else None


if __name__ == "__main__":
    main()
