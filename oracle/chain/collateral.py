"""Bringing Intel's collateral to a DcapCollateral store: what it lacks, and posting that. Anyone may."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from enclave_app.protocol.structs import Confirmation
from oracle.attestation.onchain.collateral import Post
from oracle.chain.abi import load
from oracle.chain.sender import Sender
from oracle.chain.source import Block, Call, Source
from oracle.errors import Permanent, Reverted

STORE = "DcapCollateral"


async def missing(source: Source, store: str, posts: Sequence[Post], at: Block) -> tuple[Post, ...]:
    """Those that the store does not have at `at`, or has an older issue of."""
    contract = load(STORE)
    answers = await source.calls([Call(store, contract.call(post.view, *post.key)) for post in posts], at)
    found = [contract.result(post.view, answer) for post, answer in zip(posts, answers, strict=True)]
    return tuple(post for post, kept in zip(posts, found, strict=True) if post.is_needed(kept))


async def post_missing(
    sender: Sender, source: Source, store: str, posts: Sequence[Post], anchor: bytes
) -> tuple[Post, ...]:
    """Post what the store lacks; what that was. Raises Permanent `collateral.root` for a store of another root than `anchor`,
    and `Reverted` where the store refuses a piece."""
    head = await source.confirmed(Confirmation.LATEST)
    (answer,) = await source.calls([Call(store, load(STORE).call("anchor"))], head)
    found = load(STORE).result("anchor", answer)
    if found != anchor:
        raise Permanent(
            "collateral.root",
            "the contracts trust another root than the configuration",
            found=found.hex(),
            expected=anchor.hex(),
        )
    lacking = await missing(source, store, posts, head)
    # Issuers first: the rest is checked under them when it is posted, and can go together.
    for issuers in (True, False):
        together = [post for post in lacking if (post.function == "postIssuer") is issuers]
        await asyncio.gather(*(_post(sender, store, post) for post in together))
    return lacking


async def _post(sender: Sender, store: str, post: Post) -> None:
    try:
        # Mined and refused means the same as NotNewer: a piece that was good a moment ago is there now.
        await sender.transact(store, load(STORE).call(post.function, *post.arguments))
    except Reverted as error:
        # Somebody else was faster.
        if error.name != "DcapCollateral_NotNewer":
            raise
