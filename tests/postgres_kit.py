"""A PostgreSQL server of the tests' own: in a new directory, on a free port of this machine, as a user without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from oracle.worker.database import Server
from tests.anvil_kit import free_port

PASSWORD = "not-to-be-seen"
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


def programs() -> Path | None:
    """Where the server's programs are; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else None if on_path is None else Path(on_path).parent


class PostgresServer:
    def __init__(self, bin_directory: Path, directory: Path) -> None:
        self._bin, self._data, self.port = bin_directory, directory / "data", free_port()
        self._account: str | None = None
        if os.geteuid() == 0:
            # The server refuses to run as root.
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._account = "postgres" if "postgres" in names else "nobody"
            shutil.chown(directory, self._account)
        secret = directory / "password"
        secret.write_text(PASSWORD + "\n", "utf-8")
        if self._account is not None:
            shutil.chown(secret, self._account)
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", "oracle", "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def place(self, name: str | None = None) -> Server:
        """A journal of its own on this server, unless `name` says which."""
        url = f"postgresql://oracle:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        return Server(url=SecretStr(url), name=name or "t" + uuid.uuid4().hex[:12])

    def start(self) -> None:
        with (self._data.parent / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port),
                    "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "shared_buffers=16MB",
                    "-c", "max_connections=30",
                ],
                user=self._account, cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._data.parent / "log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, SIGQUIT as a crash does."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def _answers(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False, timeout=10).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._account,
            cwd="/",
            check=False,
            capture_output=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode("utf-8", "replace")[-2000:])


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Skips loudly where the machine has no server and none could be installed; fails in CI."""
    found = programs()
    if found is None:
        why = "PostgreSQL is not installed (Debian: apt-get install postgresql); its journal is NOT tested"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    # Under /tmp: pytest's own directories are closed to the server's user.
    with tempfile.TemporaryDirectory(prefix="oracle-postgres-") as directory:
        server = PostgresServer(found, Path(directory))
        try:
            yield server
        finally:
            server.stop()
