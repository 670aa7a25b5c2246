"""What a mutant is: one check of the program, dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

RULES = tuple(f"R{number}" for number in range(1, 22))
_RULE = re.compile(r"\bR([0-9]{1,2})(b?)\b")
_RANGE = re.compile(r"\bR([0-9]{1,2}) to R([0-9]{1,2})\b")


@dataclass(frozen=True)
class Mutant:
    """`number` is the switch that drops the check in the scratch tree; `name` stays the same while the check does.

    `code` is what the check refuses with, `text` its condition as the source has it, `line` where it stands.
    """

    number: int
    name: str
    language: str
    file: str
    function: str
    line: int
    code: str
    text: str
    rules: tuple[str, ...]


def rules_in(text: str) -> tuple[str, ...]:
    """The rules that `text` names, in order: "R2 to R4" names three."""
    found = {f"R{number}{letter}" for number, letter in _RULE.findall(text)}
    for first, last in _RANGE.findall(text):
        found.update(f"R{number}" for number in range(int(first), int(last) + 1))
    return in_order(rule for rule in found if rule.rstrip("b") in RULES)


def in_order(rules: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(rules), key=lambda rule: (int(rule[1:].rstrip("b")), rule)))


def unique(names: Iterable[str]) -> list[str]:
    """The same names with a number behind those that occur before: names of mutants excuse, so they are unique."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
