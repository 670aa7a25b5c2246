"""A broker that lies: it holds a real broker's keys, signs and seals as it should, and hands out wrong shares."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.release import MAX_BODY, ReleaseAnswer, ReleaseBody, answer_info, pack_answer
from enclave_app.protocol.shares import DatasetBinding, key_ids_digest, open_shares, read_share_list
from enclave_app.protocol.structs import ReleaseStatement
from oracle.keybroker.keys import BrokerKeys, load


@asynccontextmanager
async def lying_broker(directory: Path, password: str, url: str) -> AsyncIterator[list[bytes]]:
    """Serve at `url` until the context ends; yields the list of task ids that it lied about."""
    keys, lied = load(directory, password), []

    async def release(request: web.Request) -> web.Response:
        body = parse(ReleaseBody, await request.read(), limit=MAX_BODY, canonical=False)
        lied.append(body.release.request.task_id)
        return web.Response(body=_wrong_answer(body, keys).canonical(), content_type="application/json")

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/v1/release", release)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", urlsplit(url).port).start()
        yield lied
    finally:
        await runner.cleanup()


def _wrong_answer(body: ReleaseBody, keys: BrokerKeys) -> ReleaseAnswer:
    chain, agreement, asked = body.chain, body.agreement, body.release.request
    shares: dict[tuple[int, int], bytes] = {}
    x = 0
    for index, data in enumerate(agreement.data):
        manifest = read_manifest(body.manifests[index], data.id_or_stream)
        listed = read_share_list(body.share_lists[index], manifest.id, data.shares_digest)
        binding = DatasetBinding(
            chain_id=chain.chain_id, registry=chain.agreement_registry, owner=data.owner, dataset=manifest.id
        )
        x, opened = open_shares(listed, keys.sealing, binding)
        for key in manifest.key_indexes(data.columns):
            shares[index, key] = bytes([opened[key][0] ^ 1]) + opened[key][1:]
    datasets = [data.id_or_stream for data in agreement.data]
    signer = body.evidence.signer
    sealed = PublicKey(body.evidence.sealing_key).seal(
        pack_answer(x, shares), answer_info(chain, agreement, asked, datasets, signer)
    )
    statement = ReleaseStatement(
        agreement_id=asked.agreement_id,
        task_id=asked.task_id,
        signer=signer,
        nonce=asked.nonce,
        broker=asked.broker,
        keys=key_ids_digest(sorted(shares)),
        answer=sha256(sealed),
        collateral=bytes(32),
        time=int(time.time()),
        block_number=0,
        block_hash=bytes(32),
    )
    signature = keys.signing.sign(statement.typed_digest(chain.oracle_domain(agreement)))
    return ReleaseAnswer(statement=statement, signature=signature, sealed=sealed)
