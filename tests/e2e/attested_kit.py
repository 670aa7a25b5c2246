"""A devnet with an SEV-SNP guest in it: the enclave program over a stand-in of configfs-tsm whose reports a minted chip signs,
and a verifier enclave that is registered by its own quote."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import cbor2
import yaml
from aiohttp import web

from enclave_app.attesters.certificates import ARK, ASK, VCEK
from enclave_app.config import EnclaveConfig
from enclave_app.protocol.canonical import dump
from enclave_app.protocol.wire import Identity
from oracle.devnet import Devnet
from oracle.devnet.processes import Process
from oracle.errors import Retryable
from oracle.worker.enclave import Enclave
from tests import attester_kit, nitro_kit
from tests.cli_kit import oracle
from tests.snp_kit import TCB, Authority, Chip

LEAST = {name: TCB[name] for name in ("bootloader", "tee", "snp", "microcode")}


def table(chip: Chip) -> bytes:
    """What an SNP host hands its guest."""
    found: dict[uuid.UUID, bytes] = {VCEK: chip.ek, ASK: chip.authority.ask, ARK: chip.authority.ark}
    return attester_kit.packed_table(found)


def guest_config(attester: Literal["snp", "nitro"] = "snp") -> bytes:
    return EnclaveConfig(attester=attester).canonical()


def nitro_module(of: Sequence[nitro_kit.Link], certificates: Sequence[bytes]) -> attester_kit.Answer:
    """A Nitro Secure Module whose documents the last of `of` signs."""

    def answer(request: bytes) -> bytes:
        asked = cbor2.loads(request)["Attestation"]
        # Each signed by a certificate that is a moment old, as the module's is.
        told = nitro_kit.content(certificates, **asked, timestamp=int(time.time() * 1000))
        return cbor2.dumps({"Attestation": {"document": nitro_kit.sign(cbor2.dumps(told), of[-1].key)}})

    return answer


def verifier_config(
    roots: Sequence[bytes], least: Mapping[str, int] | None = None, nitro: Sequence[bytes] = (), **snp: Any
) -> bytes:
    """In the role `verifier`, on a software platform. `roots` of SEV-SNP chips, `nitro` of Nitro's documents."""
    rule = {
        "roots": ["0x" + root.hex() for root in roots],
        "minTcb": {"milan": dict(least or LEAST), "genoa": None, "turin": None},
        "vmpl": [0],
        "keys": ["VCEK"],
        "crl": "skip",
        "aliasCheck": "require",
        **snp,
    }
    value = EnclaveConfig(attester="software").model_dump(mode="json", by_alias=True)
    documents = {"roots": ["0x" + root.hex() for root in nitro]} if nitro else None
    return dump({**value, "role": "verifier", "verifier": {"snp": rule if roots else None, "nitro": documents}})


@dataclass
class Party:
    """An enclave of this devnet, its socket, and the configuration its host registers it with."""

    socket: Path
    process: Process
    host: Path
    identity: Identity

    async def cli(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """`oracle …` with JSON: its status, and what it answered or was refused for."""
        ran = await asyncio.to_thread(oracle, *arguments, "--config", self.host, "--json")
        said = json.loads(ran.stdout)
        return ran.code, said.get("error", said)


@asynccontextmanager
async def party(
    devnet: Devnet, home: Path, config: bytes, platform: Path, attestation: Mapping[str, Any]
) -> AsyncIterator[Party]:
    """One more enclave beside the devnet's own, running."""
    home.mkdir(parents=True)  # noqa: ASYNC240
    (home / "enclave.json").write_bytes(config)
    # A Unix socket's path has at most 107 bytes.
    socket = Path(f"/tmp/attested-{uuid.uuid4().hex[:12]}.sock")  # noqa: S108
    command = ["--config", str(home / "enclave.json"), "--socket", str(socket), "--platform", str(platform)]
    process = Process("enclave", [sys.executable, "-m", "enclave_app", *command], home / "enclave.log")
    operator = devnet.accounts["operator"]
    key = {"keystore": str(operator.keystore), "passwordFile": str(operator.password_file)}
    host = {
        "rpc": [devnet.rpc_url],
        "deployment": str(devnet.directory / "deployment.json"),
        "enclave": {"socket": str(socket)},
        "wallet": key,
        "operator": key,
        "attestation": dict(attestation),
    }
    (home / "host.yaml").write_text(json.dumps(host))
    await process.start()
    try:
        yield Party(socket, process, home / "host.yaml", await _answers(socket, process))
    finally:
        await process.stop()
        socket.unlink(missing_ok=True)  # noqa: ASYNC240


@asynccontextmanager
async def worker(devnet: Devnet, home: Path, guest: Party, by: Path | str | None) -> AsyncIterator[Process]:
    """A worker for the guest, which registers it on the word of the verifier enclave at the socket or URL `by`; or leaves that
    to others."""
    home.mkdir()  # noqa: ASYNC240
    config = yaml.safe_load((devnet.directory / "worker" / "worker.yaml").read_text())
    host = yaml.safe_load(guest.host.read_text())
    config.update(host)
    config["journal"] = str(home / "journal.sqlite")
    config["attestation"] = None if by is None else {**host["attestation"], "vouchedBy": str(by)}
    (home / "worker.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "oracle", "worker", "run", "--config", str(home / "worker.yaml")]
    process = Process("worker", command, home / "worker.log")
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


@asynccontextmanager
async def published(socket: Path, asked: list[str]) -> AsyncIterator[str]:
    """The URL under which an operator's reverse proxy makes an enclave's socket reachable. `asked` are the paths asked for."""

    async def forward(request: web.Request) -> web.Response:
        asked.append(request.path)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            url = f"http://enclave{request.path.removeprefix('/snp')}"
            async with session.request(request.method, url, data=await request.read()) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    application = web.Application()
    application.router.add_route("*", "/snp/{path:.*}", forward)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/snp"
    finally:
        await runner.cleanup()


async def trust_root(devnet: Devnet, root: Path) -> None:
    """Every broker takes one root more: stop, configure, start."""
    for number, broker in enumerate(devnet.brokers, start=1):
        path = devnet.directory / "brokers" / f"{number}.yaml"
        config = yaml.safe_load(path.read_text())
        config["anchors"]["development"].append(str(root))
        path.write_text(json.dumps(config))
        await broker.process.stop()
        await broker.process.start()


def milan() -> Chip:
    return Authority().chip()


async def _answers(socket: Path, process: Process) -> Identity:
    async with Enclave(socket) as enclave:
        for _ in range(4800):
            assert process.running, process.tail()
            try:
                return await enclave.identity()
            except Retryable:
                await asyncio.sleep(0.05)
    raise AssertionError("the enclave does not answer")
