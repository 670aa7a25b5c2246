"""Lies about what runs: another function, runtime or limits, another enclave (R3, R7).

Told to a running enclave, to a broker on a chain, to the contracts, and to an owner's command line.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import pytest_asyncio

from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.structs import Agreement, FunctionKind, Outcome
from enclave_app.protocol.wire import TaskBody
from oracle.agreement.document import AgreementDocument, write_document
from oracle.errors import Permanent
from oracle.keybroker import KeyBroker
from oracle.keys import create_wallet
from tests import broker_fixtures as fixtures
from tests import broker_kit, enclave_kit
from tests.adversary.lies import Footprint, Refused, lie, seen
from tests.broker_kit import Scene, released_by
from tests.cli_kit import CHEAP, answer, refusal
from tests.enclave_kit import CHAIN, MARKER, SQL, RunningEnclave, World, make_bundle, measured

pytestmark = pytest.mark.asyncio(loop_scope="module")


def told(what: str, rules: str, reason: str, change: Callable[..., Any]) -> Any:
    return pytest.param(change, marks=lie("code", what, rules, reason), id=what)


def function(agreement: Agreement, **changes: Any) -> Agreement:
    return agreement.model_copy(update={"fn": agreement.fn.model_copy(update=changes)})


def limits(agreement: Agreement, **changes: Any) -> Agreement:
    return function(agreement, limits=agreement.fn.limits.model_copy(update=changes))


def enclaves(agreement: Agreement, **changes: Any) -> Agreement:
    return agreement.model_copy(update={"tee": agreement.tee.model_copy(update=changes)})


# At the enclave


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    """An enclave that runs what was agreed."""
    async with enclave_kit.enclave(tmp_path_factory.mktemp("enclave")) as found:
        honest = enclave_kit.make_world(tmp_path_factory.mktemp("honest"), measured())
        assert (await found.whole(honest, honest.body())).result.outcome == Outcome.SUCCEEDED
        yield found


@pytest.fixture
def agreed(tmp_path: Path) -> World:
    return enclave_kit.make_world(tmp_path / "storage", measured())


def signed_text(change: Callable[[Agreement], Agreement]) -> Callable[[World], TaskBody]:
    """The host's own text of the agreement, under the id of the one that was signed."""
    return lambda world: world.body(change(world.agreement), agreement_id=CHAIN.agreement_id(world.agreement))


def agreed_bundle(
    sql: str = SQL,
    table: str = "b",
    columns: tuple[tuple[str, pa.DataType], ...] = (("y", pa.float64()),),
    **header: Any,
) -> Callable[[World], TaskBody]:
    """A function whose author had another bundle agreed than its terms say."""

    def change(world: World) -> TaskBody:
        bundle = make_bundle(sql, [(table, pa.schema(columns))], world.domain.params, **header)
        return world.body(function(world.agreement, id=world.put(bundle.raw)))

    return change


def swapped_bundle(world: World) -> TaskBody:
    world.path(world.bundle.id).write_bytes(make_bundle(SQL + "--", [], []).raw)
    return world.body()


@pytest.mark.parametrize(
    "change",
    [
        told("another function under the agreed one's name", "R3 R17b", "blob.digest", swapped_bundle),
        told(
            "a text of the agreement with a function of its own",
            "R7",
            "task.agreement",
            signed_text(lambda a: function(a, id=secrets.token_bytes(32))),
        ),
        told(
            "a text of the agreement with wider limits",
            "R7",
            "task.agreement",
            signed_text(lambda a: limits(a, output_rows=10_001)),
        ),
        told(
            "a text of the agreement with one more measurement",
            "R3 R7",
            "task.agreement",
            signed_text(lambda a: enclaves(a, measurements=(*a.tee.measurements, bytes([1]) * 32))),
        ),
        told(
            "an agreement for another enclave program",
            "R3",
            "task.measurement",
            lambda world: world.body(enclaves(world.agreement, measurements=(bytes([1]) * 32,))),
        ),
        told(
            "an agreement on a runtime that is not there",
            "R21",
            "agreement.not_yet",
            lambda world: world.body(function(world.agreement, kind=FunctionKind.PYTHON)),
        ),
        told(
            "an agreement on a function that gives what it likes",
            "R16",
            "agreement.not_yet",
            lambda world: world.body(function(world.agreement, deterministic=False)),
        ),
        told(
            "limits above the enclave's own",
            "R3",
            "task.limits",
            lambda world: world.body(limits(world.agreement, memory_mib=1 << 20)),
        ),
        told("a function for another runtime than agreed", "R7", "task.function", agreed_bundle(kind="python")),
        told("a function that is not deterministic, as agreed", "R16", "task.function", agreed_bundle(deterministic=False)),
        told(
            "a function that reads a column that is not released",
            "R7",
            "task.column",
            agreed_bundle("SELECT secret FROM a", "a", (("secret", pa.string()),)),
        ),
        told("a function that reads a table that is not agreed", "R7", "task.table", agreed_bundle(table="c")),
        told("a function that takes a column for another type", "R7", "task.type", agreed_bundle(columns=(("y", pa.int64()),))),
        told("a function that makes another output than agreed", "R7", "task.outputs", agreed_bundle(outputs=("other",))),
    ],
)  # fmt: skip
async def test_the_enclave_runs_what_was_agreed(
    running: RunningEnclave, agreed: World, refused: Refused, change: Callable[[World], TaskBody]
) -> None:
    refused.watch(running.footprint)
    refused.keep(MARKER)
    body = change(agreed)
    async with refused():
        await running.whole(agreed, body)


# At a broker and the contracts


broker, scene, valid, world = fixtures.module_broker, fixtures.module_scene, fixtures.module_valid, fixtures.world


def retold(scene: Scene, body: ReleaseBody, agreement: Agreement) -> ReleaseBody:
    """The host's text of an agreement, and all that follows from it: ids, request and the enclave's question."""
    request = body.request.model_copy(update={"agreement_id": body.chain.agreement_id(agreement)})
    changes = {"agreement": agreement, "request": request, "release": scene.ask(agreement, request)}
    return body.model_copy(update=changes)


@pytest.mark.parametrize(
    "change",
    [
        told(
            "a broker the agreement with a function of its own",
            "R7 R13",
            "request.agreement",
            lambda _, body: body.model_copy(update={"agreement": function(body.agreement, id=bytes([1]) * 32)}),
        ),
        told(
            "a broker a whole story about a function of its own",
            "R7 R13",
            "consent.missing",
            lambda scene, body: retold(scene, body, function(body.agreement, id=bytes([1]) * 32)),
        ),
        told(
            "a broker a whole story about wider limits",
            "R7 R13",
            "consent.missing",
            lambda scene, body: retold(scene, body, limits(body.agreement, memory_mib=1024)),
        ),
    ],
)
async def test_a_broker_releases_for_what_was_signed(
    scene: Scene, broker: KeyBroker, valid: ReleaseBody, tmp_path: Path, refused: Refused, change: Any
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(change(scene, valid))


@pytest.mark.parametrize(
    "program",
    [
        told(
            "a registered enclave of another program",
            "R3 R13",
            "evidence.measurement_not_listed",
            lambda agreed: SoftwareEnclave(secrets.token_bytes(32), agreed.launch_config),
        ),
        told(
            "a registered enclave of the program under another configuration",
            "R3 R13",
            "evidence.measurement_not_listed",
            lambda agreed: SoftwareEnclave(agreed.mrenclave, b"{}\n"),
        ),
    ],
)
async def test_a_broker_releases_to_the_agreed_program(
    scene: Scene,
    broker: KeyBroker,
    valid: ReleaseBody,
    tmp_path: Path,
    refused: Refused,
    program: Callable[[SoftwareEnclave], SoftwareEnclave],
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    other = broker_kit.Enclave(SoftwareAttester(scene.world.platform, program(scene.world.program)))
    body = await scene.body(enclave=other)
    await scene.register(body.evidence, other)
    async with refused():
        await broker.releases.release(body)


@lie("code", "the contract a request under wider limits than were signed", "R7", "AgreementRegistry_NotActive")
async def test_the_contract_takes_requests_for_what_was_signed(scene: Scene, refused: Refused) -> None:
    agreement = scene.agreement()
    await scene.activate(agreement)
    await scene.request(agreement)
    refused.watch(balance(scene))
    async with refused():
        await scene.request(limits(agreement, memory_mib=1024))


def balance(scene: Scene) -> Footprint:
    """What the oracle holds in escrow."""

    async def footprint() -> object:
        return await scene.rpc.call("eth_getBalance", scene.world.deployment.oracle, "latest")

    return footprint


# At an owner's command line


@lie("code", "an owner another function to read than the agreement names", "R7 R17b", "bundle.digest")
async def test_an_owner_signs_for_the_function_that_it_read(agreed: World, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "pw").write_text("correct horse\n")
    owner = create_wallet(tmp_path / "owner", lambda: "correct horse", n=CHEAP)
    file, bundle = tmp_path / "agreement.json", tmp_path / "function.eofb"
    write_document(file, AgreementDocument(chain=CHAIN, agreement=function(agreed.agreement, owner=owner)))
    keys = ("--keystore", tmp_path / "owner", "--password-file", tmp_path / "pw")
    command = ("agreement", "sign", file, "--function", bundle, *keys, "--yes")
    bundle.write_bytes(agreed.bundle.raw)
    signed = tmp_path / "signed.json"
    assert answer(*command, "--out", signed)["signed"] == [owner]
    bundle.write_bytes(make_bundle("SELECT 1 AS n FROM a", [], []).raw)
    refused.watch(seen(file.read_bytes))
    async with refused():
        error = refusal(*command)
        raise Permanent(error["code"], error["message"])
