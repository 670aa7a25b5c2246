"""What a registration rested on, read back from the transaction that made it: the contracts keep digests only.

A node is not believed: what it says counts where it makes the digest that the registry keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from enclave_app.protocol.abi import AbiType, decode_strict
from oracle.attestation import AttestationError, parse_dcap
from oracle.attestation.onchain.evidence import Versions, versions
from oracle.attestation.onchain.structs import PCK, QE_IDENTITY, TCB_INFO, TCB_LEVEL, TDX_MODULE, Pck
from oracle.attestation.quote import MAX_QUOTE_BYTES
from oracle.chain.abi import load
from oracle.chain.collateral import STORE, store_of
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import RegisteredEnclave
from oracle.chain.events import get_logs, topic
from oracle.chain.rpc import as_bytes, as_hex
from oracle.chain.source import Block, Call, SingleSource
from oracle.errors import Refused


def _flat(types: str) -> tuple[AbiType, ...]:
    return tuple([[each[:-2]] if each.endswith("[]") else each for each in types[1:-1].split(",")])


_PROOF: Final[AbiType] = (
    _flat(TCB_INFO), [_flat(TCB_LEVEL)], "bytes32", ["bytes32"], [_flat(TDX_MODULE)], _flat(QE_IDENTITY),
)  # fmt: skip
_EVIDENCE: Final[AbiType] = ("bytes", _flat(PCK), _PROOF, [_PROOF])


@dataclass(frozen=True)
class Shown:
    """A DCAP registration's evidence. `ends` are unix seconds by piece: the platform's certificate, TCB info, QE identity,
    and what the store has of their issuers and revocation lists."""

    versions: Versions
    evaluation: int
    ends: dict[str, int]


async def shown_evidence(
    source: SingleSource, deployment: Deployment, enclave: RegisteredEnclave, at: Block
) -> Shown | None:
    """What the last registration of `enclave` up to `at` showed; None for one that no DCAP evidence was shown for, or that
    another contract relayed. Raises Refused `registration.*` where a node's words make no sense."""
    registry = deployment.enclave_registry
    signer = bytes.fromhex(enclave.signer[2:]).rjust(32, b"\0")
    topics = [[topic("EnclaveRegistered")], [enclave.anchor], [signer]]
    logs = await get_logs(source.rpc, [registry], deployment.first_block, at.number, topics)
    if not logs:
        return None
    raw = await source.rpc.call("eth_getTransactionByHash", as_hex(logs[-1].transaction_hash))
    if not isinstance(raw, dict):
        raise Refused("registration.transaction", "an RPC endpoint does not know a transaction that it has a log of")
    try:
        (said,) = load("EnclaveRegistry").arguments("register", as_bytes(raw.get("input")))
    except Refused:
        return None
    if said["verifier"].lower() != deployment.verifiers.get("dcap", "").lower():
        return None
    evidence = read_evidence(enclave.record.identity.tee, said["evidence"])
    if evidence.versions.digest != enclave.record.identity.svn_digest:
        raise Refused("registration.versions", "an RPC endpoint shows another registration than the registry keeps")
    ends = evidence.ends | await _issuers(source, deployment, evidence.issuers, at)
    return Shown(evidence.versions, evidence.evaluation, dict(sorted(ends.items(), key=lambda each: each[1])))


class Evidence(NamedTuple):
    """Of IDcapVerifier.Evidence, what says how long it holds. `issuers` are certificates' digests by name."""

    versions: Versions
    evaluation: int
    ends: dict[str, int]
    issuers: dict[str, bytes]


def read_evidence(tee: int, data: bytes) -> Evidence:
    """From its ABI. Raises Refused `abi.decode`, `registration.quote`."""
    quote, pck, current, _ = decode_strict(_EVIDENCE, data)
    tcb, qe = current[0], current[5]
    issuers = {"PCK CA": pck[3], "TCB signing certificate": tcb[9]}
    if qe[11] != tcb[9]:
        issuers["QE identity's signing certificate"] = qe[11]
    return Evidence(
        _versions(tee, quote, Pck(*pck)),
        min(tcb[3], qe[1]),
        {"PCK certificate": pck[10], "TCB info": tcb[5], "QE identity": qe[3]},
        issuers,
    )


async def _issuers(
    source: SingleSource, deployment: Deployment, issuers: dict[str, bytes], at: Block
) -> dict[str, int]:
    (anchor,) = await _ask(source, deployment, [("anchor",)], at)
    asked: dict[str, tuple[Any, ...]] = {name: ("issuer", digest) for name, digest in issuers.items()}
    asked |= {"PCK CRL": ("crl", issuers["PCK CA"]), "root CRL": ("crl", anchor)}
    answers = await _ask(source, deployment, list(asked.values()), at)
    return {
        name: kept["nextUpdate" if call[0] == "crl" else "notAfter"]
        for (name, call), kept in zip(asked.items(), answers, strict=True)
    }


async def _ask(source: SingleSource, deployment: Deployment, calls: list[tuple[Any, ...]], at: Block) -> list[Any]:
    contract = load(STORE)
    answers = await source.calls([Call(store_of(deployment), contract.call(*each)) for each in calls], at)
    return [contract.result(each[0], answer) for each, answer in zip(calls, answers, strict=True)]


def _versions(tee: int, quote: bytes, pck: Pck) -> Versions:
    """Of a quote without its certification data, whose size is its last word."""
    size = int.from_bytes(quote[-4:], "little")
    if size > MAX_QUOTE_BYTES:
        raise Refused("registration.quote", "an RPC endpoint shows a quote that is none")
    try:
        return versions(parse_dcap(tee, quote + bytes(size)), pck)
    except AttestationError as error:
        raise Refused("registration.quote", "an RPC endpoint shows a quote that is none", found=str(error)) from None
