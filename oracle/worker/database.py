"""The database under the journal: SQLite in a file, or PostgreSQL by a URL for a fleet. One SQL for both.

Statements have `?` for their values and use what both know. A database is used by one thread. What is wrong with a disk or a
server is Retryable: the worker goes on when it is mended, and nothing is half done.
"""

from __future__ import annotations

import fcntl
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from oracle.errors import Permanent, Retryable
from oracle.yamlfile import YamlModel

Value = None | int | float | str | bytes
Row = Mapping[str, Any]

PATIENCE_SECONDS: Final = 10.0
"""How long a statement waits for another process, such as an operator's command."""
_SHRUNK_PAGES: Final = 2000
_LOG_BYTES: Final = 16 << 20
_SCHEME = re.compile(r"postgres(ql)?://")
_PASSING = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Server(YamlModel):
    """A journal on a PostgreSQL server. `name` tells this worker's tables from those of others in the same database. The
    password may stand in the URL, or in a file of its own."""

    url: SecretStr
    name: str = Field(default="worker", pattern=r"^[a-z0-9_]{1,40}$")
    password_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_ours(cls, url: SecretStr) -> SecretStr:
        if not _SCHEME.match(url.get_secret_value()):
            raise ValueError("a journal's URL begins with postgresql://")
        return url

    def __str__(self) -> str:
        """Where it is, without user and password, which may also stand among the URL's parameters."""
        place = self.url.get_secret_value().split("://", 1)[1].split("?", 1)[0].rpartition("@")[2]
        return f"postgresql://{place} ({self.name})"


def _place(value: object) -> object:
    return {"url": value} if isinstance(value, str) and _SCHEME.match(value) else value


Place = Annotated[Server | Path, BeforeValidator(_place)]
"""A file, or a server: as a URL, or as a mapping with the server's fields."""


class Result:
    """What a statement gave: all its rows, and how many it changed."""

    def __init__(self, rows: Sequence[Row], rowcount: int) -> None:
        self._rows, self.rowcount = rows, rowcount

    def fetchone(self) -> Row | None:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Row]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


class Database(ABC):
    """`execute` outside of a transaction is one of its own. Raises Retryable `journal.disk` or `journal.unreachable`,
    Permanent `journal.broken`."""

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> Result: ...

    @abstractmethod
    def script(self, sql: str) -> None:
        """Several statements without values, within a transaction."""

    @abstractmethod
    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """All or nothing. After `durable` not even a power cut takes it back; order is kept in any case."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """What is read within is as it was at one moment."""

    @abstractmethod
    def version(self) -> int:
        """Of the schema; 0 for an empty database."""

    @abstractmethod
    def set_version(self, version: int) -> None: ...

    @abstractmethod
    def shrink(self) -> None:
        """Give some of the room of deleted rows back."""

    @abstractmethod
    def size(self) -> int:
        """Bytes on disk."""

    @abstractmethod
    def close(self) -> None: ...


def open_database(place: Server | Path, *, owner: bool) -> Database:
    """`owner` is for the one worker that the journal belongs to, and keeps a second one out; others may look, and write
    beside it. Raises Permanent `journal.locked`, `journal.missing` or `journal.driver`."""
    if isinstance(place, Server):
        from oracle.worker.postgres import PostgresDatabase

        return PostgresDatabase(place, owner=owner)
    return SqliteDatabase(place, owner=owner)


class SqliteDatabase(Database):
    def __init__(self, path: Path, *, owner: bool) -> None:
        self._path = path
        if not owner and not path.exists():
            raise Permanent("journal.missing", f"there is no journal at {path}", hint="Has the worker run?")
        self._lock: TextIO | None = _lock_file(path) if owner else None
        self._db: sqlite3.Connection | None = None
        try:
            with _sqlite_errors(path):
                self._db = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=PATIENCE_SECONDS
                )
                self._db.row_factory = _as_mapping
                if owner:
                    self._own()
                self._db.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self.close()
            raise

    def _own(self) -> None:
        # Taken by a new file as it is; an old one has to be written anew, for which there may be no room today.
        if self.execute("PRAGMA auto_vacuum").fetchall()[0]["auto_vacuum"] == 0:
            self.execute("PRAGMA auto_vacuum = INCREMENTAL")
            with suppress(Retryable):
                self.execute("VACUUM")
        self.execute("PRAGMA journal_mode = WAL")
        self.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> Result:
        with _sqlite_errors(self._path):
            cursor = self._connection().execute(sql, parameters)
            return Result(cursor.fetchall(), cursor.rowcount)

    def script(self, sql: str) -> None:
        for statement in statements(sql):
            self.execute(statement)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        if durable:
            self.execute("PRAGMA synchronous = FULL")
        try:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                # SQLite ends it on its own after some errors, such as a full disk (sqlite.org/lang_transaction.html).
                if self._connection().in_transaction:
                    self.execute("ROLLBACK")
                raise
        finally:
            if durable:
                self.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    def version(self) -> int:
        return int(self.execute("PRAGMA user_version").fetchall()[0]["user_version"])

    def set_version(self, version: int) -> None:
        self.execute(f"PRAGMA user_version = {int(version)}")

    def shrink(self) -> None:
        self.execute(f"PRAGMA incremental_vacuum({_SHRUNK_PAGES})")

    def size(self) -> int:
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._lock is not None:
            self._lock.close()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise Permanent("journal.closed", f"the journal {self._path} is closed")
        return self._db


def statements(sql: str) -> list[str]:
    """A script's statements, without comments. None of ours has `--` or `;` within a text."""
    lines = (line.split("--", 1)[0].rstrip() for line in sql.splitlines())
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def _lock_file(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("a")
    except OSError as error:
        raise Retryable("journal.disk", f"the journal {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Permanent("journal.locked", f"another worker has {path} open") from None
    return lock


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # The primary code is the lowest byte of the extended one (sqlite.org/rescode.html).
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _PASSING:
            raise Retryable("journal.disk", f"the journal {path} cannot be read or written now: {error}") from error
        if code in _BROKEN:
            raise Permanent(
                "journal.broken",
                f"the journal {path} is damaged, or no journal: {error}",
                hint="Put a backup in its place, or begin a new one: the chain is read again",
            ) from error
        raise


def _as_mapping(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip((column[0] for column in cursor.description), values, strict=True))
