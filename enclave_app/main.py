"""Start the enclave. The order is the point: the sandbox's zygote first, while there is no key to inherit (R6), then
the keys, new at each start and in memory only (R1), then the socket. A verifier runs nobody's code and has no sandbox."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from enclave_app.attesters.base import AttesterError
from enclave_app.config import EnclaveConfig, VerifierPolicy, read_config
from enclave_app.logs import Log
from enclave_app.protocol.errors import OracleError, Refused
from enclave_app.sandbox.host import Sandbox
from enclave_app.sandbox.lockdown import forbid_dumps, load_libc
from enclave_app.sandbox.zygote import Jobs

if TYPE_CHECKING:
    from aiohttp import web

    from enclave_app.identity import EnclaveIdentity

_PRIVATE: Final = 0o177


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's life, from `launch` on; returns its exit status. Unknown arguments are refused (R3)."""
    log = Log()
    forbid_dumps(load_libc())
    try:
        options = _arguments(arguments)
        raw = Path(options.config).read_bytes()
        config = read_config(raw)
        if config.verifier is not None:
            return asyncio.run(_serve_verifier(options, raw, config, config.verifier, log))
        sandbox = Sandbox.fork(_warm)
        try:
            return asyncio.run(_serve_tasks(options, raw, config, sandbox, log))
        finally:
            sandbox.close()
    except OracleError as error:
        log("enclave.refused", code=error.code, message=error.message)
    except (AttesterError, OSError) as error:
        log("enclave.refused", code="enclave.start", message=str(error))
    return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused("enclave.arguments", message)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m enclave_app", allow_abbrev=False, description=__doc__)
    parser.add_argument("--config", required=True, help="canonical JSON; its digest is measured")
    parser.add_argument("--socket", required=True, type=Path, help="Unix socket to serve")
    # Where the stand-in for the hardware is, not what runs: like hardware, it is outside of every measurement.
    parser.add_argument("--platform", type=Path, help="what stands in for the hardware: a directory")
    return parser.parse_args(arguments)


def _warm() -> Jobs:
    from enclave_app.sandbox.jobs import warm

    return warm()


async def _serve_tasks(
    options: argparse.Namespace, raw: bytes, config: EnclaveConfig, sandbox: Sandbox, log: Log
) -> int:
    # Imported while the zygote warms up, and after the fork, so that no child carries a web server.
    import aiohttp

    from enclave_app.attesters.factory import attester_from_config
    from enclave_app.execution import Executor
    from enclave_app.fetch import Storage
    from enclave_app.identity import EnclaveIdentity
    from enclave_app.server import task_routes
    from enclave_app.tasks import Tasks

    attester = attester_from_config(config.attester, platform_dir=options.platform, launch_config=raw)
    await asyncio.to_thread(sandbox.ready)
    stop = asyncio.Event()
    failed: list[str] = []

    def sandbox_ended() -> None:
        failed.append("the sandbox ended")
        stop.set()

    sandbox.attach(sandbox_ended)
    identity = await EnclaveIdentity.create(attester, sandbox.features)
    timeout = aiohttp.ClientTimeout(total=config.fetch_seconds)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        storage = Storage(session, config.storage_schemes, log)
        tasks = Tasks(identity, storage, Executor(sandbox, storage, config), config, log)
        await _listen(options.socket, identity, task_routes(tasks), stop, log)
    for reason in failed:
        log("enclave.failed", message=reason)
    return 1 if failed else 0


async def _serve_verifier(
    options: argparse.Namespace, raw: bytes, config: EnclaveConfig, policy: VerifierPolicy, log: Log
) -> int:
    """No sandbox, no storage, no task: nothing but the policy and the keys."""
    from enclave_app.attesters.factory import attester_from_config
    from enclave_app.identity import EnclaveIdentity
    from enclave_app.server import verifier_routes
    from enclave_app.verifier import Verifier

    attester = attester_from_config(config.attester, platform_dir=options.platform, launch_config=raw)
    identity = await EnclaveIdentity.create(attester, ())
    await _listen(options.socket, identity, verifier_routes(Verifier(identity, policy, log)), asyncio.Event(), log)
    return 0


async def _listen(
    path: Path, identity: EnclaveIdentity, routes: Sequence[web.RouteDef], stop: asyncio.Event, log: Log
) -> None:
    """Serve until a signal, or until `stop` is set."""
    from aiohttp import web

    from enclave_app.server import make_app

    runner = web.AppRunner(make_app(identity, routes, log), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        _remove_socket(path)
        mask = os.umask(_PRIVATE)
        try:
            await web.UnixSite(runner, str(path)).start()
        finally:
            os.umask(mask)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        described = identity.describe()
        log(
            "enclave.ready",
            signer=described.signer,
            measurement=described.measurement,
            simulated=described.simulated,
            sandbox=described.sandbox,
        )
        await stop.wait()
    finally:
        await runner.cleanup()
        _remove_socket(path)


def _remove_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused("enclave.socket", "something that is not a socket lies where the socket should be", found=path)
    path.unlink()
