"""Runtimes: one per function kind, one interface (`base.py`). They run in the sandbox, never beside keys (R6)."""
