"""The checks of the contracts, found in their sources, and the same sources with a switch before each check.

A check is `if (…) revert …`, a view or pure function called for nothing but its reverts, `nonReentrant`, a condition that
refuses by `return ConsentKind.NONE`, and each part of `return A && B`. Parts of a condition that `||` joins are checks of
their own. The text is forge fmt's, so parentheses and comments are all that has to be understood.

The switch is the block's coinbase, which a call can set and no contract of ours reads: one build holds every mutant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.model import Mutant, in_order, rules_in, unique
from tests.mutation.solidity_operators import CORE, Edit, changes

SWITCH_FILE = "contracts/src/MutantSwitch.sol"
COINBASE = 0x6D757461 << 128
"""The coinbase that drops check n is COINBASE + n."""
SWITCH = f"""// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

function mutantOff(uint256 number) view returns (bool) {{
    return uint160(address(block.coinbase)) != {COINBASE} + number;
}}

function mutantOn(uint256 number) view returns (bool) {{
    return uint160(address(block.coinbase)) == {COINBASE} + number;
}}

function mutantOne(uint256 number) view returns (uint8) {{
    return mutantOn(number) ? 1 : 0;
}}
"""
_GUARD = """
    bool private transient _mutantEntered;

    modifier mutantGuard(uint256 number) {
        if (mutantOff(number)) {
            if (_mutantEntered) revert ReentrancyGuardReentrantCall();
            _mutantEntered = true;
        }
        _;
        _mutantEntered = false;
    }
"""
_Edit = tuple[int, tuple[int, int], int, str]
"""Where, in which order there, up to where, and what stands there instead."""
_FUNCTION = re.compile(r"\b(?:function\s+(\w+)|(constructor))\s*\(")
_CONTRACT = re.compile(r"^(?:abstract )?(contract|library|interface) (\w+)", re.MULTILINE)
_CALL = re.compile(r"(?<=[;{}\n)])\s*((?:\w+\.)?(\w+))\(")


@dataclass(frozen=True)
class _Function:
    contract: str
    name: str
    start: int
    body: int
    end: int
    checks_only: bool
    rules: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """`edits` are (start, end, what stands there instead, given the mutant's number)."""

    at: int
    function: _Function
    code: str
    text: str
    rules: tuple[str, ...]
    edits: tuple[Edit, ...]


def find(root: Path, first_number: int = 1) -> tuple[list[Mutant], dict[str, str]]:
    """All mutants, numbered on from `first_number`, and every source file with the switches in place, by path."""
    files = sorted((root / "contracts/src").rglob("*.sol"))
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in files}
    documented = _documented(sources.values())
    found = [(path, each) for path, text in sources.items() for each in _checks(path, text, documented)]
    names = unique(f"{Path(path).name}: {each.function.name}: {each.code}" for path, each in found)
    mutants = []
    edits: dict[str, list[_Edit]] = {}
    for number, ((path, each), name) in enumerate(zip(found, names, strict=True), first_number):
        line = sources[path].count("\n", 0, each.at) + 1
        mutants.append(
            Mutant(number, name, "Solidity", path, each.function.name, line, each.code, each.text, each.rules)
        )
        edits.setdefault(path, []).extend(_nested(each.edits, number))
    for mutant, change in _changed(sources, documented, first_number + len(mutants)):
        mutants.append(mutant)
        edits.setdefault(mutant.file, []).extend(_nested(change, mutant.number))
    switched = {path: _switched(path, text, edits.get(path, [])) for path, text in sources.items()}
    switched[SWITCH_FILE] = SWITCH
    return mutants, switched


def _changed(
    sources: dict[str, str], documented: dict[str, tuple[str, ...]], first_number: int
) -> Iterator[tuple[Mutant, tuple[Edit, ...]]]:
    """The small changes of the core, numbered on."""
    found = []
    for path, text in sources.items():
        if Path(path).stem not in CORE:
            continue
        clean = _clean(text)
        functions = [f for f in _functions(text, clean, documented) if f.name != "constructor"]
        for at, operator, start, end, edits in changes(text, clean, [(f.body, f.end) for f in functions]):
            function = next(f for f in functions if f.body < at < f.end)
            found.append((path, at, function, operator, _flat(text[start:end]), edits))
    names = unique(
        f"{Path(path).name}: {function.name}: {operator}: {text[:60]}" for path, _, function, operator, text, _ in found
    )
    for number, ((path, at, function, operator, text, edits), name) in enumerate(
        zip(found, names, strict=True), first_number
    ):
        line = sources[path].count("\n", 0, at) + 1
        yield Mutant(number, name, "Core", path, function.name, line, operator, text, function.rules), edits


def as_view(text: str) -> str:
    """A test or an example that may call switched code: what is pure there reads the switch now."""
    clean = _clean(text)
    return _edited(text, [_replaced(m.start(), m.end(), "view") for m in re.finditer(r"\bpure\b", clean)])


def _nested(edits: tuple[Edit, ...], number: int) -> list[_Edit]:
    """What one mutant inserts. At one place, the ends of shorter changes come before those of longer ones, and these before
    beginnings, of which those of longer changes come first."""
    length = max(end for _, end, _ in edits) - min(start for start, _, _ in edits)
    last = len(edits) - 1
    return [
        (start, (0, length) if i == last and i else (1, -length), end, make(number))
        for i, (start, end, make) in enumerate(edits)
    ]


def _switched(path: str, text: str, edits: list[_Edit]) -> str:
    guarded = any(new.startswith("mutantGuard") for *_, new in edits)
    clean = _clean(text)
    edits = [*edits, *(_replaced(m.start(), m.end(), "view") for m in re.finditer(r"\bpure\b", clean))]
    if any("mutant" in new for *_, new in edits):
        up = "../" * (path.count("/") - 2) or "./"
        at = text.index("\n", text.index("pragma solidity")) + 1
        edits.append(_replaced(at, at, f'import {{mutantOff, mutantOn, mutantOne}} from "{up}MutantSwitch.sol";\n'))
    if guarded:
        at = clean.index("{", _CONTRACT.search(clean).end()) + 1  # type: ignore[union-attr]
        edits.append(_replaced(at, at, _GUARD))
    # Without comments, so that prose may change and the compiler's work stays done.
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/', _blank, text, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in _edited(bare, edits).split("\n") if line.strip()) + "\n"


def _blank(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else re.sub(r"[^\n]", " ", match[0])


def _replaced(start: int, end: int, new: str) -> _Edit:
    return start, (2, 0), end, new


def _edited(text: str, edits: list[_Edit]) -> str:
    done, made = 0, []
    for start, _, end, new in sorted(edits, key=lambda edit: edit[:2]):
        made += [text[done:start], new]
        done = end
    return "".join([*made, text[done:]])


def _checks(path: str, text: str, documented: dict[str, tuple[str, ...]]) -> list[_Found]:
    clean = _clean(text)
    if re.search(r"^interface ", clean, re.MULTILINE):
        return []
    functions = _functions(text, clean, documented)
    inherited = _inherited(functions, clean)
    checkers = {f.name for f in functions if f.checks_only} | {"check"}
    called = {f.name: f.rules for f in functions if f.rules}
    found: list[_Found] = []
    for function in functions:
        own = function.rules or inherited.get(function.name, ()) or _contract_rules(text, clean, function)
        found += _guards(text, clean, function, documented, own)
        found += _calls(text, clean, function, checkers, called, own)
        found += _modifiers(clean, function)
        found += _conjunctions(text, clean, function, own)
    return sorted(found, key=lambda each: each.at)


def _guards(
    text: str, clean: str, function: _Function, documented: dict[str, tuple[str, ...]], own: tuple[str, ...]
) -> Iterator[_Found]:
    for match in re.finditer(r"\bif \(", clean[function.body : function.end]):
        opening = function.body + match.end() - 1
        closing = _matching(clean, opening)
        rest = clean[closing + 1 :].lstrip()
        rest = rest[1:].lstrip() if rest.startswith("{") else rest
        refusal = re.match(r"revert (?:\w+\.)?(\w+)|return (ConsentKind\.NONE)", rest)
        if refusal is None:
            continue
        code = refusal[1] or refusal[2]
        comment = _comment_above(text, function.body + match.start())
        rules = rules_in(comment) or documented.get(code) or own
        refused_text = text[closing + 1 : clean.index(";", closing)]
        label = re.search(r'"([\w.]+)"', refused_text)
        for start, end in _parts(clean, opening + 1, closing, "||"):
            yield _Found(
                start,
                function,
                code + (f" {label[1]}" if label else ""),
                _flat(text[start:end]),
                rules,
                ((start, start, lambda n: f"(mutantOff({n}) && ("), (end, end, lambda _: "))")),
            )


def _calls(
    text: str,
    clean: str,
    function: _Function,
    checkers: set[str],
    called: dict[str, tuple[str, ...]],
    own: tuple[str, ...],
) -> Iterator[_Found]:
    for match in _CALL.finditer(clean, function.body, function.end):
        closing = _matching(clean, match.end() - 1)
        if match[2] not in checkers or match[2] == function.name or clean[closing + 1 : closing + 2] != ";":
            continue
        if clean[: match.start(1)].rstrip()[-1] not in ";{})":
            continue
        start = match.start(1)
        label = re.match(r'\("([\w.]+)"', text[match.end() - 1 :])
        yield _Found(
            start,
            function,
            match[1] + (f" {label[1]}" if label else ""),
            _flat(text[start : closing + 1]),
            rules_in(_comment_above(text, start)) or called.get(match[2]) or own,
            # In braces, so that an `else` behind it stays with its `if`.
            ((start, start, lambda n: f"{{ if (mutantOff({n})) "), (closing + 2, closing + 2, lambda _: " }")),
        )


def _modifiers(clean: str, function: _Function) -> Iterator[_Found]:
    match = re.search(r"\bnonReentrant\b", clean[function.start : function.body])
    if match:
        start = function.start + match.start()
        edit = (start, start + len("nonReentrant"), lambda n: f"mutantGuard({n})")
        yield _Found(start, function, "nonReentrant", "nonReentrant", ("R20",), (edit,))


def _conjunctions(text: str, clean: str, function: _Function, own: tuple[str, ...]) -> Iterator[_Found]:
    """The parts of what has to hold: `return A && B;`, and `if (A && B) { return …` in a function that refuses by NONE."""
    body = clean[function.body : function.end]
    places = [
        (function.body + m.start(1), function.body + m.end(1)) for m in re.finditer(r"\breturn ([^;?]*&&[^;?]*);", body)
    ]
    if "ConsentKind.NONE" in body:
        for match in re.finditer(r"\bif \(", body):
            opening = function.body + match.end() - 1
            closing = _matching(clean, opening)
            if re.match(r"\s*\{?\s*return (?!ConsentKind\.NONE)", clean[closing + 1 :]):
                places.append((opening + 1, closing))
    for begin, finish in places:
        parts = list(_parts(clean, begin, finish, "&&"))
        if len(parts) < 2:
            continue
        for start, end in parts:
            yield _Found(
                start,
                function,
                f"{function.name} {_flat(text[start:end])}"[:60],
                _flat(text[start:end]),
                rules_in(_comment_above(text, begin)) or own,
                ((start, start, lambda n: f"(mutantOn({n}) || ("), (end, end, lambda _: "))")),
            )


def _functions(text: str, clean: str, documented: dict[str, tuple[str, ...]]) -> list[_Function]:
    result = []
    headings = [(m.start(), rules_in(m[1])) for m in re.finditer(r"\n\n    // (.*)\n\n", text)]
    contracts = [(m.start(), m[2]) for m in _CONTRACT.finditer(clean)]
    for match in _FUNCTION.finditer(clean):
        after = _matching(clean, clean.index("(", match.end() - 1)) + 1
        body = re.compile(r"[{;]").search(clean, after)
        if body is None or body[0] == ";":
            continue
        name = match[1] or "constructor"
        head = clean[after : body.start()]
        heading = next((rules for at, rules in reversed(headings) if at < match.start()), ())
        contract = next((name for at, name in reversed(contracts) if at < match.start()), "")
        rules = rules_in(_comment_above(text, match.start())) or documented.get(f"{contract}.{name}", ()) or heading
        result.append(
            _Function(
                contract,
                name,
                match.start(),
                body.start(),
                _matching(clean, body.start()),
                bool(re.search(r"\b(view|pure)\b", head)) and not re.search(r"\bpublic|external\b", head),
                rules,
            )
        )
    return result


def _inherited(functions: list[_Function], clean: str) -> dict[str, tuple[str, ...]]:
    """A helper that names no rule checks for the functions that call it."""
    rules = {function.name: set(function.rules) for function in functions}
    for _ in functions:
        for caller in functions:
            called = set(re.findall(r"\b(_\w+)\(", clean[caller.body : caller.end])) & set(rules) - {caller.name}
            for name in called:
                if not any(f.rules for f in functions if f.name == name):
                    rules[name] |= rules[caller.name]
    return {name: in_order(values) for name, values in rules.items()}


def _contract_rules(text: str, clean: str, function: _Function) -> tuple[str, ...]:
    match = re.search(rf"^(?:abstract )?(?:contract|library) {function.contract}\b", clean, re.MULTILINE)
    return rules_in(_comment_above(text, match.start())) if match else ()


def _documented(sources: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Rules that the prose of the interfaces gives to errors (their own, or their group's heading) and functions."""
    result: dict[str, tuple[str, ...]] = {}
    for text in sources:
        clean = _clean(text)
        contracts = [(m.start(), m[1], m[2]) for m in _CONTRACT.finditer(clean)]
        for match in re.finditer(r"^    (error|function) (\w+)\(", clean, re.MULTILINE):
            at = match.start() + 4
            rules = rules_in(_comment_above(text, at))
            if match[1] == "error":
                group = max(text.rfind("\n\n", 0, at) + 2, text.rfind("{\n", 0, at) + 2)
                heading = re.match(r" *// (.*)\n", text[group:])
                prose = "\n".join(line for line in _comment_above(text, at).split("\n") if "///" in line)
                rules = rules_in(prose) or (rules_in(heading[1]) if heading else ())
                name = match[2]
            else:
                _, kind, contract = next(c for c in reversed(contracts) if c[0] < at)
                if kind != "interface":
                    continue
                name = f"{contract.removeprefix('I')}.{match[2]}"
            if rules:
                result[name] = rules
    return result


def _comment_above(text: str, at: int) -> str:
    """The comment lines directly above the line of `at`, slither's markers skipped, and a comment at its end."""
    lines = text[:at].split("\n")[:-1]
    above: list[str] = []
    while lines and lines[-1].lstrip().startswith("//"):
        above.append(lines.pop())
    line = text[text.rfind("\n", 0, at) + 1 : (text + "\n").index("\n", at)]
    return "\n".join([*above, line[line.find("//") :] if "//" in line else ""])


def _parts(clean: str, start: int, end: int, operator: str) -> Iterator[tuple[int, int]]:
    """The operands of `operator` at the top level of clean[start:end], without the spaces around them."""
    depth, begin, at = 0, start, start
    places = []
    while at < end:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(clean[at], 0)
        if depth == 0 and clean.startswith(operator, at):
            places.append((begin, at))
            begin = at = at + 2
            continue
        at += 1
    for first, last in (*places, (begin, end)):
        piece = clean[first:last]
        yield first + len(piece) - len(piece.lstrip()), last - (len(piece) - len(piece.rstrip()))


def _matching(clean: str, opening: int) -> int:
    pair = {"(": ")", "{": "}", "[": "]"}[clean[opening]]
    depth = 0
    for at in range(opening, len(clean)):
        depth += (clean[at] == clean[opening]) - (clean[at] == pair)
        if depth == 0:
            return at
    raise ValueError(f"unbalanced {clean[opening]} at {opening}")


def _clean(text: str) -> str:
    """The same length, with comments and strings blanked."""
    return re.sub(
        r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""",
        lambda m: re.sub(r"[^\n]", " ", m[0]),
        text,
        flags=re.DOTALL,
    )


def _flat(text: str) -> str:
    return " ".join(text.split())
