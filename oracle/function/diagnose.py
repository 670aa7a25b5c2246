"""What is wrong with a function's SQL, in the database's own words, for its author.

The enclave names only the kind of error, because DuckDB quotes values that do not convert. Here the statement is bound
against tables of the declared types that hold no row, so there is no value to quote; what only rows bring out stays unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from enclave_app.protocol.bundle import Bundle
from enclave_app.protocol.errors import Refused
from oracle.dataset.types import parse_type

MOST = 600
"""Characters of DuckDB's message, which quotes the statement."""


def explain_sql_error(bundle: Bundle, params: Mapping[str, Any]) -> str | None:
    """DuckDB's message for a statement that does not parse or bind; None where it does, or where it is not one SELECT.

    `params` are the values as the parameter domain reads them.
    """
    with duckdb.connect(":memory:", config={"memory_limit": "256MiB", "threads": "1"}) as connection:
        for setting in ("temp_directory = ''", "enable_external_access = false", "TimeZone = 'UTC'"):
            connection.execute(f"SET {setting}")
        for table in bundle.header.tables:
            schema = pa.schema([(column.name, parse_type(column.type)) for column in table.columns])
            connection.register(table.name, schema.empty_table())
        connection.execute("SET lock_configuration = true")
        try:
            text = bundle.entry_text()
            statements = connection.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                return None
            values = {**params, "as_of": datetime.fromtimestamp(0, UTC)}
            used = {name: values[name] for name in statements[0].named_parameters if name in values}
            connection.execute(f"EXPLAIN {text}", used)
        except duckdb.Error as error:
            return str(error).strip()[:MOST]
        except Refused:
            return None
    return None
