"""Starting the enclave: what is measured, what is refused, what it says about itself, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from enclave_app.identity import quoted_measurement
from enclave_app.protocol import signing
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import report_data
from enclave_app.protocol.structs import Enrolment, Outcome
from enclave_app.protocol.wire import EvidenceAnswer, EvidenceBody
from tests.enclave_kit import (
    MARKER,
    OWNER,
    REGISTRY,
    ROOT,
    Refusal,
    enclave,
    enclave_config,
    make_bundle,
    make_world,
    measured,
    seal,
)


def launch(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "enclave_app", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


HIDDEN = pa.table({"id": list(range(50)), "hidden": [f"{MARKER}-{i}" for i in range(50)]})


async def test_evidence_binds_keys_chain_registry_and_block(tmp_path: Path) -> None:
    async with enclave(tmp_path) as running:
        identity = await running.identity()
        assert identity.simulated
        assert identity.measurement == measured()
        body = EvidenceBody(chain_id=31337, registry=REGISTRY, block_hash=sha256(b"block"), operator=OWNER)
        answer = await running.ask("POST", "/v1/evidence", EvidenceAnswer, body)
        sealing = sha256(identity.sealing_key)
        bound = report_data(31337, REGISTRY, identity.signer, sealing, body.block_hash)
        assert answer.quote[48 + 320 : 48 + 384] == bound
        assert quoted_measurement(identity.tee, answer.quote) == identity.measurement
        enrolment = Enrolment(signer=identity.signer, sealing_key=sealing, block_hash=body.block_hash, operator=OWNER)
        domain = Domain(chain_id=31337, verifying_contract=REGISTRY)
        signing.check(enrolment.typed_digest(domain), answer.proof_of_possession, identity.signer, "an enrolment")


async def test_each_boot_is_a_new_identity(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        async with enclave(tmp_path) as running:
            found.append(await running.identity())
    # R1: nothing of the keys outlives the process; the program is the same.
    assert found[0].signer != found[1].signer
    assert found[0].sealing_key != found[1].sealing_key
    assert found[0].measurement == found[1].measurement


def test_the_measurement_is_known_before_any_launch(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(enclave_config(max_tasks=7))
    found = [
        subprocess.run(
            [sys.executable, "-m", "enclave_app.measure", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for arguments in ([], ["--config", str(tmp_path / "c.json")])
    ]
    assert found == ["0x" + measured().hex(), "0x" + measured(enclave_config(max_tasks=7)).hex()]


async def test_another_configuration_is_another_measurement(tmp_path: Path) -> None:
    config = enclave_config(max_tasks=7)
    async with enclave(tmp_path, config=config) as running:
        assert (await running.identity()).measurement == measured(config) != measured()


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    from enclave_app.attesters.platform import make_platforms

    (tmp_path / "c.json").write_bytes(enclave_config())
    (tmp_path / "s").write_text("something of the host's")
    make_platforms(tmp_path / "platform", now=1_700_000_000, days=3650)
    found = launch(
        *("--config", str(tmp_path / "c.json"), "--socket", str(tmp_path / "s")),
        *("--platform", str(tmp_path / "platform")),
    )
    assert found.returncode == 1
    assert (tmp_path / "s").read_text() == "something of the host's"


async def test_the_socket_is_the_owners_and_the_process_cannot_be_dumped(tmp_path: Path) -> None:
    async with enclave(tmp_path) as running:
        assert os.stat(running.socket).st_mode & 0o777 == 0o600  # noqa: PTH116
        limits = process_file(running.process.pid, "limits")
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert running.process.returncode == 0
    assert not running.socket.exists()


def process_file(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def files_holding(directory: Path, needle: bytes) -> tuple[list[Path], int]:
    """The files under `directory` that hold `needle`, and how many there are."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if needle in path.read_bytes()], len(files)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "status"),
    [
        ("POST", "/v1/tasks", b"not json", "json.syntax", 400),
        ("POST", "/v1/tasks", b'{"a":1.5}', "json.float", 400),
        ("POST", "/v1/tasks", b"{}", "document.invalid", 400),
        ("POST", "/v1/tasks", b"[" * 100_000, "json.depth", 400),
        ("POST", "/v1/evidence", b"{}", "document.invalid", 400),
        ("POST", "/v1/tasks/0x12/run", b'{"answers":[]}', "digest.length", 400),
        ("POST", "/v1/tasks/" + "00" * 32 + "/run", b'{"answers":[]}', "task.unknown", 404),
        ("GET", "/v1/tasks/" + "00" * 32 + "/files/" + "00" * 32, None, "task.unknown", 404),
        ("GET", "/v1/nothing", None, "http.404", 404),
        ("PUT", "/v1/tasks", b"{}", "http.405", 405),
    ],
)
async def test_bad_messages_get_a_typed_error(
    tmp_path: Path, method: str, path: str, body: bytes | None, code: str, status: int
) -> None:
    async with enclave(tmp_path) as running:
        with pytest.raises(Refusal) as caught:
            await running.call(method, path, body)
    assert (caught.value.code, caught.value.status) == (code, status)


async def test_tasks_are_bounded_by_number(tmp_path: Path) -> None:
    config = enclave_config(max_tasks=2)
    world = make_world(tmp_path / "storage", measured(config))
    async with enclave(tmp_path / "enclave", config=config) as running:
        started = [await running.start(world.body()) for _ in range(3)]
        with pytest.raises(Refusal) as caught:
            await running.run(started[0].task_id, [])
        assert caught.value.code == "task.unknown"
        with pytest.raises(Refusal) as caught:
            await running.run(started[1].task_id, [])
        assert caught.value.code == "release.too_few"


async def test_an_enclave_without_its_sandbox_stops(tmp_path: Path) -> None:
    async with enclave(tmp_path) as running:
        pid = running.process.pid
        children = process_file(pid, f"task/{pid}/children").split()
        os.kill(int(children[0]), 9)
        assert await asyncio.wait_for(running.process.wait(), 10) == 1
    assert running.logged()[-1]["event"] == "enclave.failed"


async def test_no_plaintext_is_left_in_any_file_log_or_error(tmp_path: Path) -> None:
    """The marker is in the data, in a column the function reads and gives out; all that the host keeps is searched."""
    world = make_world(tmp_path / "storage", measured())
    bundle = make_bundle(
        "SELECT hidden, count(*) AS n FROM a GROUP BY hidden", [("a", HIDDEN.schema)], world.domain.params
    )
    world.put(bundle.raw)
    dataset = seal("a", HIDDEN, world.brokers, world.put)
    world.datasets = [dataset]
    term = world.agreement.data[0].model_copy(
        update={"id_or_stream": dataset.manifest.id, "shares_digest": dataset.shares.id, "columns": ("id", "hidden")}
    )
    fn = world.agreement.fn.model_copy(update={"id": bundle.id})
    agreement = world.changed(data=(term,), fn=fn)
    errors = []
    async with enclave(tmp_path / "enclave") as running:
        body = world.body(agreement)
        started = await running.start(body)
        for answers in ([], world.answers(body, started, await running.identity(), (0,))):
            with pytest.raises(Refusal) as caught:
                await running.run(started.task_id, answers)
            errors.append(str(caught.value))
        done = await running.run(started.task_id, world.answers(body, started, await running.identity()))
        ciphertext = await running.file(done)
        world.put(ciphertext)
        assert done.result.outcome == Outcome.SUCCEEDED
        rows = world.open(body, done, ciphertext).to_pylist()
        assert all(row["hidden"].startswith(MARKER) for row in rows)
    needle = MARKER.encode()
    found, searched = files_holding(tmp_path, needle)
    assert searched > 10
    assert found == []
    assert needle not in repr((done, errors)).encode()
