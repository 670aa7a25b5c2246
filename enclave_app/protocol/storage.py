"""Names in untrusted, content-addressed storage: a blob's name is the hex of its SHA-256, a task's record `task-<id>`,
its receipt `receipt-<id>`."""

from __future__ import annotations


def blob_name(digest: bytes) -> str:
    return digest.hex()


def record_name(task_id: bytes) -> str:
    return f"task-{task_id.hex()}"


def receipt_name(task_id: bytes) -> str:
    return f"receipt-{task_id.hex()}"
