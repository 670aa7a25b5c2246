"""The journal's database on a PostgreSQL server: one schema for each worker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.files import read_file
from oracle.worker.database import PATIENCE_SECONDS, Database, Result, Server, Value, statements

if TYPE_CHECKING:
    from psycopg import Connection

_TYPES: Final = (
    ("BLOB", "BYTEA"),
    ("INTEGER", "BIGINT"),
    ("REAL", "DOUBLE PRECISION"),
    (") STRICT, WITHOUT ROWID", ")"),
    (") STRICT", ")"),
)
_MAX_PASSWORD: Final = 4096
_PAUSE_SECONDS: Final = 0.2
_LOCK_SECONDS: Final = 3.0
_LOCK_PAUSE: Final = 0.02


class PostgresDatabase(Database):
    """The owner holds an advisory lock for as long as its session lives. A lost connection is made anew at the next statement.

    A connection that is lost at a commit leaves open whether it took place. So each of the owner's transactions writes a
    number of its own with the commit; whoever then has the lock again, which the old session held to its end, reads there
    how it went."""

    def __init__(self, server: Server, *, owner: bool) -> None:
        self._server, self._schema, self._owner = server, f"oracle_{server.name}", owner
        self._db: Connection[dict[str, Any]] | None = None
        self._inside = False
        self._committed = 0
        try:
            self._connection()
        except BaseException:
            self.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> Result:
        return self._run(_as_postgres(sql), [_without_nul(each) for each in parameters])

    def script(self, sql: str) -> None:
        for ours, theirs in _TYPES:
            sql = sql.replace(ours, theirs)
        for statement in statements(sql):
            self.execute(statement)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        self._run(b"BEGIN; SET LOCAL synchronous_commit = on" if durable else b"BEGIN")
        self._inside = True
        try:
            yield
            self._commit()
        except BaseException:
            # Where the server is gone, so is what the transaction did.
            with suppress(Retryable):
                if self._db is not None:
                    self._run(b"ROLLBACK")
            raise
        finally:
            self._inside = False

    def _commit(self) -> None:
        if not self._owner:
            self._run(b"COMMIT")
            return
        number = self._committed + 1
        try:
            self._run(b"UPDATE committed SET number = %d; COMMIT" % number)
        except Retryable:
            self._inside = False
            if not self._took_place(number):
                raise
        self._committed = number

    def _took_place(self, number: int) -> bool:
        """Whether the commit that was not answered took place; Retryable while nobody can say. Its caller reads again what
        stands there before it goes on, as after any Retryable."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._connection()
                return self._committed == number
            except Retryable:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._run(b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            with suppress(Retryable):
                self._run(b"ROLLBACK")

    def version(self) -> int:
        row = self.execute("SELECT max(number) AS number FROM version").fetchone()
        return 0 if row is None or row["number"] is None else int(row["number"])

    def set_version(self, version: int) -> None:
        self.execute("INSERT INTO version VALUES (?)", (version,))

    def shrink(self) -> None:
        """The server's own autovacuum does it."""

    def size(self) -> int:
        row = self.execute(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) AS size FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND c.relkind = 'r'",
            (self._schema,),
        ).fetchone()
        return 0 if row is None else int(row["size"])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _run(self, query: bytes, values: Sequence[Value] | None = None) -> Result:
        import psycopg

        connection = self._connection()
        try:
            # Several statements in one message cannot be prepared.
            cursor = connection.execute(query, values, prepare=False if values is None else None)
            rows = cursor.fetchall() if cursor.description is not None else []
            return Result(rows, cursor.rowcount)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if connection.closed:
                self._db = None
            raise _unreachable(self._server, error) from error

    def _connection(self) -> Connection[dict[str, Any]]:
        if self._db is not None:
            return self._db
        if self._inside:
            # What the transaction did before is gone with its connection: it must not go on in another one.
            raise Retryable("journal.unreachable", "the journal's server was lost within a transaction")
        first = self._committed == 0
        try:
            self._db = self._connect()
        except Permanent as error:
            if error.code == "journal.locked" and not first:
                # Our own last session, which the server has not given up yet.
                raise Retryable("journal.unreachable", error.message) from None
            raise
        return self._db

    def _connect(self) -> Connection[dict[str, Any]]:
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError:
            raise Refused(
                "journal.driver",
                "a journal in PostgreSQL needs psycopg, which is not installed",
                hint="pip install 'enclave-oracle[postgres]'",
            ) from None
        given: dict[str, Any] = {}
        if self._server.password_file is not None:
            given["password"] = read_file(self._server.password_file, _MAX_PASSWORD).decode().rstrip("\r\n")
        try:
            connection = psycopg.connect(
                self._server.url.get_secret_value(),
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=int(PATIENCE_SECONDS),
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=int(PATIENCE_SECONDS * 1000),
                application_name=f"enclave-oracle {self._server.name}",
                **given,
            )
        except psycopg.ProgrammingError:
            # Its text quotes the URL, and with it a password.
            raise Refused("journal.url", f"the URL of the journal at {self._server} cannot be read") from None
        except psycopg.OperationalError as error:
            raise _unreachable(self._server, error) from None
        try:
            self._prepare(connection)
        except psycopg.OperationalError as error:
            connection.close()
            raise _unreachable(self._server, error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection[dict[str, Any]]) -> None:
        from psycopg import sql

        schema = sql.Identifier(self._schema)
        # A server that does not see our end must give the lock up, too, also when we stopped within a transaction.
        connection.execute(
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
        )
        connection.execute("SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'")
        connection.execute("SET synchronous_commit = off; SET client_min_messages = warning")
        if self._owner:
            self._lock(connection)
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema]).fetchone()
        if found is None:
            raise Permanent("journal.missing", f"there is no journal at {self._server}", hint="Has the worker run?")
        connection.execute(sql.SQL("SET search_path = {}").format(schema))
        if self._owner:
            connection.execute("CREATE TABLE IF NOT EXISTS version (number BIGINT NOT NULL)")
            connection.execute("CREATE TABLE IF NOT EXISTS committed (number BIGINT NOT NULL)")
            connection.execute("INSERT INTO committed SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM committed)")
            row = connection.execute("SELECT number FROM committed").fetchone()
            self._committed = 0 if row is None else int(row["number"])

    def _lock(self, connection: Connection[dict[str, Any]]) -> None:
        """The server takes a moment to end the session of a worker that is gone, which a quick restart has to wait for."""
        until = time.monotonic() + _LOCK_SECONDS
        query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 20)) AS ours"
        while True:
            row = connection.execute(query, [self._schema]).fetchone()
            if row is not None and row["ours"]:
                return
            if time.monotonic() > until:
                raise Permanent("journal.locked", f"another worker has the journal {self._server} open")
            time.sleep(_LOCK_PAUSE)


def _unreachable(server: Server, error: OracleError | Exception) -> Retryable:
    # libpq's text names host and user, never the password.
    return Retryable("journal.unreachable", f"the journal at {server} cannot be used now: {error}")


@lru_cache(maxsize=512)
def _as_postgres(sql: str) -> bytes:
    # No statement of ours has a question or percent sign of its own.
    return sql.replace("?", "%s").encode()


def _without_nul(value: Value) -> Value:
    """PostgreSQL's text has no NUL, and the hints of requests are a stranger's."""
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value
