"""An agreement over given tables in one call, for tests, benchmarks and first steps on a devnet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.structs import Agreement
from oracle.agreement.document import AgreementDocument, write_document
from oracle.agreement.draft import Deployment as DraftDeployment
from oracle.agreement.draft import build_draft
from oracle.agreement.sign import sign
from oracle.dataset.publish import publish_dataset
from oracle.dataset.seal import seal
from oracle.dataset.share import share_dataset
from oracle.devnet.network import Devnet
from oracle.function.inspect import publish_function
from oracle.function.spec import FunctionSpec, pack_directory, pack_function
from oracle.passwords import password_file
from oracle.storage import open_storage
from oracle.yamlfile import read_yaml

STATISTIC_BUNDLE = "statistic.bundle"


@dataclass(frozen=True)
class OwnedTable:
    """A table and who owns it; `columns` are the ones released, all where it says nothing."""

    owner: str
    table: pa.Table
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A signed agreement that is not active yet, and where its parts lie."""

    document: AgreementDocument
    manifests: dict[str, Manifest]

    @property
    def agreement(self) -> Agreement:
        return self.document.agreement


async def prepare(
    devnet: Devnet,
    directory: Path,
    tables: Mapping[str, OwnedTable],
    query: str,
    *,
    function_owner: str = "institute",
    threshold: int = 2,
    params: Sequence[Mapping[str, Any]] = (),
    changes: Mapping[str, Any] | None = None,
) -> Prepared:
    """Seal, share and publish every table, pack the query, draft the agreement and sign it as every party.

    `changes` are laid over the draft's top level. The owners' key files go into `directory`.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    cards = [broker.card for broker in devnet.brokers]
    data, manifests = [], {}
    async with open_storage(devnet.storage) as storage:
        for name, owned in tables.items():
            owner = devnet.accounts[owned.owner]
            sealed = seal(owned.table, directory / name, password=owner.password_file.read_text, scrypt_n=1 << 12)
            brokers = [card.public_key() for card in cards]
            shares = share_dataset(sealed.manifest, sealed.keys, devnet.chain, owner.wallet.address, brokers, threshold)
            await publish_dataset(sealed.manifest, sealed.blobs, storage, shares=shares, brokers=brokers)
            (sealed.directory / "shares.json").write_bytes(shares.canonical())
            manifests[name] = sealed.manifest
            data.append(
                {
                    "name": name,
                    "owner": owned.owner,
                    "manifest": str(sealed.directory),
                    "shares": str(sealed.directory / "shares.json"),
                    "columns": list(owned.columns) or "all",
                }
            )
        bundle = pack_function(_spec(tables, manifests, params), query, manifests)
        (directory / "function.bundle").write_bytes(bundle.raw)
        await storage.put(bundle.raw)
        await storage.put(bundle.header.params.canonical())
    draft = build_draft(
        {
            "parties": {name: account.wallet.address for name, account in devnet.accounts.items()},
            "function": {
                "bundle": str(directory / "function.bundle"),
                "owner": function_owner,
                "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 10_000},
            },
            "data": data,
            "enclaves": {
                "measurements": ["0x" + devnet.measurement.hex()],
                "anchors": ["0x" + devnet.anchor.hex()],
                "statuses": ["UP_TO_DATE"],
                "evaluationFloor": 1,
                "maxEvidenceAge": "24 h",
                "hosts": ["operator"],
            },
            "brokers": {
                "threshold": threshold,
                "confirmation": {"latest": 0},
                "maxReleases": 100,
                "list": [
                    {"key": "0x" + b.card.digest.hex(), "signer": b.card.signer, "url": b.url} for b in devnet.brokers
                ],
            },
            "outputs": [
                {"name": "result", "recipients": ["requester"], "owners": [function_owner], "sizeClass": "4 KiB"}
            ],
            "access": {"requesters": "anyone", "quota": 1_000_000},
            "price": "free",
            "validity": {"until": "30 days"},
            "storage": [devnet.storage],
            **(changes or {}),
        },
        base=directory,
        now=int(time.time()) - 60,
        deployment=_deployed(devnet),
    )
    return Prepared(_sign_all(devnet, draft.document), manifests)


async def activate(devnet: Devnet, prepared: Prepared, account: str = "institute") -> bytes:
    """Send the signatures to the chain; returns the agreement id."""
    async with devnet.client(account) as client:
        agreement_id, _ = await client.activate(prepared.agreement, prepared.document.ordered_signatures())
    return agreement_id


async def activate_example(devnet: Devnet) -> None:
    """Play the people of the devnet's example, up to active agreements that anyone may ask under.

    Its folder then holds what their commands would have left there, and three files: `agreement.json`; `cancellable.json`,
    under which a request can be cancelled for 20 blocks, and is not computed before that; and `public.json`, whose answer is
    one number that everybody reads.
    """
    base = devnet.directory / "example"
    cards = [broker.card.public_key() for broker in devnet.brokers]
    draft = read_yaml(base / "draft.yaml")
    async with open_storage(devnet.storage) as storage:
        for part in draft["data"]:
            name, owner = part["name"], devnet.accounts[part["owner"]]
            keys, password = base / f"{name}.keys", password_file(owner.password_file)
            sealed = seal(base / f"{name}.csv", base / name, password=password, keys_path=keys, scrypt_n=1 << 12)
            threshold = draft["brokers"]["threshold"]
            shares = share_dataset(sealed.manifest, sealed.keys, devnet.chain, owner.wallet.address, cards, threshold)
            (base / part["shares"]).write_bytes(shares.canonical())
            await publish_dataset(sealed.manifest, sealed.blobs, storage, shares=shares, brokers=cards)
        for folder, file in ((base, draft["function"]["bundle"]), (base / "statistic", STATISTIC_BUNDLE)):
            bundle = pack_directory(folder)
            (base / file).write_bytes(bundle.raw)
            await publish_function(bundle, storage)
    draft["access"] = {"requesters": "anyone", "quota": 1_000}
    cancellable = {**draft, "brokers": {**draft["brokers"], "releaseDelay": 20}}
    public = {
        **draft,
        "function": {**draft["function"], "bundle": STATISTIC_BUNDLE},
        # R9: what was told to everybody cannot be taken back.
        "brokers": {**draft["brokers"], "confirmation": "finalized"},
        "outputs": [{"name": "statistic", "recipients": "public", "owners": ["institute"]}],
    }
    for name, terms in (("agreement", draft), ("cancellable", cancellable), ("public", public)):
        document = build_draft(terms, base=base, now=int(time.time()) - 60, deployment=_deployed(devnet)).document
        document = _sign_all(devnet, document)
        write_document(base / f"{name}.json", document)
        await activate(devnet, Prepared(document, {}))


def _deployed(devnet: Devnet) -> DraftDeployment:
    return DraftDeployment(devnet.chain, devnet.deployment.oracle, devnet.deployment.enclave_registry)


def _sign_all(devnet: Devnet, document: AgreementDocument) -> AgreementDocument:
    wallets = {account.wallet.address: account.wallet for account in devnet.accounts.values()}
    for party in document.agreement.parties():
        document = sign(document, wallets[party])
    return document


def _spec(
    tables: Mapping[str, OwnedTable], manifests: Mapping[str, Manifest], params: Sequence[Mapping[str, Any]]
) -> FunctionSpec:
    return FunctionSpec(
        name="query",
        description="Made by a devnet scenario.",
        kind="sql",
        entry="query.sql",
        tables={n: t.columns or tuple(c.name for c in manifests[n].columns) for n, t in tables.items()},
        params=[dict(param) for param in params],
        outputs=("result",),
    )
