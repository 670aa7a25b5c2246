"""Bringing Intel's collateral to a DcapCollateral store: what it has, and posting what it lacks. Anyone may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from enclave_app.protocol.structs import Confirmation
from oracle.attestation.collateral import Collateral, pem_chain
from oracle.attestation.onchain.structs import Pck, QeIdentity, TcbInfo, certificate_digest
from oracle.chain.abi import load
from oracle.chain.sender import Sender
from oracle.chain.source import Block, Call, Source
from oracle.errors import Permanent, Reverted

STORE = "DcapCollateral"


@dataclass(frozen=True)
class Post:
    """One piece: how the store is asked whether it has it, and how it is posted."""

    name: str
    asked: tuple[Any, ...]
    has: Callable[[Any], bool]
    posted: tuple[Any, ...]


def posts(
    collateral: Collateral, chain: Sequence[x509.Certificate] | None, anchor: bytes
) -> tuple[tuple[Post, ...], ...]:
    """Everything that a platform's evidence rests on, in rounds: each needs those before it. `chain` is its PCK chain, leaf
    first, or None for collateral alone; `anchor` the root's digest. Raises CollateralError, VerificationError."""
    ca = pem_chain(collateral.pck_crl_issuer_chain)[0] if chain is None else chain[1]
    certified = [] if chain is None else [_pck(chain)]
    signer = pem_chain(collateral.tcb_info_issuer_chain)[0]
    qe_signer = pem_chain(collateral.qe_identity_issuer_chain)[0]
    tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
    issuers = {certificate_digest(each): each for each in (ca, signer, qe_signer)}
    first = [
        Post("issuer", ("issuer", digest), _is_issuer, ("postIssuer", each.public_bytes(Encoding.DER)))
        for digest, each in issuers.items()
    ]
    second = [
        *certified,
        _crl("root CRL", bytes.fromhex(collateral.root_ca_crl), anchor),
        _crl("PCK CRL", bytes.fromhex(collateral.pck_crl), certificate_digest(ca)),
        Post(
            "TCB info",
            ("tcbInfo", tcb.tee, tcb.fmspc, tcb.evaluation),
            lambda kept: bool(kept[1] >= tcb.issued_at),
            ("postTcbInfo", collateral.tcb_info.encode(), bytes.fromhex(collateral.tcb_info_signature), tcb.signer),
        ),
        Post(
            "QE identity",
            ("qeIdentity", qe.tee, qe.evaluation),
            lambda kept: bool(kept[1] >= qe.issued_at),
            (
                "postQeIdentity",
                collateral.qe_identity.encode(),
                bytes.fromhex(collateral.qe_identity_signature),
                qe.signer,
            ),
        ),
    ]
    return tuple(first), tuple(second)


async def missing(source: Source, store: str, wanted: Sequence[Post], at: Block) -> tuple[Post, ...]:
    """Those that the store does not have at `at`, or has an older issue of."""
    contract = load(STORE)
    answers = await source.calls([Call(store, contract.call(*post.asked)) for post in wanted], at)
    found = [contract.result(post.asked[0], answer) for post, answer in zip(wanted, answers, strict=True)]
    return tuple(post for post, kept in zip(wanted, found, strict=True) if not post.has(kept))


async def post_missing(
    sender: Sender, source: Source, store: str, rounds: Sequence[Sequence[Post]], anchor: bytes
) -> tuple[str, ...]:
    """Post what the store lacks; the names of what was. Raises Permanent `collateral.root` for a store of another root,
    `Reverted` where the store refuses a piece."""
    head = await _head(source)
    (answer,) = await source.calls([Call(store, load(STORE).call("anchor"))], head)
    if load(STORE).result("anchor", answer) != anchor:
        raise Permanent(
            "collateral.root",
            "the contracts trust another root than the configuration",
            found=load(STORE).result("anchor", answer).hex(),
            expected=anchor.hex(),
        )
    done: list[str] = []
    for wanted in rounds:
        lacking = await missing(source, store, wanted, await _head(source))
        done += [post.name for post in lacking]
        await asyncio.gather(*(_post(sender, store, post) for post in lacking))
    return tuple(done)


async def on_chain(source: Source, store: str, collateral: Collateral) -> dict[str, str]:
    """Of each piece, by the names of `oracle.collateral.pieces`: `yes`, `older` or `newer` for another issue of it, `no`."""
    tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
    ca, root = pem_chain(collateral.pck_crl_issuer_chain)[:2]
    signers = [pem_chain(each)[0] for each in (collateral.tcb_info_issuer_chain, collateral.qe_identity_issuer_chain)]
    issuers = {"PCK CA": ca, "TCB signing certificate": signers[0], "QE identity's signing certificate": signers[1]}
    lists = {"PCK CRL": (collateral.pck_crl, ca), "root CRL": (collateral.root_ca_crl, root)}
    asked: dict[str, tuple[Any, ...]] = {
        "TCB info": ("tcbInfo", tcb.tee, tcb.fmspc, tcb.evaluation),
        "QE identity": ("qeIdentity", qe.tee, qe.evaluation),
        **{name: ("crl", certificate_digest(issuer)) for name, (_, issuer) in lists.items()},
        **{name: ("issuer", certificate_digest(each)) for name, each in issuers.items()},
        "root": ("anchor",),
    }
    contract, head = load(STORE), await _head(source)
    answers = await source.calls([Call(store, contract.call(*each)) for each in asked.values()], head)
    kept = {name: contract.result(call[0], a) for (name, call), a in zip(asked.items(), answers, strict=True)}
    found = {
        "TCB info": _compared(kept["TCB info"][1], tcb.issued_at),
        "QE identity": _compared(kept["QE identity"][1], qe.issued_at),
        "root": "yes" if kept["root"] == certificate_digest(root) else "no",
    }
    found |= {name: _compared(kept[name]["issuedAt"], _issued(bytes.fromhex(crl))) for name, (crl, _) in lists.items()}
    return found | {name: "yes" if _is_issuer(kept[name]) else "no" for name in issuers}


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
    answers = await source.calls([Call(store, contract.call(*each)) for each in asked], await _head(source))
    kept = [contract.result(each[0], answer)[0] for each, answer in zip(asked, answers, strict=True)]
    return kept == [tcb.digest, qe.digest]


async def _post(sender: Sender, store: str, post: Post) -> None:
    try:
        # Mined and refused means the same as NotNewer: a piece that was good a moment ago is there now.
        await sender.transact(store, load(STORE).call(*post.posted))
    except Reverted as error:
        # Somebody else was faster.
        if error.name != "DcapCollateral_NotNewer":
            raise


async def _head(source: Source) -> Block:
    return await source.confirmed(Confirmation.LATEST)


def _is_issuer(kept: Any) -> bool:
    return any(kept["x"])


def _pck(chain: Sequence[x509.Certificate]) -> Post:
    pck, der = Pck.of(chain), chain[0].public_bytes(Encoding.DER)
    return Post("PCK certificate", ("isPck", pck.digest), bool, ("postPck", der, pck.issuer))


def _crl(name: str, der: bytes, issuer: bytes) -> Post:
    issued = _issued(der)
    return Post(name, ("crl", issuer), lambda kept: bool(kept["issuedAt"] >= issued), ("postCrl", der, issuer))


def _issued(crl: bytes) -> int:
    return int(x509.load_der_x509_crl(crl).last_update_utc.timestamp())
