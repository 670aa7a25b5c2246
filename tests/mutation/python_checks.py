"""The checks of the Python packages, found in their syntax, and the same sources with a switch at each.

A check is a condition whose branch ends in `raise`; a `raise` that is reached when nothing before it returned; an `except`
that turns a refusal of something called into one of ours; a call made for nothing but what it refuses; and each part of what
a predicate returns. Parts that `or` joins are checks of their own, and so are the parts of `not (a and b)`, of
`not a <= b <= c`, and of `(a, b) != (c, d)`.

A check names a rule in its message, in a comment on it or above it, or in the docstring of its function or class; a private
helper that names none checks for whoever calls it in its module.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from tests.mutation.model import Mutant, in_order, rules_in, unique

PACKAGES = ("enclave_app", "oracle")
_CHECKER = re.compile(r"_?(check|refuse|require|verify|ensure|validate)(_|$)")
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class _Found:
    """A check before it has its number; `number` fills the constants that the switched tree holds for it."""

    function: str
    line: int
    code: str
    text: str
    rules: tuple[str, ...]
    constant: ast.Constant = field(default_factory=lambda: ast.Constant(0))


def find(root: Path, first_number: int = 4001, unnamed: bool = False) -> tuple[list[Mutant], dict[str, str]]:
    """All mutants, numbered on from `first_number`, and each switched source by path; `unnamed` has those without a rule."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    modules = {path: _Module(text) for path, text in sources.items()}
    defined = Counter(f.name for module in modules.values() for f in module.functions)
    documented = {name: rules for m in modules.values() for name, rules in m.documented.items() if defined[name] == 1}
    mutants: list[Mutant] = []
    switched = {}
    for path, module in modules.items():
        found = [each for each in module.switch(documented) if bool(each.rules) != unnamed]
        for each, name in zip(found, unique(f"{path}: {e.function}: {e.code}" for e in found), strict=True):
            number = first_number + len(mutants)
            each.constant.value = number
            mutants.append(
                Mutant(number, name, "Python", path, each.function, each.line, each.code, each.text, each.rules)
            )
        if found:
            switched[path] = ast.unparse(ast.fix_missing_locations(module.tree)) + "\n"
    return mutants, switched


class _Module:
    """One file: its tree, which `switch` rewrites in place."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.tree = ast.parse(text)
        self._owners: dict[ast.AST, tuple[ast.AST, ...]] = {}
        self._own(self.tree, ())
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, _FUNCTIONS)]
        self.documented = {f.name: rules for f in self.functions if (rules := rules_in(ast.get_docstring(f) or ""))}
        self._refusers = {
            f.name for f in self.functions if f.returns and ast.unparse(f.returns) in ("NoReturn", "Never")
        }
        self._pure = self._pure_checks()
        self._inherited = self._inherit()

    def _own(self, node: ast.AST, owners: tuple[ast.AST, ...]) -> None:
        self._owners[node] = owners
        inside = (*owners, node) if isinstance(node, _DOCUMENTED) else owners
        for child in ast.iter_child_nodes(node):
            self._own(child, inside)

    def _inherit(self) -> dict[str, tuple[str, ...]]:
        rules = {f.name: set(self._docstring_rules(f)) for f in self.functions}
        named = {name for name, own in rules.items() if own}
        calls = {
            f.name: {_callee(node) for node in ast.walk(f) if isinstance(node, ast.Call)} & set(rules) - {f.name}
            for f in self.functions
        }
        while True:
            before = {name: len(found) for name, found in rules.items()}
            for caller, called in calls.items():
                for name in called - named:
                    # What does more than check has refusals of its own, which are not its caller's rules.
                    if name.startswith("_") and (name in self._pure or _CHECKER.match(name)):
                        rules[name] |= rules[caller]
            if {name: len(found) for name, found in rules.items()} == before:
                break
        return {name: in_order(found) for name, found in rules.items()}

    def _docstring_rules(self, function: Function) -> tuple[str, ...]:
        for owner in (function, *reversed(self._owners[function])):
            if isinstance(owner, _DOCUMENTED) and (rules := rules_in(ast.get_docstring(owner) or "")):
                return rules
        return ()

    def _pure_checks(self) -> set[str]:
        """Functions of this module that do nothing but refuse: a call to one, for nothing else, is a check."""
        pure: set[str] = set()
        while True:
            more = {f.name for f in self.functions if all(_only_checks(s, pure) for s in f.body) and _refuses(f, pure)}
            if more <= pure:
                return pure
            pure |= more

    def switch(self, documented: dict[str, tuple[str, ...]]) -> list[_Found]:
        """Rewrite the tree; every check found gets a switch, whose constant is still zero, which drops nothing."""
        found: list[_Found] = []
        for function in self.functions:
            if not _abstract(function):
                found += self._block(function, function.body, documented, tail=True)
                found += self._predicate(function)
        return found

    def _is_refusal(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Raise):
            return True
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _callee(node.value) in self._refusers

    def _rules(self, function: Function, node: ast.stmt, *more: str) -> tuple[str, ...]:
        """Those of the check itself, else what `more` names, else those of the function."""
        strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        own = rules_in("\n".join([self._comments(node), *strings]))
        return own or rules_in(" ".join(more)) or self._inherited[function.name] or self._docstring_rules(function)

    def _comments(self, node: ast.stmt) -> str:
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        above = first - 1
        while above >= 0 and self.lines[above].lstrip().startswith("#"):
            above -= 1
        lines = self.lines[above + 1 : last + 1]
        return "\n".join(line[line.find("#") :] for line in lines if "#" in line)

    def _name(self, function: Function) -> str:
        owners = [o.name for o in self._owners[function] if isinstance(o, _DOCUMENTED)]
        return ".".join([*owners, function.name])

    def _found(self, function: Function, line: int, code: str, text: str, rules: tuple[str, ...]) -> _Found:
        return _Found(self._name(function), line, code, " ".join(text.split()), rules)

    def _block(
        self, function: Function, body: list[ast.stmt], documented: dict[str, tuple[str, ...]], tail: bool = False
    ) -> Iterator[_Found]:
        """The checks among `body`'s statements; `tail` where its last `raise` is what remains when nothing else applied."""
        for index, node in enumerate(body):
            if isinstance(node, _DOCUMENTED):
                continue
            if isinstance(node, ast.If) and self._is_refusal(node.body[-1]) and not _again(node.body[-1]):
                rules = self._rules(function, node.body[-1]) if node.orelse else self._rules(function, node)
                rules = rules_in(self._comments(node)) or rules
                node.test = _Spread().visit(node.test)
                for part in _parts(node.test):
                    one = self._found(function, node.lineno, _code(node.body[-1]), ast.unparse(part), rules)
                    yield one
                    node.test = _replaced(node.test, part, _switched(part, one))
                yield from self._block(function, node.orelse, documented, tail=True)
                continue
            if tail and index == len(body) - 1 and self._is_refusal(node) and not _again(node):
                one = self._found(function, node.lineno, _code(node), "otherwise", self._rules(function, node))
                yield one
                body[index] = ast.If(_switched(ast.Constant(True), one), [node], [])
                continue
            if isinstance(node, ast.Expr) and (call := _call(node.value)) is not None:
                name = _callee(call)
                if name in self._pure - self._refusers or _CHECKER.match(name):
                    callee = self._inherited.get(name) or documented.get(name, ())
                    rules = self._rules(function, node, " ".join(callee))
                    one = self._found(function, node.lineno, _labelled(call), ast.unparse(node), rules)
                    yield one
                    body[index] = ast.With(
                        [ast.withitem(ast.Call(ast.Name("__mutant_call__", ast.Load()), [one.constant], []))], [node]
                    )
                continue
            if isinstance(node, ast.Try):
                for handler in node.handlers:
                    last = handler.body[-1]
                    if self._is_refusal(last) and not _again(last) and not _gives(node.body):
                        one = self._found(
                            function,
                            last.lineno,
                            _code(last),
                            ast.unparse(node.body[-1])[:200],
                            self._rules(function, last),
                        )
                        yield one
                        handler.body[-1] = ast.If(_switched(ast.Constant(True), one), [last], [])
                    else:
                        yield from self._block(function, handler.body, documented)
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(node, name, None)
                if isinstance(inner, list):
                    yield from self._block(function, inner, documented, tail=name == "orelse")
            for case in getattr(node, "cases", ()):
                yield from self._block(function, case.body, documented, tail=True)

    def _predicate(self, function: Function) -> Iterator[_Found]:
        """`return a and b` in a function that says bool: each part made true, one at a time."""
        if not isinstance(function.returns, ast.Name) or function.returns.id != "bool":
            return
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Return)
                and isinstance(node.value, ast.BoolOp)
                and isinstance(node.value.op, ast.And)
            ):
                rules = self._rules(function, node)
                for index, part in enumerate(node.value.values):
                    text = ast.unparse(part)
                    one = self._found(function, node.lineno, f"{function.name} {text}"[:60], text, rules)
                    yield one
                    refuses = _switched(ast.UnaryOp(ast.Not(), part), one)
                    node.value.values[index] = ast.UnaryOp(ast.Not(), refuses)


def _switched(condition: ast.expr, one: _Found) -> ast.expr:
    return ast.Call(ast.Name("__mutant_drops__", ast.Load()), [one.constant, condition], [])


def _parts(test: ast.expr) -> list[ast.expr]:
    """The conditions within `test` each of which refuses alone: what `or` joins, also as the last thing that `and` asks."""
    if _is_or(test):
        return [part for value in test.values for part in _parts(value)]
    if isinstance(test, ast.BoolOp) and _is_or(test.values[-1]):
        return _parts(test.values[-1])
    return [test]


def _is_or(node: ast.expr) -> TypeGuard[ast.BoolOp]:
    return isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)


def _replaced(test: ast.expr, part: ast.expr, new: ast.expr) -> ast.expr:
    if test is part:
        return new
    if isinstance(test, ast.BoolOp):
        test.values = [_replaced(value, part, new) for value in test.values]
    return test


class _Spread(ast.NodeTransformer):
    """Conditions in words that `or` joins: not (a and b), not a <= b <= c, (a, b) != (c, d)."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        inner = node.operand
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.BoolOp) and isinstance(inner.op, ast.And):
            return ast.BoolOp(ast.Or(), [self.visit(ast.UnaryOp(ast.Not(), value)) for value in inner.values])
        if isinstance(node.op, ast.Not) and isinstance(inner, ast.Compare) and len(inner.ops) > 1:
            places = [inner.left, *inner.comparators]
            if all(_repeatable(place) for place in places[1:-1]):
                return ast.BoolOp(
                    ast.Or(),
                    [
                        ast.UnaryOp(ast.Not(), ast.Compare(left, [op], [right]))
                        for left, op, right in zip(places, inner.ops, places[1:], strict=False)
                    ],
                )
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        left, right = node.left, node.comparators[0]
        if (
            len(node.ops) == 1
            and isinstance(node.ops[0], ast.NotEq)
            and isinstance(left, ast.Tuple)
            and isinstance(right, ast.Tuple)
            and len(left.elts) == len(right.elts) > 1
        ):
            pairs = zip(left.elts, right.elts, strict=True)
            return ast.BoolOp(ast.Or(), [ast.Compare(a, [ast.NotEq()], [b]) for a, b in pairs])
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        node.values = [self.visit(value) for value in node.values]
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return node


def _repeatable(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return _callee(node) == "len" and all(_repeatable(argument) for argument in node.args)
    if isinstance(node, ast.Attribute | ast.Subscript):
        return _repeatable(node.value)
    return isinstance(node, ast.Name | ast.Constant)


def _only_checks(node: ast.stmt, pure: set[str]) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Raise() | ast.Pass() | ast.Return(value=None) | ast.Continue():
            return True
        case ast.Assign(targets=[ast.Name() | ast.Tuple()]):
            return True
        case ast.Expr(value=value):
            call = _call(value)
            return call is not None and (_callee(call) in pure or bool(_CHECKER.match(_callee(call))))
        case ast.If(body=body, orelse=orelse) | ast.For(body=body, orelse=orelse):
            return all(_only_checks(each, pure) for each in (*body, *orelse))
        case ast.Try(body=body, handlers=handlers):
            return all(_only_checks(each, pure) for each in (*body, *(s for h in handlers for s in h.body)))
    return False


def _refuses(function: Function, pure: set[str]) -> bool:
    if not isinstance(function.returns, ast.Constant) or function.returns.value is not None:
        return False
    return any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _callee(node) in pure)
        for node in ast.walk(function)
    )


def _abstract(function: Function) -> bool:
    rest = [s for s in function.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return not rest or isinstance(rest[0], ast.Raise)


def _gives(body: Sequence[ast.stmt]) -> bool:
    """Whether a `try` makes something that what follows needs: then no refusal of it can be dropped."""
    return any(isinstance(node, ast.Assign | ast.AnnAssign | ast.Return | ast.With) for node in body) or any(
        isinstance(node, ast.NamedExpr) for statement in body for node in ast.walk(statement)
    )


def _call(value: ast.expr) -> ast.Call | None:
    inner = value.value if isinstance(value, ast.Await) else value
    return inner if isinstance(inner, ast.Call) else None


def _callee(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _labelled(call: ast.Call) -> str:
    label = call.args[0] if call.args else None
    name = ast.unparse(call.func)
    return f"{name} {label.value}" if isinstance(label, ast.Constant) and isinstance(label.value, str) else name


def _code(node: ast.stmt) -> str:
    """What a refusal refuses with: its dotted code if it gives one, else the exception's name."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    for call in calls:
        for argument in call.args[:1]:
            if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z_0-9]+\.[a-z_.0-9]+", str(argument.value)):
                return str(argument.value)
            if isinstance(argument, ast.JoinedStr):
                return ast.unparse(argument).strip("f'\"")
    if isinstance(node, ast.Expr):
        return ast.unparse(calls[0].args[0]) if calls[0].args else _callee(calls[0])
    return _callee(calls[0]) if calls else ast.unparse(node).removeprefix("raise ")


def _again(node: ast.stmt) -> bool:
    """Whether a `raise` hands on what was refused elsewhere, or says that this program is wrong."""
    if not isinstance(node, ast.Raise):
        return False
    made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    if not isinstance(made, ast.Name):
        return node.exc is None
    return made.id == "Bug" or (made.id.islower() and not made.id.startswith("_") and "." not in _code(node))
