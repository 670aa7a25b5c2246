"""Rules that hold by what is not there, or by how things are built: each with the tests that show it."""

from __future__ import annotations

STRUCTURE: dict[str, tuple[str, ...]] = {}
"""Rule → test ids."""

NOT_BUILT: dict[str, str] = {}
"""Rule → why this version does not have it, for a rule without a check of its own."""
