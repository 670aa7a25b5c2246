"""Which SQL runs: a walk over the parsed statement that refuses whatever it does not know (R16).

The tree is the one that DuckDB's `json_serialize_sql` gives. Every dictionary in it that has a "type" must be of a
listed kind, so that a construct of a later DuckDB is refused until someone lists it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from enclave_app.protocol.errors import Refused
from enclave_app.runtimes.sql_functions import (
    CLOCKS_AND_SESSION,
    EXPRESSIONS,
    FUNCTIONS,
    JOINS,
    MODIFIERS,
    NODES,
    TABLES,
    TYPES,
)

Scope = frozenset[str]
Tree = dict[str, Any]


def check_select(tree: Tree, tables: Iterable[str], params: Iterable[str]) -> Tree:
    """The query node of a serialized statement, if it is one SELECT over `tables` with named `params` only (R16).

    Raises `Refused` (sql.…) and names the construct, which is the function's text and no data.
    """
    if tree.get("error") is not False:
        raise Refused("sql.statement", "a function's SQL is not one SELECT statement")
    statements = tree.get("statements")
    if not isinstance(statements, list) or len(statements) != 1:
        raise Refused("sql.statement", "a function's SQL is not exactly one statement")
    node = statements[0].get("node")
    if not isinstance(node, dict):
        raise Refused("sql.statement", "a function's SQL is not one SELECT statement")
    walker = _Walker(frozenset(params))
    walker.visit(node, frozenset(name.lower() for name in tables))
    return node


class _Walker:
    """Visits every node; one that is not listed is refused, because it might not be deterministic (R16)."""

    def __init__(self, params: frozenset[str]) -> None:
        self._params = params

    def visit(self, value: Any, scope: Scope) -> None:
        if isinstance(value, list):
            for item in value:
                self.visit(item, scope)
        elif isinstance(value, dict):
            if "class" in value:
                self._expression(value)
            elif isinstance(value.get("type"), str):
                scope = self._structure(value, scope)
            for key, item in value.items():
                if key != "cte_map":
                    self.visit(item, scope)

    def _structure(self, item: Tree, scope: Scope) -> Scope:
        kind = item["type"]
        if item.get("sample") is not None:
            raise Refused("sql.sample", "a function's SQL samples rows")
        if kind in NODES:
            return self._with_ctes(item, scope)
        if kind in TABLES:
            self._table(item, scope)
        elif kind not in MODIFIERS:
            raise Refused("sql.construct", "a function's SQL uses a construct that is not allowed", found=kind)
        return scope

    def _with_ctes(self, node: Tree, scope: Scope) -> Scope:
        # In order, each seeing those before it: a CTE named like a system view would otherwise cover for that view.
        for entry in node.get("cte_map", {}).get("map", []):
            name, body = str(entry["key"]).lower(), entry["value"]
            recursive = isinstance(body.get("query_node"), dict) and (
                body["query_node"].get("type") == "RECURSIVE_CTE_NODE"
            )
            self.visit(body, scope | {name} if recursive else scope)
            scope |= {name}
        return scope

    def _table(self, item: Tree, scope: Scope) -> None:
        if item["type"] == "JOIN" and item.get("ref_type") not in JOINS:
            raise Refused("sql.join", "a function's SQL uses a join that is not allowed", found=item.get("ref_type"))
        if item["type"] != "BASE_TABLE":
            return
        path = item.get("qualified_name", {}).get("path")
        name = str(item.get("table_name"))
        if path != [name] or item.get("schema_name") or item.get("catalog_name") or item.get("at_clause") is not None:
            raise Refused("sql.table", "a function's SQL names a table in another schema or at a version", found=path)
        if name.lower() not in scope:
            raise Refused("sql.table", "a function's SQL reads a table that it does not declare", found=name)

    def _expression(self, item: Tree) -> None:
        kind, expression = str(item.get("type")), str(item["class"])
        if expression not in EXPRESSIONS:
            raise Refused("sql.expression", "a function's SQL uses an expression that is not allowed", found=expression)
        kinds = EXPRESSIONS[expression]
        if kinds is not None and kind not in kinds:
            raise Refused("sql.expression", "a function's SQL uses an operator that is not allowed", found=kind)
        if expression in ("FUNCTION", "WINDOW"):
            self._function(item)
        elif expression == "TYPE":
            self._type(item)
        elif expression == "PARAMETER" and item.get("identifier") not in self._params:
            raise Refused(
                "sql.parameter", "a function's SQL uses a parameter that is not declared", found=item.get("identifier")
            )
        elif expression == "COLUMN_REF":
            names = item.get("column_names") or [""]
            if str(names[-1]).lower() in CLOCKS_AND_SESSION:
                raise Refused(
                    "sql.function", "a function's SQL reads the clock, the session or row positions", found=names[-1]
                )

    def _function(self, item: Tree) -> None:
        name = str(item.get("function_name"))
        if item.get("schema") or item.get("catalog") or item.get("qualified_name", {}).get("path") != [name]:
            raise Refused("sql.function", "a function's SQL calls a function of another schema", found=name)
        if name.lower() not in FUNCTIONS:
            raise Refused("sql.function", "a function's SQL calls a function that is not listed", found=name)

    def _type(self, item: Tree) -> None:
        name = str(item.get("type_name"))
        if item.get("schema") or item.get("catalog") or item.get("qualified_name", {}).get("path") != [name]:
            raise Refused("sql.type", "a function's SQL names a type of another schema", found=name)
        if name.lower() not in TYPES:
            raise Refused("sql.type", "a function's SQL names a type that is not listed", found=name)
