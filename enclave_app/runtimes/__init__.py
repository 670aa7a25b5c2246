"""Runtimes: one per function kind, one interface (`base.py`). They run inside the sandbox, never beside the keys (R6)."""
