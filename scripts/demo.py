"""The main job, told once for real: two hospitals, three brokers, one enclave, one answer, its receipt, one attack refused."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.manifest import File, Manifest
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.storage import blob_name
from enclave_app.protocol.structs import Agreement, Outcome, TaskState
from enclave_app.protocol.wire import TaskBody
from oracle.agreement.document import AgreementDocument
from oracle.agreement.draft import Deployment, build_draft
from oracle.agreement.explain import Severity, explain
from oracle.agreement.sign import sign
from oracle.dataset.publish import publish_dataset
from oracle.dataset.seal import Sealed, seal
from oracle.dataset.share import share_dataset
from oracle.devnet import Devnet
from oracle.errors import OracleError, Permanent
from oracle.function.spec import FunctionSpec, pack_function
from oracle.receipt import Expected, Verdict, read_receipt_file, verify_receipt
from oracle.storage import open_storage
from oracle.task import Task
from oracle.worker.brokers import BrokerClient
from oracle.worker.enclave import Enclave

QUERY = """\
SELECT c.diagnosis,
       count(*)                                  AS cases,
       round(avg(c.mean_radius), 3)              AS mean_radius,
       round(avg(p.worst_concave_points), 4)     AS worst_concave_points,
       round(avg(p.worst_area / c.mean_area), 3) AS worst_to_mean_area
FROM clinic c JOIN pathology p ON c.patient = p.patient
WHERE c.mean_texture >= $smallest_texture
GROUP BY c.diagnosis
ORDER BY c.diagnosis
"""
PARAMS = {"smallest_texture": 12}
SPY = "SELECT patient, diagnosis, mean_radius, mean_area FROM clinic"
OWNERS = {"clinic": "hospital-a", "pathology": "hospital-b"}


class Story:
    """Prints what happens, for people; keeps the time of each step."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, key: str, title: str) -> Iterator[None]:
        self.console.print(f"\n[bold cyan]▸ {title}[/]")
        start = time.monotonic()
        yield
        self.seconds[key] = round(time.monotonic() - start, 3)

    def say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = Table(title=title, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(str(value) for value in row))
        self.console.print(table)


def hospitals() -> dict[str, pa.Table]:
    """569 real cases, split by column: each hospital has its own measurements of the same patients."""
    data = load_breast_cancer()
    columns = {name.replace(" ", "_"): data.data[:, index] for index, name in enumerate(data.feature_names)}
    patients = [f"case-{number:04d}" for number in range(len(data.target))]
    diagnosis = [str(data.target_names[target]) for target in data.target]
    clinic = {"patient": patients, "diagnosis": diagnosis}
    clinic |= {name: columns[name] for name in ("mean_radius", "mean_texture", "mean_area")}
    pathology = {"patient": patients}
    pathology |= {name: columns[name] for name in ("worst_concave_points", "worst_area", "worst_smoothness")}
    return {"clinic": pa.table(clinic), "pathology": pa.table(pathology)}


def plaintext_answer(tables: dict[str, pa.Table]) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        answer: pa.Table = connection.sql(QUERY, params=PARAMS).to_arrow_table()
        rows: list[dict[str, Any]] = answer.to_pylist()
        return rows


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    return len(found) == len(expected) and all(
        a.keys() == b.keys()
        and all(math.isclose(a[k], b[k], rel_tol=1e-9) if isinstance(b[k], float) else a[k] == b[k] for k in b)
        for a, b in zip(found, expected, strict=True)
    )


async def seal_and_publish(devnet: Devnet, home: Path, tables: dict[str, pa.Table], story: Story) -> dict[str, Sealed]:
    sealed = {}
    brokers = [broker.card.public_key() for broker in devnet.brokers]
    async with open_storage(devnet.storage) as storage:
        for name, table in tables.items():
            owner = devnet.accounts[OWNERS[name]]
            dataset = seal(table, home / name, password=owner.password_file.read_text, scrypt_n=1 << 14)
            shares = share_dataset(dataset.manifest, dataset.keys, devnet.chain, owner.wallet.address, brokers, 2)
            (dataset.directory / "shares.json").write_bytes(shares.canonical())
            await publish_dataset(dataset.manifest, dataset.blobs, storage, shares=shares, brokers=brokers)
            sealed[name] = dataset
            story.say(
                f"{owner.name} sealed [bold]{name}[/]: {table.num_rows} rows, {table.num_columns} columns, "
                f"a key for each; every key split 2 of {len(brokers)} among the brokers"
            )
    return sealed


async def agree(devnet: Devnet, home: Path, sealed: dict[str, Sealed], story: Story) -> AgreementDocument:
    spec = FunctionSpec(
        name="tumour-size-by-diagnosis",
        description="Tumour measurements of both hospitals' cases, by diagnosis",
        kind="sql",
        entry="query.sql",
        tables={
            "clinic": tuple(column.name for column in sealed["clinic"].manifest.columns),
            "pathology": ("patient", "worst_concave_points", "worst_area"),
        },
        params=[{"type": "integer", "name": "smallest_texture", "min": 0, "max": 40}],
        outputs=("result",),
    )
    bundle = pack_function(spec, QUERY, {name: s.manifest for name, s in sealed.items()})
    (home / "function.bundle").write_bytes(bundle.raw)
    async with open_storage(devnet.storage) as storage:
        await storage.put(bundle.raw)
        await storage.put(bundle.header.params.canonical())
    draft = build_draft(
        {
            "parties": {name: account.wallet.address for name, account in devnet.accounts.items()},
            "function": {
                "bundle": str(home / "function.bundle"),
                "owner": "institute",
                "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 100},
            },
            "data": [
                {
                    "name": name,
                    "owner": OWNERS[name],
                    "manifest": str(sealed[name].directory),
                    "shares": str(sealed[name].directory / "shares.json"),
                    "columns": [column.name for column in table.columns],
                }
                for name, table in ((table.name, table) for table in bundle.header.tables)
            ],
            "enclaves": {
                "measurements": ["0x" + devnet.measurement.hex()],
                "anchors": ["0x" + devnet.anchor.hex()],
                "statuses": ["UP_TO_DATE"],
                "evaluationFloor": 1,
                "maxEvidenceAge": "24 h",
                "hosts": ["operator"],
            },
            "brokers": {
                "threshold": 2,
                "confirmation": {"latest": 0},
                "list": [
                    {"key": "0x" + b.card.digest.hex(), "signer": b.card.signer, "url": b.url} for b in devnet.brokers
                ],
            },
            "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["institute"], "sizeClass": "4 KiB"}],
            "access": {"requesters": ["requester"], "quota": 10},
            "price": {"fee": "0.01 ether", "shares": {"hospital-a": "30 %", "hospital-b": "30 %"}},
            "validity": {"until": "30 days"},
        },
        base=home,
        now=int(time.time()) - 60,
        deployment=Deployment(devnet.chain, devnet.deployment.oracle, devnet.deployment.enclave_registry),
    )
    document = draft.document
    names = {account.wallet.address: name for name, account in devnet.accounts.items()}
    styles = {Severity.DANGER: "bold red", Severity.WARNING: "yellow", Severity.NOTICE: "bold"}
    for line in explain(document, bundle=bundle, manifests=draft.manifests, names=names):
        story.console.print(f"  [{styles.get(line.severity, 'default')}]· {line.topic}:[/] ", end="")
        story.console.print(line.text, markup=False)
    wallets = {account.wallet.address: account for account in devnet.accounts.values()}
    for party in document.agreement.parties():
        document = sign(document, wallets[party].wallet)
        story.say(f"signed by [bold]{names[party]}[/] ({party})")
    return document


def show_brokers(devnet: Devnet, task: Task, story: Story) -> None:
    rows = []
    for number, broker in enumerate(devnet.brokers, start=1):
        log = devnet.directory / "brokers" / str(number) / "log.jsonl"
        text = log.read_text() if log.exists() else ""
        released = sum(task.id.hex() in line for line in text.splitlines())
        rows.append(
            (f"broker {number}", broker.card.signer, "released, logged and signed" if released else "not needed")
        )
    story.table("Each broker checked for itself, before it logged and answered", ("", "signs as", "this task"), rows)
    story.say(
        "[dim]checked: the three signatures, the task at a confirmed block, suspension and quota, the enclave's quote under "
        "its root, its measurement, TCB status, keys, block hash and host, and the cap on releases[/]"
    )


def show_host_view(devnet: Devnet, sealed: dict[str, Sealed], story: Story) -> bool:
    """What the host holds: ciphertext. Returns whether a patient's name or a diagnosis is anywhere in it."""
    file = sealed["clinic"].manifest.files[0]
    blob = (devnet.directory / "storage" / blob_name(file.sha256)).read_bytes()
    middle = len(blob) // 2
    for offset in range(middle, middle + 48, 16):
        line = blob[offset : offset + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in line)
        story.console.print(f"  {offset:06x}  {line.hex(' ')}  {text}", markup=False, style="dim")
    seen = [p for p in devnet.directory.rglob("*") if p.is_file() and b"case-0001" in p.read_bytes()]
    story.say(
        "a search for a patient's number through every file that any of them wrote finds "
        + ("IT" if seen else "nothing")
    )
    return bool(seen)


async def swap_function(devnet: Devnet, document: AgreementDocument, task: Task, story: Story) -> bool:
    """The host tries to run its own query on the hospitals' data, in the genuine enclave."""
    agreement, record = task.agreement, await task.client.record(task.id)
    spec = FunctionSpec(
        name="spy", kind="sql", entry="q.sql", outputs=("result",), params=[],
        tables={"clinic": {"patient": "string", "diagnosis": "string", "mean_radius": "double", "mean_area": "double"}},
    )  # fmt: skip
    spy = pack_function(spec, SPY)
    async with open_storage(devnet.storage) as storage:
        await storage.put(spy.raw)
        await storage.put(spy.header.params.canonical())
    story.say("the host writes a query of its own, which lists every patient, and rewrites the agreement to name it;")
    story.say("the enclave is genuine, so its release requests are too. It carries them to the brokers:")
    async with Enclave(devnet.directory / "worker" / "enclave.sock") as enclave:
        body = TaskBody(
            chain=devnet.chain, agreement=agreement, request=task.request, payee=record.result.payee,
            anchor=record.result.anchor, storage=(devnet.storage,),
        )  # fmt: skip
        fn = agreement.fn.model_copy(update={"id": spy.id})
        false: Agreement = agreement.model_copy(
            update={"fn": fn, "data": agreement.data[:1], "param_domain": spy.header.params.id}
        )
        versions = task.request.versions[:1]
        update = {
            "agreement_id": devnet.chain.agreement_id(false),
            "versions": versions,
            "params": b"{}",
            "nonce": secrets.token_bytes(32),
        }
        request = task.request.model_copy(update=update)
        started = await enclave.start(body.model_copy(update={"agreement": false, "request": request}))
    client, refused = BrokerClient(devnet.client_config().brokers, timeout=10), 0
    try:
        async with open_storage(devnet.storage) as storage:
            manifest, shares = await storage.get(versions[0]), await storage.get(false.data[0].shares_digest)
        for number, release in enumerate(started.releases, start=1):
            question = ReleaseBody(
                chain=devnet.chain, agreement=false, signatures=document.ordered_signatures()[: len(false.parties())],
                request=request, manifests=(manifest,), share_lists=(shares,), release=release, evidence=record.evidence,
            )  # fmt: skip
            try:
                await client.release(release.request.broker, question.canonical())
            except Permanent as refusal:
                refused += 1
                story.console.print(
                    f"    broker {number}: {refusal.code}: {refusal.message}", markup=False, style="green"
                )
    finally:
        await client.close()
    return refused == len(devnet.brokers)


async def keep_receipt(task: Task, story: Story) -> Path:
    """The receipt as the worker wrote it, in a file that stays when all else of the demo is gone."""
    data = await task.fetch_receipt()
    with tempfile.NamedTemporaryFile(prefix="enclave-oracle-receipt-", suffix=".json", delete=False) as kept:
        kept.write(data)
    story.say(f"the worker left a receipt of {len(data)} bytes; it stays, in {kept.name}")
    return Path(kept.name)


def verify_kept(path: Path, agreement_id: bytes, story: Story) -> bool:
    """What `oracle receipt verify` does, given the agreement that was signed above."""
    found = verify_receipt(
        read_receipt_file(path), Expected(agreement_id=agreement_id), int(time.time()), allow_simulated=True
    )
    for link in found.links:
        story.console.print(f"    {'✓' if link.ok else '✗'} {link.name}: {link.detail}", markup=False, style="dim")
    good = found.verdict is Verdict.AUTHENTIC
    story.say(f"[bold]{found.verdict.value}[/]" + (", and [bold red]SIMULATED[/]" if found.simulated else ""))
    return good


async def digest_of_received(task: Task) -> bytes:
    """The output's digest made anew from the ciphertext in storage, not read from anywhere."""
    record = await task.client.record(task.id)
    manifest = parse(Manifest, record.outputs[0].manifest)
    ciphertext = await task.client.blob(manifest.files[0].sha256)
    file = File(sha256=sha256(ciphertext), size=len(ciphertext), rows=0)
    return manifest.model_copy(update={"files": (file,)}).id


async def run(home: Path, story: Story) -> dict[str, Any]:
    start = time.monotonic()
    tables = hospitals()
    story.console.print(
        "[bold]Two hospitals, one question:[/] do tumours differ by diagnosis, over measurements that neither may show?"
    )
    with story.step("devnet", "A chain, three key brokers (two needed), an enclave and its worker, on this machine"):
        opened = Devnet.open(home / "devnet")
        devnet = await opened.__aenter__()
        story.say("[bold red]SIMULATED:[/] the enclave is software, and its root was made a moment ago")
    try:
        with story.step("seal", "The hospitals encrypt their tables; nothing leaves them in the clear"):
            sealed = await seal_and_publish(devnet, home / "owners", tables, story)
        with story.step("agree", "Everyone reads the same agreement, and signs it"):
            document = await agree(devnet, home / "owners", sealed, story)
            async with devnet.client("institute") as institute:
                agreement_id, _ = await institute.activate(document.agreement, document.ordered_signatures())
            story.say(f"active on chain: agreement 0x{agreement_id.hex()}")
        async with devnet.client("requester") as requester:
            with story.step(
                "task", "The requester asks; brokers release to the enclave; the contract takes its result"
            ):
                task = await requester.request(agreement_id, PARAMS, requesters=document.requesters)
                story.say(f"requested: task 0x{task.id.hex()}")
                state = await task.wait(patience=60)
                settlement = await task.settlement()
                story.say(f"settled: {state.name.lower()}, signed by enclave {settlement.signer}")
                show_brokers(devnet, task, story)
            with story.step("host_view", "What the host could see"):
                leaked = show_host_view(devnet, sealed, story)
            with story.step("result", "The requester opens the result, with shares of two brokers"):
                table = await task.result()
                rows, expected = table.to_pylist(), plaintext_answer(tables)
                story.table("", table.column_names, [tuple(row.values()) for row in rows])
                equal = same(rows, expected)
                story.say(
                    "equal to the same query on the plaintext" if equal else "[red]NOT equal to the plaintext query[/]"
                )
                received = await digest_of_received(task)
            with story.step("receipt", "A stranger checks how that answer came about, offline, from one file"):
                receipt = await keep_receipt(task, story)
                verified = verify_kept(receipt, agreement_id, story)
            with story.step("attack", "An attack: the host swaps the function"):
                refused = await swap_function(devnet, document, task, story)
                story.say("[bold green]refused by all of them[/]" if refused else "[bold red]NOT REFUSED[/]")
    finally:
        await opened.__aexit__(None, None, None)
    story.seconds["total"] = round(time.monotonic() - start, 3)
    on_chain = settlement.result.outputs[0].digest if settlement.result.outcome == Outcome.SUCCEEDED else b""
    return {
        "settled": state is TaskState.FULFILLED,
        "task_id": "0x" + task.id.hex(),
        "agreement_id": "0x" + agreement_id.hex(),
        "output_digest": received.hex(),
        "onchain_output_digest": on_chain.hex(),
        "rows": rows,
        "expected_rows": expected,
        "receipt": str(receipt),
        "receipt_verified": verified,
        "attack_refused": refused,
        "plaintext_found_at_rest": leaked,
        "seconds": story.seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave everything in DIR, to look at")
    arguments = parser.parse_args()
    story = Story(quiet=arguments.json)
    with tempfile.TemporaryDirectory(prefix="enclave-oracle-demo-") as temporary:
        try:
            outcome = asyncio.run(run(arguments.keep or Path(temporary), story))
        except OracleError as error:
            print(f"demo: {error.code}: {error.message}", file=sys.stderr)
            return 1
    well = (
        outcome["settled"]
        and outcome["attack_refused"]
        and outcome["receipt_verified"]
        and not outcome["plaintext_found_at_rest"]
        and outcome["output_digest"] == outcome["onchain_output_digest"]
        and same(outcome["rows"], outcome["expected_rows"])
    )
    if arguments.json:
        print(json.dumps(outcome))
    else:
        story.console.print(
            f"\n[bold]{'All is well' if well else 'SOMETHING IS WRONG'}[/], in {outcome['seconds']['total']} s."
        )
        story.console.print(
            "Next: [bold].venv/bin/oracle devnet[/] keeps such a network running; [bold].venv/bin/oracle --help[/] has the "
            "commands of each step above; docs/architecture.md tells how it holds together."
        )
        story.console.print(
            f"Or check the receipt: [bold].venv/bin/oracle receipt verify {outcome['receipt']} "
            f"--agreement {outcome['agreement_id']} --allow-simulated[/]",
            soft_wrap=True,
        )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
