"""Bringing Intel's collateral to a DcapCollateral store: what it lacks, and posting that. Anyone may."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from enclave_app.protocol.structs import Confirmation
from oracle.attestation import Collateral
from oracle.attestation.collateral import pem_chain
from oracle.attestation.onchain.collateral import Post
from oracle.attestation.onchain.structs import QeIdentity, TcbInfo, certificate_digest
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.chain.sender import Sender
from oracle.chain.source import Block, Call, Source
from oracle.errors import Permanent, Reverted

STORE = "DcapCollateral"
NAMES = {
    "postIssuer": "issuer",
    "postPck": "PCK certificate",
    "postCrl": "CRL",
    "postTcbInfo": "TCB info",
    "postQeIdentity": "QE identity",
}
"""What is posted, for people."""


def store_of(deployment: Deployment) -> str:
    """The store's address. Raises Permanent `config.deployment` where the deployment has none."""
    if deployment.collateral is None:
        raise Permanent("config.deployment", "the deployment has no collateral store, so it takes no DCAP evidence")
    return deployment.collateral


def anchor_of(collateral: Collateral) -> bytes:
    """SHA-256 of the root certificate that the collateral says it is under."""
    return hashlib.sha256(pem_chain(collateral.pck_crl_issuer_chain)[-1].public_bytes(Encoding.DER)).digest()


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


async def on_chain(source: Source, store: str, collateral: Collateral) -> dict[str, str]:
    """Of each piece, by the names of `oracle.collateral.pieces`: `yes`, `older` or `newer` for another issue of it, `no`."""
    tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
    ca = pem_chain(collateral.pck_crl_issuer_chain)[0]
    signers = [pem_chain(each)[0] for each in (collateral.tcb_info_issuer_chain, collateral.qe_identity_issuer_chain)]
    issuers = {"PCK CA": ca, "TCB signing certificate": signers[0], "QE identity's signing certificate": signers[1]}
    lists = {"PCK CRL": collateral.pck_crl, "root CRL": collateral.root_ca_crl}
    asked: dict[str, tuple[Any, ...]] = {
        "TCB info": ("tcbInfo", tcb.tee, tcb.fmspc, tcb.evaluation),
        "QE identity": ("qeIdentity", qe.tee, qe.evaluation),
        "PCK CRL": ("crl", certificate_digest(ca)),
        "root CRL": ("crl", anchor_of(collateral)),
        **{name: ("issuer", certificate_digest(each)) for name, each in issuers.items()},
        "root": ("anchor",),
    }
    contract, head = load(STORE), await source.confirmed(Confirmation.LATEST)
    answers = await source.calls([Call(store, contract.call(*each)) for each in asked.values()], head)
    kept = {name: contract.result(call[0], a) for (name, call), a in zip(asked.items(), answers, strict=True)}
    found = {
        "TCB info": _compared(kept["TCB info"][1], tcb.issued_at),
        "QE identity": _compared(kept["QE identity"][1], qe.issued_at),
        "root": "yes" if kept["root"] == anchor_of(collateral) else "no",
    }
    found |= {name: _compared(kept[name]["issuedAt"], _issued(crl)) for name, crl in lists.items()}
    return found | {name: "yes" if kept[name]["serial"] else "no" for name in issuers}


def _compared(kept: int, ours: int) -> str:
    if kept == 0:
        return "no"
    return "yes" if kept == ours else "newer" if kept > ours else "older"


async def is_newest(source: Source, store: str, collateral: Collateral) -> bool:
    """Whether the store keeps exactly this TCB info and QE identity under their keys, which is what counts there."""
    contract, tcb, qe = load(STORE), TcbInfo.of(collateral), QeIdentity.of(collateral)
    asked: list[tuple[Any, ...]] = [
        ("tcbInfo", tcb.tee, tcb.fmspc, tcb.evaluation),
        ("qeIdentity", qe.tee, qe.evaluation),
    ]
    answers = await source.calls(
        [Call(store, contract.call(*each)) for each in asked], await source.confirmed(Confirmation.LATEST)
    )
    kept = [contract.result(each[0], answer)[0] for each, answer in zip(asked, answers, strict=True)]
    return kept == [tcb.digest, qe.digest]


def _issued(crl_hex: str) -> int:
    return int(x509.load_der_x509_crl(bytes.fromhex(crl_hex)).last_update_utc.timestamp())


async def _post(sender: Sender, store: str, post: Post) -> None:
    try:
        # Mined and refused means the same as NotNewer: a piece that was good a moment ago is there now.
        call = load(STORE).call(post.function, *post.arguments)
        await sender.transact(store, call, purpose="collateral", key=hashlib.sha256(call).digest())
    except Reverted as error:
        # Somebody else was faster.
        if error.name != "DcapCollateral_NotNewer":
            raise
