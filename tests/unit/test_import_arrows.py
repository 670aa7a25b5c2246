"""Which module may import which: the trusted program stays apart from the host's, and the host's from the brokers'.

The arrows are read from the source (`ast`), so an import counts wherever it stands: in a function, under TYPE_CHECKING,
or as a constant name handed to `importlib.import_module`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Rule:
    """No module in package `importer` imports package `forbidden`, except the packages in `allowed`; those in `spared` may.

    With `through`, neither do the modules that it imports, whichever way round."""

    importer: str
    forbidden: str
    allowed: tuple[str, ...] = ()
    through: bool = False
    spared: tuple[str, ...] = ()


RULES = (
    Rule("enclave_app", forbidden="oracle"),
    Rule("oracle", forbidden="enclave_app", allowed=("enclave_app.protocol", "enclave_app.appraise")),
    # SEV-SNP and Nitro evidence has one verifier; the other packages of `oracle` reach it through their own room.
    Rule("oracle", forbidden="enclave_app.appraise", spared=("oracle.attestation",)),
    Rule("enclave_app.appraise", forbidden="enclave_app", allowed=("enclave_app.protocol", "enclave_app.appraise")),
    # The one module that both sides share brings nothing else of the enclave with it.
    Rule("enclave_app.protocol", forbidden="enclave_app", allowed=("enclave_app.protocol",)),
    Rule("oracle.worker", forbidden="oracle.keybroker", through=True),
    Rule("oracle.gateway", forbidden="oracle.keybroker", through=True),
    # Whoever checks a receipt needs nothing of those who made it.
    Rule("oracle.receipt", forbidden="oracle.keybroker", through=True),
    Rule("oracle.receipt", forbidden="oracle.worker", through=True),
)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def sources(root: Path) -> dict[str, Path]:
    """Module name → file, of both packages."""
    found = {}
    for path in sorted([*root.glob("oracle/**/*.py"), *root.glob("enclave_app/**/*.py")]):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def written_imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import; `from a import b` gives `a.b`, which may be a name in `a` as well."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parts, *([source] if source else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=args
            ):
                match args:
                    case [ast.Constant(value=str(name)), *_]:
                        yield node.lineno, name
                    case _:
                        yield node.lineno, "(a name computed when it runs)"


def violations(root: Path) -> list[str]:
    modules = sources(root)
    arrows = {module: list(written_imports(path, module)) for module, path in modules.items()}
    faults = [
        f"{module}:{line} imports {target}; expected a constant name"
        for module, imported in arrows.items()
        for line, target in imported
        if target.startswith("(")
    ]
    for rule in RULES:
        for start in modules:
            if inside(start, rule.importer) and not any(inside(start, package) for package in rule.spared):
                faults += broken(rule, start, modules, arrows)
    return faults


def broken(rule: Rule, start: str, modules: dict[str, Path], arrows: dict[str, list[tuple[int, str]]]) -> Iterator[str]:
    """The arrows out of `start` that break `rule`, each as text for a person."""
    seen = {start}
    waiting: list[tuple[str, ...]] = [(start,)]
    while waiting:
        path = waiting.pop()
        for line, target in arrows[path[-1]]:
            if inside(target, rule.forbidden) and not any(inside(target, package) for package in rule.allowed):
                yield f"{' → '.join(path)}:{line} imports {target}; {rule.importer} must not import {rule.forbidden}"
            # `a.b` is either the module or something in the module `a`.
            module = target if target in modules else target.rpartition(".")[0]
            if rule.through and module in modules and module not in seen:
                seen.add(module)
                waiting.append((*path, module))


def test_both_packages_are_read() -> None:
    modules = sources(ROOT)
    assert "oracle" in modules
    assert "enclave_app.protocol.structs" in modules


def test_no_arrow_is_new() -> None:
    assert violations(ROOT) == []


GOOD = {
    "oracle/__init__.py": "",
    "oracle/config.py": "import json\n",
    "oracle/worker/__init__.py": "",
    "oracle/worker/loop.py": "from enclave_app.protocol.structs import Agreement\nfrom oracle import config\n",
    "oracle/gateway/__init__.py": "from oracle.config import json\n",
    "oracle/keybroker/__init__.py": "from enclave_app import protocol\nfrom oracle import config\n",
    "oracle/cli.py": "import oracle.keybroker\nimport oracle.worker.loop\n",
    "enclave_app/__init__.py": "",
    "enclave_app/main.py": "from enclave_app.protocol import structs\nfrom enclave_app.appraise import snp\n",
    "enclave_app/appraise/__init__.py": "",
    "enclave_app/appraise/snp.py": "from enclave_app.protocol import structs\n",
    "oracle/attestation/__init__.py": "from enclave_app.appraise import snp\n",
    "enclave_app/protocol/__init__.py": "",
    "enclave_app/protocol/structs.py": "from enclave_app.protocol import digests\n",
    "enclave_app/protocol/digests.py": "",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_tree_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("enclave_app/main.py", "import oracle"),
        ("enclave_app/main.py", "import json, oracle.config as config"),
        ("enclave_app/main.py", "def f():\n    from oracle import config"),
        ("enclave_app/protocol/digests.py", "from oracle.config import json"),
        ("enclave_app/protocol/digests.py", "from enclave_app import main"),
        ("enclave_app/protocol/digests.py", "from .. import main"),
        ("enclave_app/appraise/snp.py", "from enclave_app import main"),
        ("oracle/config.py", "import enclave_app.appraise.snp"),
        ("oracle/attestation/__init__.py", "from enclave_app import main"),
        ("oracle/config.py", "import enclave_app"),
        ("oracle/config.py", "import enclave_app.main"),
        ("oracle/config.py", "from enclave_app import main"),
        ("oracle/config.py", "from enclave_app.main import run"),
        ("oracle/config.py", "from enclave_app.protocolish import x"),
        ("oracle/config.py", "import importlib\nimportlib.import_module('enclave_app.main')"),
        ("oracle/config.py", "from importlib import import_module\nimport_module(name)"),
        ("oracle/config.py", "__import__('enclave_app.main')"),
        (
            "oracle/config.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from enclave_app.main import run",
        ),
        ("oracle/worker/loop.py", "from oracle import keybroker"),
        ("oracle/worker/loop.py", "from ..keybroker import serve"),
        ("oracle/worker/__init__.py", "from ..keybroker import serve"),
        ("oracle/worker/loop.py", "from oracle.cli import main"),
        ("oracle/gateway/__init__.py", "import oracle.keybroker"),
    ],
)
def test_one_new_arrow_is_found(tmp_path: Path, file: str, line: str) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, {file: f"{GOOD[file]}{line}\n"})
    assert violations(tmp_path) != []
