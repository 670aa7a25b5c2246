"""Small changes of the contracts that hold money and consent, beside the checks that are dropped (solidity_checks).

| operator | change |
|---|---|
| comparison | `<` and `<=`, `>` and `>=`, `==` and `!=` for each other; not in the head of a `for` |
| constant | a number, or a constant by its name, is one more; not beside `==` and `!=` |
| credit | what an account is credited goes to whoever sends the transaction |
| write | a write to storage does not happen |
| event | an event is not emitted |

Each is made of insertions, so that one build holds them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Edit = tuple[int, int, Callable[[int], str]]
Change = tuple[int, str, int, int, tuple[Edit, ...]]
"""Where it is, its operator, what it changes (from, to) and how."""

CORE = (
    "AgreementRegistry",
    "AgreementTerms",
    "ComputeOracle",
    "DatasetStreams",
    "FunctionAudits",
    "EnclavePolicy",
    "Payments",
    "TaskSlot",
)
_COMPARISON = re.compile(r"(?<![<>=!])(<=|>=|==|!=|<|>)(?![<>=])")
_NUMBER = re.compile(r"(?<![\w.\"])(?:[1-9][0-9_]*(?: hours| days)?|[A-Z][A-Z_]{2,})(?![\w.(])")
_STOP = re.compile(r"&&|\|\||[;,{}?]|(?<![=!<>])=(?!=)|:|\breturn\b")
_STORAGE = re.compile(r"^    (?:mapping\(.*\)|[A-Z]\w+\[\]) (?:public |private |internal )?(\w+);", re.MULTILINE)
_POINTER = re.compile(r"\b\w+(?:\([^)]*\))? storage (\w+)")
_CREDIT = re.compile(r"(?<!function )\b_credit\(")


def changes(text: str, clean: str, bodies: list[tuple[int, int]]) -> Iterator[Change]:
    """All changes of one file, whose functions' bodies are from `{` to `}`. `clean` is `text` without comments and strings."""
    stored = set(_STORAGE.findall(clean))
    for begin, end in bodies:
        assembly = [(m.end() - 1, _close(clean, m.end() - 1)) for m in _assemblies(clean, begin, end)]
        heads = [(m.end() - 1, _close(clean, m.end() - 1)) for m in re.compile(r"\bfor \(").finditer(clean, begin, end)]
        skipped = [*assembly, *heads]

        def free(at: int, skipped: list[tuple[int, int]] = skipped) -> bool:
            return not any(start <= at <= stop for start, stop in skipped)

        yield from (c for c in _comparisons(clean, begin, end) if free(c[0]))
        yield from (c for c in _constants(text, clean, begin, end) if free(c[0]))
        yield from _credits(clean, begin, end)
        yield from (c for c in _writes(clean, begin, end, stored) if free(c[0]))
        yield from _events(clean, begin, end)


def _comparisons(clean: str, begin: int, end: int) -> Iterator[Change]:
    for match in _COMPARISON.finditer(clean, begin, end):
        left, right = _operands(clean, begin, match.start(), match.end())
        operator = match[1]
        if operator in ("==", "!="):
            edits: tuple[Edit, ...] = (
                (left, left, lambda n: f"(mutantOn({n}) != ("),
                (right, right, lambda _: "))"),
            )
        else:
            # One more on the greater side of `<` lets equality in; one more on the smaller side of `<=` keeps it out.
            grows_right = operator in ("<", ">=")
            start, stop = (_skip(clean, match.end()), right) if grows_right else (left, match.start() - 1)
            edits = ((start, start, lambda _: "("), (stop, stop, lambda n: f") + mutantOne({n})"))
        yield match.start(), "comparison", left, right, edits


def _constants(text: str, clean: str, begin: int, end: int) -> Iterator[Change]:
    for match in _NUMBER.finditer(clean, begin, end):
        before, after = clean[: match.start()].rstrip(), clean[match.end() :].lstrip()
        named = not match[0][0].isdigit()
        if named and not re.search(rf"\buint256 private constant {match[0]}\b", clean) and match[0] != "BPS":
            continue
        if before.endswith(("==", "!=", "|", "[", "revert")) or after.startswith(("==", "!=", "]")):
            continue
        edits: tuple[Edit, ...] = (
            (match.start(), match.start(), lambda _: "("),
            (match.end(), match.end(), lambda n: f" + mutantOne({n}))"),
        )
        line = clean.rindex("\n", 0, match.start()) + 1, clean.index("\n", match.end())
        yield match.start(), f"constant {text[match.start() : match.end()]}", *line, edits


def _credits(clean: str, begin: int, end: int) -> Iterator[Change]:
    for match in _CREDIT.finditer(clean, begin, end):
        closing = _close(clean, match.end() - 1)
        first = clean.index(",", match.end())
        start, stop = _skip(clean, first + 1), _comma(clean, first + 1, closing)
        edits: tuple[Edit, ...] = (
            (start, start, lambda n: f"(mutantOn({n}) ? msg.sender : "),
            (stop, stop, lambda _: ")"),
        )
        yield match.start(), "credit", match.start(), closing + 1, edits


def _writes(clean: str, begin: int, end: int, stored: set[str]) -> Iterator[Change]:
    names = stored | set(_POINTER.findall(clean[begin:end]))
    if not names:
        return
    one = rf"(?:{'|'.join(sorted(names))})(?=[\[.])"
    statement = re.compile(rf"(?<=[;{{}})])\s*((?:\+\+|--)?{one}[^;]*;|\({one}[^;=]*\) = [^;]*;)", re.MULTILINE)
    for match in statement.finditer(clean, begin, end):
        start, stop = match.start(1), match.end(1)
        written = clean[start:stop]
        is_write = written.startswith(("++", "--", "(")) or re.search(r"(?<![=!<>])[+-]?=(?!=)|\.push\(", written)
        if is_write:
            yield start, "write", start, stop, _braced(start, stop)


def _events(clean: str, begin: int, end: int) -> Iterator[Change]:
    for match in re.compile(r"\bemit \w+\(").finditer(clean, begin, end):
        stop = clean.index(";", _close(clean, match.end() - 1)) + 1
        yield match.start(), "event", match.start(), stop, _braced(match.start(), stop)


def _braced(start: int, stop: int) -> tuple[Edit, ...]:
    """In braces, so that an `else` behind it stays with its `if`."""
    return (start, start, lambda n: f"{{ if (mutantOff({n})) {{ "), (stop, stop, lambda _: " } }")


def _operands(clean: str, begin: int, left_end: int, right_start: int) -> tuple[int, int]:
    """Where the expression that is compared begins, and where the one it is compared with ends."""
    depth, start = 0, left_end
    for at in range(left_end - 1, begin, -1):
        depth += (clean[at] in ")]") - (clean[at] in "([")
        if depth < 0 or (depth == 0 and _STOP.match(clean, at)):
            found = _STOP.match(clean, at)
            start = max(at + 1, found.end() if found and depth == 0 else 0)
            break
    depth, stop = 0, right_start
    for at in range(right_start, len(clean)):
        depth += (clean[at] in "([") - (clean[at] in ")]")
        if depth < 0 or (depth == 0 and _STOP.match(clean, at)):
            stop = at
            break
    stop = right_start + len(clean[right_start:stop].rstrip())
    return _skip(clean, start), stop


def _assemblies(clean: str, begin: int, end: int) -> Iterator[re.Match[str]]:
    return re.compile(r"\bassembly [^{]*\{").finditer(clean, begin, end)


def _skip(clean: str, at: int) -> int:
    while clean[at].isspace():
        at += 1
    return at


def _comma(clean: str, begin: int, end: int) -> int:
    depth = 0
    for at in range(begin, end):
        depth += (clean[at] in "([{") - (clean[at] in ")]}")
        if depth == 0 and clean[at] == ",":
            return at
    return end


def _close(clean: str, opening: int) -> int:
    pair = {"(": ")", "{": "}"}[clean[opening]]
    depth = 0
    for at in range(opening, len(clean)):
        depth += (clean[at] == clean[opening]) - (clean[at] == pair)
        if depth == 0:
            return at
    raise ValueError(f"unbalanced {clean[opening]} at {opening}")
