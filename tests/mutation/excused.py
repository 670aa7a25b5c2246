"""Mutants that no test can catch, each with the reason. A name that is no mutant's, or that a test catches, is an error."""

from __future__ import annotations

EXCUSED: dict[str, str] = {}
