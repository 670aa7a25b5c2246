"""Intel evidence before the contracts: what is posted, in raw bytes, and what the chain says of a quote at any time."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from eth_abi.abi import decode, encode
from eth_account import Account

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Enrolment
from oracle.attestation import Collateral, intel_root, parse_dcap
from oracle.attestation.collateral import pem_chain
from oracle.attestation.onchain.evidence import EVIDENCE, cut_quote, dcap_evidence, quote_chain
from oracle.attestation.onchain.structs import Pck, QeIdentity, TcbInfo
from oracle.attestation.types import TcbStatus, Tee, intel_name
from oracle.chain.abi import Log, load
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.chain.sender import Receipt, Sender
from oracle.errors import Reverted, RpcFault
from tests.anvil_kit import anvil
from tests.dcap_kit import NOW, Case, ask_qvl, der

GENESIS: Final = 1_600_000_000
"""What anvil's clock starts at: before every recorded case."""
ERRORS: Final = (
    "DcapVerifier",
    "DcapCollateral",
    "EnclaveRegistry",
    "IntelJson",
    "P256",
    "X509",
    "Der",
    "PckExtension",
    "RevocationList",
)
CERTIFICATION: Final = re.compile(rb"\x05\x00.{4}-----BEGIN CERTIFICATE-----", re.DOTALL)


RECORDED: Final = Path(__file__).parent / "data" / "attestation"


@dataclass(frozen=True)
class Recorded:
    """Evidence of a real machine at one time. `status` is None where it has to be refused."""

    name: str
    tee: Tee
    quote: bytes
    pieces: dict[str, str]
    now: int
    status: str | None

    @property
    def collateral(self) -> Collateral:
        return Collateral.from_json(json.dumps(self.pieces))

    @property
    def material(self) -> Material:
        return Material.read(self.quote, self.pieces, intel_root(), self.now)


def recorded() -> list[Recorded]:
    """Every recorded SGX and TDX case whose collateral is there."""
    found = []
    for case in json.loads((RECORDED / "MANIFEST.json").read_text())["cases"]:
        for run in case["verify"] if case["tee"] in ("sgx", "tdx") else []:
            if run["collateral"] is None:
                continue
            found.append(
                Recorded(
                    name=f"{case['name']}@{run['now']}",
                    tee=Tee[case["tee"].upper()],
                    quote=(RECORDED / case["quote"]["file"]).read_bytes(),
                    pieces=json.loads((RECORDED / "collateral" / f"{run['collateral']}.json").read_text()),
                    now=run["now"],
                    status=run["status"] if run["expected"] == "ok" else None,
                )
            )
    return found


@dataclass(frozen=True)
class Material:
    """A quote and everything it rests on, in the bytes that are posted. `now` is when it is judged."""

    quote: bytes
    pck: bytes
    ca: bytes
    signer: bytes
    root: bytes
    root_crl: bytes
    pck_crl: bytes
    tcb_info: bytes
    tcb_signature: bytes
    qe_identity: bytes
    qe_signature: bytes
    now: int = NOW

    @classmethod
    def of(cls, case: Case, now: int = NOW) -> Material:
        return cls.read(case.quote, case.pieces, der(case.authority.root), now)

    @classmethod
    def read(cls, quote: bytes, pieces: dict[str, str], root: bytes, now: int) -> Material:
        """From a quote with its chain, and the nine strings of QuoteCollateralV3."""
        chain = quote[len(cut(quote)) :].rstrip(b"\0").decode("latin-1")
        pck, ca = (_der(each) for each in pem_chain(chain[: chain.rindex("-----END CERTIFICATE-----") + 26])[:2])
        return cls(
            quote=quote,
            pck=pck,
            ca=ca,
            signer=_der(pem_chain(pieces["tcb_info_issuer_chain"])[0]),
            root=root,
            root_crl=bytes.fromhex(pieces["root_ca_crl"]),
            pck_crl=bytes.fromhex(pieces["pck_crl"]),
            tcb_info=pieces["tcb_info"].encode(),
            tcb_signature=bytes.fromhex(pieces["tcb_info_signature"]),
            qe_identity=pieces["qe_identity"].encode(),
            qe_signature=bytes.fromhex(pieces["qe_identity_signature"]),
            now=now,
        )

    @property
    def pieces(self) -> dict[str, str]:
        signers = pem(self.signer, self.root)
        return {
            "pck_crl_issuer_chain": pem(self.ca, self.root),
            "root_ca_crl": self.root_crl.hex(),
            "pck_crl": self.pck_crl.hex(),
            "tcb_info_issuer_chain": signers,
            "tcb_info": self.tcb_info.decode("latin-1"),
            "tcb_info_signature": self.tcb_signature.hex(),
            "qe_identity_issuer_chain": signers,
            "qe_identity": self.qe_identity.decode("latin-1"),
            "qe_identity_signature": self.qe_signature.hex(),
        }

    def ask(self) -> str:
        """dcap-qvl's status. It is given the chain from here, whatever the quote's own says. Raises QvlRefused."""
        pieces = self.pieces | {"pck_certificate_chain": pem(self.pck, self.ca, self.root)}
        return ask_qvl(self.quote, pieces, self.root, self.now)


def issuer(certificate: bytes) -> bytes:
    """Under what the store keeps it: SHA-256 of the TBSCertificate. No parser of ours has to like the rest."""
    start = 4
    return sha256(certificate[start : start + 4 + int.from_bytes(certificate[start + 2 : start + 4], "big")])


def cut(quote: bytes) -> bytes:
    """The quote up to its certification data, whose type and size come last."""
    found = CERTIFICATION.search(quote)
    assert found is not None, "no PCK chain in this quote"
    return quote[: found.start() + 6]


def quote_head(original: bytes, changed: bytes) -> bytes:
    """`changed`, cut where `original` is cut."""
    return changed[: len(cut(original))]


def pck_chain(material: Material) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(each) for each in (material.pck, material.ca)]


def pem(*certificates: bytes) -> str:
    text = ""
    for each in certificates:
        encoded = base64.b64encode(each).decode()
        lines = "\n".join(encoded[i : i + 64] for i in range(0, len(encoded), 64))
        text += f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
    return text


def show(case: Case, earlier: Case | None = None) -> bytes:
    """The evidence that DcapVerifier is shown; `earlier`: whose collateral is an earlier evaluation's."""
    return dcap_evidence(parse_dcap(case.tee, case.quote), case.collateral, earlier.collateral if earlier else None)


def show_level(tee: int, quote: bytes, collateral: Collateral, last: int) -> bytes:
    """Evidence that names the level at index `last`, whether or not it is the right one."""
    parsed = parse_dcap(tee, quote)
    pck, tcb = Pck.of(quote_chain(parsed)), TcbInfo.of(collateral)
    svns = [parsed.report.tee_tcb_svn, parsed.report.tee_tcb_svn2] if tcb.modules else []
    wanted = dict.fromkeys(svn[1] for svn in svns if any(svn))
    modules = [next((m for m in tcb.modules if m.version == each), tcb.modules[0]).abi() for each in wanted]
    proof = (
        tcb.abi(),
        [each.abi() for each in tcb.levels[: last + 1]],
        tcb.rest(last + 1),
        [each.digest for each in tcb.modules],
        modules,
        QeIdentity.of(collateral).abi(),
    )
    return encode([EVIDENCE], [(cut_quote(parsed), pck.abi(), proof, [])])


def change(data: bytes, shape: str, path: Sequence[int], value: Any) -> bytes:
    """ABI-encoded data with one member of it replaced; `value` may be a function of what stands there."""
    (tree,) = decode([shape], data)
    return encode([shape], [_changed(tree, path, value)])


def _changed(tree: Any, path: Sequence[int], value: Any) -> Any:
    if not path:
        return value(tree) if callable(value) else value
    return [_changed(each, path[1:], value) if i == path[0] else each for i, each in enumerate(tree)]


class Registration(NamedTuple):
    """IEnclaveRegistry.Registration, field by field."""

    signer: str
    sealing_key: bytes
    block_number: int
    block_hash: bytes
    operator: str
    proof_of_possession: bytes
    operator_signature: bytes
    verifier: str
    evidence: bytes


class Outcome(NamedTuple):
    """One call's: `error` is None exactly when it succeeded; `gas` without the base of a transaction's."""

    error: Reverted | None
    data: bytes
    gas: int
    logs: tuple[Log, ...]

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def refusal(self) -> str | None:
        """The name of the error."""
        return None if self.error is None else self.error.name

    @property
    def claims(self) -> dict[str, Any]:
        assert self.error is None, self.error
        found: dict[str, Any] = load("DcapVerifier").result("verify", self.data)
        return found

    @property
    def status(self) -> str:
        """Of the platform, in Intel's word."""
        return intel_name(TcbStatus(self.claims["judgement"]["tcbStatus"]))


class Call(NamedTuple):
    to: str
    data: bytes


@dataclass(frozen=True)
class Contracts:
    """A store under one root, the verifier that reads it, and a registry that takes only that verifier."""

    rpc: Rpc
    root: bytes
    store: str
    verifier: str
    registry: str

    @classmethod
    async def deploy(cls, rpc: Rpc, root: bytes) -> Contracts:
        sender = await funded(rpc)
        store = await create(sender, "DcapCollateral", root)
        verifier = await create(sender, "DcapVerifier", store)
        return cls(rpc, root, store, verifier, await create(sender, "EnclaveRegistry", [verifier]))

    @property
    def anchor(self) -> bytes:
        return sha256(self.root)

    def posts(self, material: Material) -> dict[str, Call]:
        """Every post, by what it posts, in an order in which all succeed."""
        ca, signer = issuer(material.ca), issuer(material.signer)
        return {
            "ca": self.post("postIssuer", material.ca),
            "signer": self.post("postIssuer", material.signer),
            "root_crl": self.post("postCrl", material.root_crl, self.anchor),
            "pck_crl": self.post("postCrl", material.pck_crl, ca),
            "pck": self.post("postPck", material.pck, ca),
            "tcb_info": self.post("postTcbInfo", material.tcb_info, material.tcb_signature, signer),
            "qe_identity": self.post("postQeIdentity", material.qe_identity, material.qe_signature, signer),
        }

    def post(self, function: str, *args: Any) -> Call:
        return Call(self.store, load("DcapCollateral").call(function, *args))

    def verify(self, evidence: bytes) -> Call:
        return Call(self.verifier, load("DcapVerifier").call("verify", evidence))

    def judge(self, proof: bytes) -> Call:
        return Call(self.verifier, load("DcapVerifier").call("judge", proof))

    async def ask(self, case: Case, now: int = NOW, evidence: bytes | None = None, **posts: Call | None) -> Outcome:
        """What the chain says of a case when everything of it was posted; `posts` replaces one of them, or leaves it out."""
        calls = {**self.posts(Material.of(case)), **posts}
        shown = show(case) if evidence is None else evidence
        return (await self.simulate([*(call for call in calls.values() if call), self.verify(shown)], now))[-1]

    def register(self, registration: Registration) -> Call:
        return Call(self.registry, load("EnclaveRegistry").call("register", registration))

    async def refusal(self, call: Call) -> str | None:
        """The name of the error that a transaction would meet now, in the newest block's successor."""
        try:
            await self.rpc.call("eth_call", {"to": call.to, "data": as_hex(call.data)}, "pending")
        except RpcFault as fault:
            return revert(fault.data or b"").name
        return None

    async def keep(self, calls: Iterable[Call]) -> list[Receipt]:
        """These calls in transactions, which stay."""
        sender = await funded(self.rpc)
        return [await sender.transact(call.to, call.data) for call in calls]

    async def simulate(self, calls: Sequence[Call], now: int) -> list[Outcome]:
        """What these calls would do one after the other in one block at `now`. Nothing of it stays."""
        answer = await self.rpc.call(
            "eth_simulateV1",
            {
                "blockStateCalls": [
                    {
                        "blockOverrides": {"time": hex(now), "gasLimit": hex(10**9)},
                        "calls": [{"to": call.to, "data": as_hex(call.data)} for call in calls],
                    }
                ],
                "validation": False,
            },
            "latest",
        )
        return [_outcome(each) for each in answer[0]["calls"]]


@dataclass(frozen=True)
class Boot:
    """An enclave that was started once: its keys, and the case that its quotes come from."""

    case: Case
    signer: SigningKey = field(default_factory=SigningKey.generate)
    sealing_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    async def registration(self, contracts: Contracts, *, earlier: Case | None = None, back: int = 0) -> Registration:
        """For the block that lies `back` behind the newest."""
        number = as_int(await contracts.rpc.call("eth_blockNumber")) - back
        block_hash = as_bytes((await contracts.rpc.call("eth_getBlockByNumber", hex(number), False))["hash"])
        chain_id = as_int(await contracts.rpc.call("eth_chainId"))
        bound = report_data(chain_id, contracts.registry, self.signer.address, self.sealing_key, block_hash)
        domain = Domain(chain_id=chain_id, verifying_contract=contracts.registry)
        enrolment = Enrolment(
            signer=self.signer.address, sealing_key=self.sealing_key, block_hash=block_hash, operator=ZERO_ADDRESS
        )
        return Registration(
            self.signer.address,
            self.sealing_key,
            number,
            block_hash,
            ZERO_ADDRESS,
            self.signer.sign(enrolment.typed_digest(domain)),
            b"",
            contracts.verifier,
            show(self.case.bind(bound), earlier),
        )

    def record(self, contracts: Contracts) -> Call:
        return Call(contracts.registry, load("EnclaveRegistry").call("record", contracts.anchor, self.signer.address))


@contextmanager
def chain_at(now: int) -> Iterator[str]:
    """The URL of a chain whose clock stands at `now` (unix seconds) and goes on from there."""

    async def start(url: str) -> None:
        rpc = Rpc(url)
        await rpc.call("anvil_setNextBlockTimestamp", now)
        await rpc.call("anvil_mine", "0x2")
        await rpc.close()

    with anvil("--timestamp", str(GENESIS)) as url:
        asyncio.run(start(url))
        yield url


async def funded(rpc: Rpc) -> Sender:
    account = Account.create()
    await rpc.call("anvil_setBalance", account.address, hex(10**21))
    return Sender(rpc, account, poll=0.005)


async def create(sender: Sender, name: str, *args: object) -> str:
    receipt = await sender.transact(None, load(name).deployment(*args))
    assert receipt.ok
    assert receipt.contract_address is not None
    return receipt.contract_address


def revert(data: bytes) -> Reverted:
    for name in ERRORS:
        found = load(name).error(data)
        if found is not None:
            return found
    return Reverted("Unknown", {"data": data[:64].hex()})


def _outcome(answer: dict[str, Any]) -> Outcome:
    data = as_bytes(answer["returnData"]) if answer.get("returnData") else b""
    failed = answer["status"] != "0x1"
    if failed and not data and isinstance(answer.get("error"), dict):
        data = as_bytes(answer["error"].get("data") or "0x")
    return Outcome(
        error=revert(data) if failed else None,
        data=b"" if failed else data,
        gas=as_int(answer["gasUsed"]),
        logs=tuple(_log(each) for each in answer["logs"]),
    )


def _log(log: dict[str, Any]) -> Log:
    return Log(
        address=log["address"],
        topics=tuple(as_bytes(topic) for topic in log["topics"]),
        data=as_bytes(log["data"]),
        block_number=0,
        block_hash=bytes(32),
        transaction_hash=bytes(32),
        index=0,
    )


def _der(certificate: Any) -> bytes:
    encoded: bytes = certificate.public_bytes(serialization.Encoding.DER)
    return encoded
