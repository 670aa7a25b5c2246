"""Every parser of bytes or text that comes from outside: a document that it takes, and which functions it runs through.

`test_inventory.py` finds the functions that decode something and demands that each is covered here, or excused by name.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import datetime
import decimal
import json
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cbor2
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from eth_abi.abi import encode
from multidict import CIMultiDict

from enclave_app.attesters import certificates, dstack, gramine, nitro
from enclave_app.attesters.base import EvidenceError, PlatformError
from enclave_app.attesters.bound import sgx_quote, snp_report, tdx_quote
from enclave_app.attesters.configfs_tsm import _generation
from enclave_app.attesters.dcap_format import sign_raw
from enclave_app.attesters.platform import DevelopmentAuthority, Platform
from enclave_app.config import EnclaveConfig, read_config
from enclave_app.fetch import Storage
from enclave_app.identity import quoted_measurement
from enclave_app.logs import Log as EnclaveLog
from enclave_app.protocol import (
    canonical,
    hpke,
    onchain,
    output,
    params,
    pme,
    release,
    shares,
    signing,
    streaming,
    structs,
)
from enclave_app.protocol import wire as enclave_wire
from enclave_app.protocol.abi_output import decode_row, encode_row
from enclave_app.protocol.bundle import read_bundle
from enclave_app.protocol.canonical import Document
from enclave_app.protocol.digests import parse_digest, sha256
from enclave_app.protocol.errors import OracleError
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.output import TaskSecret, seal_output
from enclave_app.protocol.params import read_domain
from enclave_app.sandbox.channel import receive_answer
from oracle import addresses, arrow, asking, card, config, keys, objects, passwords, storage
from oracle.agreement import document, units
from oracle.agreement.draft import build_draft
from oracle.agreement.references import References
from oracle.attestation import (
    AppraisalPolicy,
    Collateral,
    DevelopmentRoot,
    NitroDocument,
    Tee,
    parse_dcap,
    parse_evidence,
    verify,
)
from oracle.attestation.collateral import pem_chain
from oracle.attestation.dstack import bare_document
from oracle.attestation.onchain.collateral import posts
from oracle.attestation.onchain.evidence import dcap_evidence, quote_chain
from oracle.attestation.qvl import QvlRefused, pck_values
from oracle.chain import events, reader, rpc, sender, source
from oracle.chain.abi import Log, explain_revert
from oracle.chain.deploy import Deployment
from oracle.chain.registrations import read_evidence
from oracle.chain.subscription import check_subscribed
from oracle.cli import common
from oracle.cli import receipt as cli_receipt
from oracle.cli import task as cli_task
from oracle.cli.keys import _format
from oracle.collateral.check import check_collateral, check_evaluations
from oracle.collateral.pcs import Evaluations, Signed, _der, issuer_chain, signed_document
from oracle.collateral.platform import platform_named
from oracle.dataset import keyfile, seal, sources, types
from oracle.errors import RpcFault
from oracle.function.spec import pack_directory, read_spec
from oracle.keybroker.backup import Backup, Content, read_backup
from oracle.keybroker.config import read_config as read_broker_config
from oracle.keybroker.config import read_password
from oracle.keybroker.log import Entry, Line, Started, check_file, read_log, verify_log
from oracle.receipt import Expected, read_receipt, verify_receipt
from oracle.worker import spool
from oracle.worker.config import WorkerConfig
from oracle.worker.enclave import error_of
from oracle.yamlfile import parse_yaml
from tests import nitro_kit, recorded_kit, snp_kit
from tests.attester_kit import certificate_table, packed_table, recorded
from tests.property.hostile import example
from tests.receipt_kit import SEALING, Story, authority, make_story, platform
from tests.unit.agreement.conftest import Case, make_case

CHEAP = 1 << 10
PASSWORD = "a password that no error repeats"
SECRET = bytes(range(1, 33))
SIGNER = signing.SigningKey(SECRET)
VECTORS = Path(__file__).parents[1] / "vectors"
_HOME = Path(tempfile.mkdtemp(prefix="parsers-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)


@dataclass(frozen=True)
class Parser:
    """`read` takes outside bytes; all it may raise is `errors`. `kind` is what its documents are: json, yaml or bytes.

    `covers` are the functions that it runs, as module:qualified.name; `secrets` what no error may quote.
    """

    name: str
    read: Callable[[bytes], object]
    valid: bytes
    kind: str = "json"
    covers: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = (OracleError,)
    secrets: tuple[str, ...] = field(default=(), repr=False)


# --- helpers ---------------------------------------------------------------------------------------------------------


@cache
def story() -> Story:
    return make_story()


def vector(file: str, *path: str | int) -> Any:
    value = json.loads((VECTORS / file).read_text("utf-8"))
    for part in path:
        value = value[part]
    return value


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of files as one of bytes."""

    def run(data: bytes) -> object:
        path = _HOME / name
        path.write_bytes(data)
        return read(path)

    return run


def text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def parsed(kind: type[Document]) -> Callable[[bytes], object]:
    return lambda data: canonical.parse(kind, data, limit=32 << 20, canonical=False)


def message(kind: type[Document], *covers: str, valid: bytes | None = None) -> Parser:
    """A message that is read by its model alone."""
    found = canonical.dump(example(kind)) if valid is None else valid
    return Parser(f"message {kind.__name__}", parsed(kind), found, covers=covers)


def written(name: str, write: Callable[[Path], object]) -> bytes:
    path = _HOME / f"made-{name}"
    path.unlink(missing_ok=True)
    write(path)
    return path.read_bytes()


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def wrapped() -> Any:
        return await main()

    return asyncio.run(wrapped())


# --- the chain -------------------------------------------------------------------------------------------------------

_RPC = rpc.Rpc("http://127.0.0.1:1")
_BLOCK = source.Block(1, bytes(32), bytes(32), 1)


class Answering:
    """A source of chain reads that gives the same bytes for each call."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def calls(self, calls: Sequence[source.Call], _: source.Block) -> list[bytes]:
        return [self._data] * len(calls)


def chain_read(name: str, read: Callable[[Any], Awaitable[object]], types_: list[str], values: list[Any]) -> Parser:
    return Parser(
        name,
        lambda data: run(lambda: read(Answering(data))),
        encode(types_, values),
        "bytes",
        ("oracle.chain.abi:_decode", "enclave_app.protocol.abi:_word", "enclave_app.protocol.abi:_uint.read"),
    )


def _rpc_answer(data: bytes) -> object:
    return rpc._result(_RPC._decode(data, rpc.MAX_ANSWER))


def _log(data: bytes, name: str, topics: int) -> Log:
    return Log("0x" + "11" * 20, (events.topic(name), *[bytes(32)] * topics), data, 1, bytes(32), bytes(32), 0)


def _requested() -> bytes:
    asked = story().record.request
    return encode([structs.TaskRequest.abi_type(), "string"], [asked.to_abi(), "ipfs://x"])


def _activated() -> bytes:
    agreed = story().record.agreement
    return encode([structs.Agreement.abi_type(), "bytes[]"], [agreed.to_abi(), [b"\x01" * 65]])


_LOG = {
    "address": "0x" + "11" * 20,
    "topics": ["0x" + "22" * 32],
    "data": "0x00",
    "blockNumber": "0x1",
    "blockHash": "0x" + "33" * 32,
    "transactionHash": "0x" + "44" * 32,
    "logIndex": "0x0",
}
_RECEIPT = {
    "transactionHash": "0x" + "44" * 32,
    "blockNumber": "0x1",
    "blockHash": "0x" + "33" * 32,
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x1",
    "status": "0x1",
    "contractAddress": "0x" + "55" * 20,
    "logs": [_LOG],
}
_HEADER = {"number": "0x1", "hash": "0x" + "33" * 32, "parentHash": "0x" + "44" * 32, "timestamp": "0x5"}


def enveloped(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    """The result in a JSON-RPC answer."""
    return lambda data: read(_rpc_answer(b'{"jsonrpc":"2.0","id":1,"result":' + data + b"}"))


def _mined(raw: Any) -> object:
    return events.logs_of_receipt(sender.read_receipt(raw).raw)


def _revert(data: bytes) -> object:
    return explain_revert(RpcFault(3, "execution reverted", data))


# --- files, keys, tables ---------------------------------------------------------------------------------------------

_TABLE = pa.table(
    {
        "a": pa.array([1, None, 3]),
        "s": ["x", "yy", None],
        "b": [True, False, None],
        "d": [datetime.date(2020, 1, 1)] * 3,
        "m": [decimal.Decimal("1.5")] * 3,
        "t": pa.array([1, 2, 3], pa.timestamp("s", "UTC")),
        "e": pa.array(["p", "q", "p"]).dictionary_encode(),
    }
)


def ipc(table: pa.Table = _TABLE, *, file: bool = False, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def parquet(table: pa.Table = _TABLE) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _all_rows(path: Path) -> object:
    table = sources.open_source(path)
    return [batch.to_struct_array().nbytes for batch in table.batches]


def _touch(data: bytes) -> object:
    """A table from outside, with every value touched: what is left to fail then is only Python's calendar."""
    table = arrow.read_table(data, most_rows=1000)
    with contextlib.suppress(ValueError, ArithmeticError):
        table.to_pylist()
    return table


def _from_child(data: bytes) -> object:
    """A sandboxed child's whole answer: head, then parts."""

    async def receive() -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            # What does not fit the socket's buffer would never be read, either.
            theirs.sendall(data[:100_000])
            theirs.shutdown(socket.SHUT_WR)
            return await receive_answer(ours, 1000)

    return asyncio.run(receive())


def _child_answer() -> bytes:
    head = json.dumps({"ok": True, "rows": [3], "parts": [2, 1]}).encode()
    return len(head).to_bytes(4, "big") + head + b"abc"


_PAPERS = story().papers
assert _PAPERS.collateral is not None
_COLLATERAL = _PAPERS.collateral
_QUOTE = story().record.evidence.quote


def _verified(quote: bytes = _QUOTE, collateral: Collateral = _COLLATERAL, root: bytes | None = None) -> object:
    der = root if root is not None else authority().root_der
    return verify(parse_evidence(1, quote), collateral, der, story().time)


_CHIP = snp_kit.Authority().chip()
_LINKS = nitro_kit.links()
_DOCUMENT, _ = nitro_kit.document(_LINKS)


def _guest(report: bytes | None = None, ark: bytes | None = None, **parts: bytes) -> object:
    """A guest's evidence with one part of it from outside."""
    parsed = parse_evidence(3, _CHIP.report() if report is None else report)
    root = _CHIP.authority.ark if ark is None else ark
    return verify(parsed, replace(_CHIP.endorsements, ark=root, **parts), root, snp_kit.NOW)


def _document(data: bytes) -> object:
    parsed = parse_evidence(4, data)
    assert isinstance(parsed, NitroDocument)
    return verify(parsed, None, parsed.cabundle[0], nitro_kit.NOW)


def _content(data: bytes) -> object:
    return _document(nitro_kit.sign(data, _LINKS[-1].key))


def _collateral(data: bytes) -> object:
    found = Collateral.from_json(data)
    with contextlib.suppress(OracleError):
        assert found.tcb_evaluation + found.qe_evaluation >= 0
        found.window()
    with contextlib.suppress(OracleError):
        platform_named(found)
    return _verified(collateral=found)


def _evaluation_list() -> bytes:
    tcb = json.loads(_COLLATERAL.tcb_info)
    row = {"tcbEvaluationDataNumber": 17, "tcbRecoveryEventDate": tcb["issueDate"]}
    value = {"id": "SGX", "version": 1, "tcbEvalNumbers": [row]}
    return json.dumps({**value, "issueDate": tcb["issueDate"], "nextUpdate": tcb["nextUpdate"]}).encode()


def _evaluations(data: bytes) -> object:
    """Whatever it says, signed by who should."""
    text = data.decode("utf-8", "surrogateescape")
    signature = sign_raw(authority()._tcb.key, text.encode("utf-8", "surrogatepass")).hex()
    listed = Evaluations(Tee.SGX, Signed(text, signature, _COLLATERAL.tcb_info_issuer_chain))
    return check_evaluations(listed, authority().root_der, story().time)


def _shown(data: bytes) -> object:
    """What the contracts are told of it: the posts, and evidence that names a level."""
    found = Collateral.from_json(data)
    parsed = parse_dcap(1, _QUOTE)
    return posts(found, quote_chain(parsed)), dcap_evidence(parsed, found)


def _checks_receipt(data: bytes) -> object:
    """Never raises; and whatever it is given, a report that names the first link that fails."""
    found = verify_receipt(data, Expected(), story().time, allow_simulated=True)
    assert all(len(link.detail) <= 1000 for link in found.links)
    return read_receipt(data)


def _platform(data: bytes) -> object:
    home = _HOME / "platform"
    if not home.exists():
        made = DevelopmentAuthority(story().time)
        made.issue_platform().write(home, made.collateral())
    (home / "platform.json").write_bytes(data)
    return Platform.load(home)


def _platform_json() -> bytes:
    of = platform()
    value = {"serial": f"{of.serial:x}", "ppid": of.ppid.hex(), "fmspc": of.fmspc.hex(), "cpu_svn": of.cpu_svn.hex()}
    return json.dumps({**value, "pce_svn": of.pce_svn}).encode()


_SIGNED_REQUEST = asking.SignedRequest(
    chain_id=31337, oracle=story().record.agreement.oracle, request=story().record.request,
    admission=onchain.admission(story().record.agreement), payment=onchain.ALLOWANCE, signature=bytes(65),
)  # fmt: skip
_AGREEMENT = document.AgreementDocument(chain=story().record.chain, agreement=story().record.agreement)
_BROKER_YAML = {
    "directory": "broker", "passwordFile": "password", "collateral": {"pcs": "https://c.example", "cache": "c"},
    "chains": [
        {"chainId": 1, "agreementRegistries": ["0x" + "11" * 20], "rpc": ["https://a.example", "https://b.example"]}
    ],
}  # fmt: skip
_WORKER_YAML = {
    "rpc": ["https://a.example"], "deployment": "deployment.json", "journal": "j.sqlite",
    "enclave": {"socket": "s.sock", "config": "e.json"}, "storage": {"read": ["file:///x"], "write": "file:///x"},
    "brokers": {"0x" + "22" * 32: "https://b.example"}, "wallet": {"keyFile": "key"}, "payee": "0x" + "11" * 20,
}  # fmt: skip
_CLIENT_YAML = {
    "rpc": "https://a.example", "deployment": "deployment.json", "storage": ["file:///x"],
    "brokers": {"0x" + "22" * 32: "https://b.example"},
}  # fmt: skip
_FUNCTION_YAML = {
    "name": "f", "kind": "sql", "entry": "q.sql", "tables": {"t": {"a": "int64"}},
    "params": [{"name": "n", "type": "integer", "min": 1, "max": 2}], "outputs": ["result"],
}  # fmt: skip
_POLICY_YAML = {
    "measurements": ["0x" + "11" * 32], "registers": {"mrtd": ["0x" + "22" * 48]}, "anchors": "skip",
    "statuses": ["UpToDate"], "evaluation_floor": 17,
    "snp": {"vmpl": [0], "keys": ["VCEK"], "min_tcb": {"Milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}}},
}  # fmt: skip


@cache
def _case() -> Case:
    home = _HOME / "case"
    home.mkdir()
    return make_case(home)


def _drafted(data: bytes) -> object:
    return build_draft(parse_yaml(data), base=_case().base, now=_case().now)


def _deployment_file() -> bytes:
    value = {**example(Deployment), "firstBlock": 1}
    (_HOME / "deployment.json").write_bytes(json.dumps(value).encode())
    return json.dumps(value).encode()


def _packed(path: Path) -> object:
    (path.parent / "q.sql").write_text("SELECT 1")
    read_spec(path)
    return pack_directory(path)


def _log_file() -> bytes:
    entry = Entry(seq=0, prev=bytes(32), time=1, event=Started(broker=bytes(32), version="1"))
    return Line(entry=entry, signature=SIGNER.sign(entry.digest)).canonical() + b"\n"


def _backup_file() -> bytes:
    shown = card.BrokerCard(hpke_key=SEALING.public.wire, digest=SEALING.public.digest, signer=SIGNER.address)
    content = Content(card=shown, hpke=_HPKE_FILE, signer=_KEYSTORE, length=0, head=bytes(32), time=1)
    return Backup(content=content, signature=SIGNER.sign(content.digest)).canonical() + b"\n"


def _all_entries(path: Path) -> object:
    report = verify_log(path, SIGNER.address)
    own = check_file(path, SIGNER.address, lambda _line: None)
    assert report.first_bad is None or len(report.first_bad.message) <= 1000
    assert report.first_bad is not None or own.first_bad is None
    return list(read_log(path))


_SEALED = SEALING.public.seal(b"plaintext", b"info")
_STREAM = bytes(streaming.encrypt(bytes(32), b"plaintext", b"", salt=bytes(32), prefix=bytes(streaming.PREFIX_BYTES)))
_OUTPUT = seal_output(TaskSecret([bytes(32)], bytes(32), bytes(32)), "o", b"plaintext", 64, 2)
_DOMAIN = vector("params.json", "domain").encode()
_MANIFEST = vector("manifest.json", "cases", 0, "canonical").encode()
_BUNDLE = bytes.fromhex(vector("bundle.json", "bundle")[2:])
_LIST = shares.make_share_list(
    bytes(32), [SECRET], 1, [SEALING.public],
    shares.DatasetBinding(chain_id=1, registry="0x" + "11" * 20, owner="0x" + "11" * 20, dataset=bytes(32)),
    shares.random_coefficients(1),
).canonical()  # fmt: skip


def _listed(data: bytes) -> object:
    found = shares.read_share_list(data, bytes(32), None)
    binding = shares.DatasetBinding(chain_id=1, registry="0x" + "11" * 20, owner="0x" + "11" * 20, dataset=bytes(32))
    return shares.open_shares(found, SEALING, binding)


def _bases(data: str) -> None:
    Storage(None, ("file", "http", "https"), EnclaveLog()).check_bases([data])  # type: ignore[arg-type]


_KEYSTORE = written("w", lambda p: keys._write_keystore(p, SECRET, lambda: PASSWORD, CHEAP))
_HPKE_FILE = written("h", lambda p: keys.create_hpke_key(p, lambda: PASSWORD, n=CHEAP))
_OWNED = keyfile.DatasetKeys(bytes(32), (SECRET, SECRET))
_KEYS_FILE = written("k", lambda p: keyfile.write_keys(p, _OWNED, lambda: PASSWORD, n=CHEAP))
_PLAIN_KEYS = written("p", lambda p: keyfile.write_keys(p, _OWNED, None, dangerous_plaintext_keys=True))
_SECRETS = (SECRET.hex(), PASSWORD)


def _card() -> bytes:
    public = SEALING.public
    return card.BrokerCard(hpke_key=public.wire, digest=public.digest, signer=SIGNER.address).canonical()


def _any_public_key(path: Path) -> object:
    _format(path)
    return keys.read_public_key(path)


_CHAIN = "oracle.chain"
_ABI = ("oracle.chain.abi:_decode", "oracle.chain.events:_typed", "enclave_app.protocol.eip712:Struct.from_abi")

_SGX = recorded("sgx/automata-sgx-v3-a/quote.bin")
_TDX = recorded("tdx/phala-tdx-v4/quote.bin")
_SNP = recorded("snp/dstack-milan-v3/report.bin")

PARSERS: list[Parser] = [
    # The protocol's own documents.
    Parser("canonical JSON", canonical.load, b'{"a":[1,"x"]}', covers=("enclave_app.protocol.canonical:load",)),
    Parser("an enclave's configuration", read_config, EnclaveConfig(attester="software").canonical(),
           covers=("enclave_app.config:read_config", "enclave_app.protocol.canonical:parse",
                   "enclave_app.protocol.canonical:validate")),
    Parser("a bundle", lambda d: read_bundle(d, None), _BUNDLE, "bytes", ("enclave_app.protocol.bundle:read_bundle",)),
    Parser("a manifest", lambda d: read_manifest(d, sha256(d)), _MANIFEST,
           covers=("enclave_app.protocol.manifest:read_manifest", "enclave_app.tables:manifest_of")),
    Parser("a share list", _listed, _LIST,
           covers=("enclave_app.protocol.shares:read_share_list", "enclave_app.protocol.hpke:SealingKey.open")),
    Parser("a parameter domain", lambda d: read_domain(d, sha256(d)), _DOMAIN,
           covers=("enclave_app.protocol.params:read_domain", "enclave_app.protocol.fields:parse_date")),
    Parser("an agreement's ABI", structs.Agreement.abi_decode, story().record.agreement.abi_encode(), "bytes",
           ("enclave_app.protocol.abi:decode_strict", "enclave_app.protocol.eip712:Struct.abi_decode",
            "enclave_app.protocol.eip712:Struct.from_abi", "enclave_app.protocol.abi:_word")),
    Parser("a digest", text(parse_digest), b"0x" + b"11" * 32, "bytes", ("enclave_app.protocol.digests:parse_digest",)),
    Parser("an HPKE public key", hpke.PublicKey, SEALING.public.wire, "bytes", ("enclave_app.agreed:fetch_materials",)),
    Parser("an HPKE message", lambda d: SEALING.open(d, b"info"), _SEALED, "bytes",
           ("enclave_app.protocol.hpke:SealingKey.open", "enclave_app.protocol.hpke:SealingKey.__init__")),
    Parser("a release answer", release.unpack_answer, release.pack_answer(1, {(0, 0): SECRET}), "bytes",
           ("enclave_app.protocol.release:unpack_answer",), secrets=_SECRETS),
    Parser("padding", output.unpad, output.pad(b"plaintext", 64), "bytes", ("enclave_app.protocol.output:unpad",)),
    Parser("a stream", lambda d: streaming.decrypt(bytes(32), d, b""), _STREAM, "bytes",
           ("enclave_app.protocol.output:open_output",)),
    Parser("a sealed output", lambda d: output.open_output(_OUTPUT.manifest, d, _OUTPUT.key, bytes(32), bytes(32), "o"),
           bytes(_OUTPUT.ciphertext), "bytes", ("enclave_app.protocol.output:open_output",)),
    Parser("a signature", lambda d: signing.recover(bytes(32), d), SIGNER.sign(bytes(32)), "bytes",
           ("enclave_app.protocol.signing:recover", "enclave_app.protocol.signing:check",
            "oracle.agreement.consent:_signer", "oracle.agreement.enclave:check_operator",
            "oracle.receipt.links:Case.signed_statements.holds", "oracle.cli.consent:_signed",
            "oracle.keybroker.output:check_shares_statement", "oracle.keybroker.checks:check_asked")),
    Parser("a Parquet container", lambda d: pme.check_container(memoryview(d)), b"PARE" + b"\x1c\x1c" + bytes(8) +
           (10).to_bytes(4, "little") + b"PARE", "bytes", ("enclave_app.protocol.pme:check_container",)),
    Parser("a wrapped data key", text(lambda t: pme.ColumnKeys({1: SECRET}).unwrap_key(t, "k1")),
           pme.ColumnKeys({1: SECRET}).wrap_key(bytes(32), "k1").encode(), "bytes",
           ("enclave_app.protocol.pme:ColumnKeys.unwrap_key",), secrets=_SECRETS),
    # Messages.
    message(enclave_wire.TaskBody, "enclave_app.server:_read"),
    message(enclave_wire.RunBody, "enclave_app.server:_read"),
    message(enclave_wire.BatchBody, "enclave_app.server:_read"),
    message(enclave_wire.BatchAnswer, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.EvidenceBody, "enclave_app.server:_read"),
    message(enclave_wire.RetireBody, "enclave_app.server:_read"),
    message(enclave_wire.RetireAnswer, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.AppraisalBody, "enclave_app.server:_read"),
    message(enclave_wire.AppraisalAnswer, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.Identity, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.EvidenceAnswer, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.TaskStarted, "oracle.worker.enclave:Enclave._ask"),
    message(enclave_wire.TaskDone, "oracle.worker.enclave:Enclave._ask"),
    message(release.ReleaseBody, "oracle.keybroker.intake:Intake.body", "oracle.keybroker.server:Service._parsed"),
    message(release.OutputBody, "oracle.keybroker.intake:Intake.body"),
    message(release.ReleaseAnswer, "oracle.worker.brokers:BrokerClient.release"),
    message(release.OutputAnswer, "oracle.client:Client.post_output"),
    message(release.ErrorBody, "oracle.client:Client.post_output"),
    message(release.TaskRecord, "oracle.client:Client.record", valid=story().record.canonical()),
    Parser("a service's error", lambda d: error_of(d, 500, "it"), canonical.dump(example(release.ErrorBody)),
           covers=("oracle.worker.enclave:error_of",)),
    Parser("a sandboxed child's answer", _from_child, _child_answer(), "bytes",
           ("enclave_app.sandbox.channel:receive_answer", "enclave_app.sandbox.channel:_exactly")),
    # Evidence.
    Parser("a quote", lambda d: _verified(quote=d), _QUOTE, "bytes",
           ("oracle.attestation.quote:_Reader.number", "oracle.attestation.qvl:verify_quote")),
    Parser("an SEV-SNP report", lambda d: _guest(report=d), _CHIP.report(), "bytes",
           ("enclave_app.appraise.snp_report:_number",)),
    Parser("an endorsement key's certificate", lambda d: _guest(ek=d), _CHIP.ek, "bytes",
           ("enclave_app.appraise.certificates:read_certificate",)),
    Parser("AMD's signing key's certificate", lambda d: _guest(ask=d), _CHIP.authority.ask, "bytes"),
    Parser("AMD's root", lambda d: _guest(ark=d), _CHIP.authority.ark, "bytes"),
    Parser("a maker's revocation list", lambda d: _guest(crl=d), _CHIP.authority.crl(1), "bytes",
           ("enclave_app.appraise.certificates:check_revocation",)),
    Parser("a Nitro document", _document, _DOCUMENT, "bytes",
           ("enclave_app.appraise.cbor:_Reader._head", "enclave_app.appraise.nitro:_check_signature")),
    Parser("a Nitro document's content", _content, cbor2.loads(_DOCUMENT)[2], "bytes"),
    Parser("a dstack attestation", lambda d: parse_evidence(4, bare_document(d)),
           recorded_kit.evidence(recorded_kit.case("dstack-prod-2025")), "bytes", ("oracle.attestation.dstack:_compact",)),
    Parser("collateral", _collateral, _COLLATERAL.to_json().encode(),
           covers=("oracle.attestation.collateral:_load", "oracle.attestation.collateral:crl_window",
                   "oracle.attestation.collateral:document_window", "oracle.collateral.cache:Files.read",
                   "oracle.collateral.platform:platform_named",
                   "oracle.chain.collateral:_issued",
                   "oracle.receipt.document:ReceiptCollateral.of")),
    Parser("a registration's evidence", lambda d: read_evidence(1, d),
           dcap_evidence(parse_dcap(1, _QUOTE), _COLLATERAL), "bytes",
           ("oracle.chain.registrations:read_evidence", "oracle.chain.registrations:_versions",
            "oracle.attestation.onchain.evidence:versions")),
    Parser("fetched collateral",
           lambda d: check_collateral(Collateral.from_json(d), None, authority().root_der, story().time),
           _COLLATERAL.to_json().encode(),
           covers=("oracle.collateral.check:_check_crl", "oracle.collateral.check:_check_signed",
                   "oracle.collateral.check:_object")),
    Parser("a list of evaluations", _evaluations, _evaluation_list(), covers=("oracle.collateral.check:_evaluation",)),
    Parser("a signed document", lambda d: signed_document(d, "tcbInfo"),
           f'{{"tcbInfo":{_COLLATERAL.tcb_info},"signature":"{_COLLATERAL.tcb_info_signature}"}}'.encode()),
    Parser("a header's chain", text(lambda t: issuer_chain(CIMultiDict({"Chain": t}), "Chain")),
           quote(_COLLATERAL.tcb_info_issuer_chain).encode(), "bytes"),
    Parser("a service's revocation list", _der, bytes.fromhex(_COLLATERAL.pck_crl), "bytes",
           ("oracle.collateral.pcs:_der",)),
    Parser("collateral for the contracts", _shown, _COLLATERAL.to_json().encode(),
           covers=("oracle.attestation.onchain.collateral:_crl", "oracle.attestation.onchain.collateral:posts",
                   "oracle.attestation.onchain.evidence:versions", "oracle.attestation.onchain.structs:_modules",
                   "oracle.attestation.onchain.structs:_seconds",
                   "oracle.attestation.onchain.structs:_hex")),
    Parser("a certificate chain", text(pem_chain), platform().chain_pem, "bytes",
           ("oracle.attestation.collateral:pem_chain",)),
    Parser("a PCK certificate", pck_values, platform().chain_pem, "bytes", errors=(OracleError, QvlRefused)),
    Parser("a root", lambda d: (DevelopmentRoot(d), _verified(root=d)), authority().root_der, "bytes",
           ("oracle.attestation.anchors:load_root", "oracle.keybroker.trust:load_roots")),
    Parser("a root in a draft", in_file("root", lambda p: References(p.parent, {}).anchors("root", "x")),
           authority().root_der, "bytes",
           ("oracle.agreement.references:_anchor_digest", "oracle.agreement.references:References._read")),
    Parser("an appraisal policy", text(AppraisalPolicy.from_yaml), json.dumps(_POLICY_YAML).encode(), "yaml",
           ("oracle.attestation.policy:AppraisalPolicy.from_yaml", "oracle.attestation.policy:_bytes_of.convert")),
    Parser("a quote's measurement", lambda d: quoted_measurement(2, d), _QUOTE + bytes(600), "bytes",
           ("enclave_app.identity:quoted_measurement",), errors=(ValueError,)),
    Parser("an SGX quote from its platform", lambda d: sgx_quote(d, bytes(64)), _SGX, "bytes",
           ("enclave_app.attesters.bound:_number",), errors=(EvidenceError,)),
    Parser("a TDX quote from its platform", lambda d: tdx_quote(d, _TDX[568:632]), _TDX, "bytes",
           ("enclave_app.attesters.bound:_number",), errors=(EvidenceError,)),
    Parser("a report from its platform", lambda d: snp_report(d, _SNP[0x50:0x90]), _SNP, "bytes", errors=(EvidenceError,)),
    Parser("a host's certificate table", lambda d: certificates.endorsements(d, _SNP),
           packed_table(certificate_table(certificates.VCEK)), "bytes",
           ("enclave_app.attesters.certificates:read_table", "enclave_app.attesters.certificates:endorsements"),
           errors=(EvidenceError,)),
    Parser("a Nitro Secure Module's answer", nitro.read_response,
           b"\xa1\x6bAttestation\xa1\x68document\x58\x20" + bytes(32), "bytes",
           ("enclave_app.attesters.nitro:read_response",), errors=(EvidenceError, PlatformError)),
    Parser("a dstack guest agent's answer", dstack.read_answer, b'{"quote":"00ff","event_log":"[]"}',
           covers=("enclave_app.attesters.dstack:read_answer",), errors=(EvidenceError,)),
    Parser("a kind of attestation", in_file("attestation_type", lambda p: gramine.attestation_type(p.parent)), b"dcap",
           "bytes", ("enclave_app.attesters.gramine:attestation_type",), errors=(EvidenceError,)),
    Parser("a report's generation", in_file("generation", lambda p: _generation(p.parent)), b"1\n", "bytes",
           ("enclave_app.attesters.configfs_tsm:_line",), errors=(EvidenceError,)),
    Parser("a platform", _platform, _platform_json(), covers=("enclave_app.attesters.platform:Platform.load",),
           errors=(PlatformError,)),
    # Receipts.
    Parser("a receipt", _checks_receipt, story().receipt,
           covers=("oracle.receipt.document:read_receipt",)),
    # The chain.
    Parser("a JSON-RPC answer", _rpc_answer, b'{"jsonrpc":"2.0","id":1,"result":"0x1"}',
           covers=(f"{_CHAIN}.rpc:Rpc._decode",)),
    Parser("the answer to a subscription", text(check_subscribed), b'{"jsonrpc":"2.0","id":1,"result":"0x1"}',
           covers=(f"{_CHAIN}.subscription:check_subscribed",)),
    Parser("a JSON-RPC error", lambda d: _rpc_error(d),
           b'{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"no","data":"0x"}}',
           covers=(f"{_CHAIN}.rpc:_maybe_bytes",)),
    Parser("a quantity", enveloped(rpc.as_int), b'"0x1f"', covers=(f"{_CHAIN}.rpc:as_int",)),
    Parser("a block", enveloped(source.read_block), json.dumps(_HEADER).encode(), covers=(f"{_CHAIN}.rpc:_maybe_bytes",)),
    Parser("logs", enveloped(events._logs), json.dumps([_LOG, _LOG]).encode(), covers=(f"{_CHAIN}.rpc:_maybe_bytes",)),
    Parser("a transaction's receipt", enveloped(_mined), json.dumps(_RECEIPT).encode()),
    Parser("TaskRequested", lambda d: events.read_event(_log(d, "TaskRequested", 3)), _requested(), "bytes", _ABI),
    Parser("AgreementActivated", lambda d: events.read_event(_log(d, "AgreementActivated", 1)), _activated(), "bytes",
           _ABI),
    Parser("revert data", _revert, bytes.fromhex("08c379a0") + encode(["string"], ["no"]),
           "bytes", _ABI),
    chain_read("a task's state", lambda s: reader.OracleReader(s, "0x" + "11" * 20).task(bytes(32), bytes(32), _BLOCK),
               ["uint8", "uint40", "uint40", "uint40", "uint128", "bytes31", "bool"], [1, 1, 1, 1, 1, bytes(31), False]),
    chain_read("a recorded consent",
               lambda s: reader.AgreementReader(s, "0x" + "11" * 20).consents(bytes(32), ["0x" + "11" * 20], _BLOCK),
               ["uint8"], [2]),
    # YAML.
    Parser("YAML", parse_yaml, b"a: [1, two]\nb: {c: 'x'}\n", "yaml",
           ("oracle.yamlfile:parse_yaml", "oracle.yamlfile:read_yaml")),
    Parser("a broker's configuration", in_file("broker.yaml", read_broker_config), json.dumps(_BROKER_YAML).encode(),
           "yaml", ("oracle.keybroker.config:read_config", "oracle.keybroker.config:_endpoint",
                    "oracle.collateral.config:PcsConfig._address", "oracle.yamlfile:validate_yaml", "oracle.yamlfile:read_yaml")),
    Parser("a worker's configuration", in_file("worker.yaml", WorkerConfig.read), json.dumps(_WORKER_YAML).encode(),
           "yaml", ("oracle.worker.config:WorkerConfig.read",)),
    Parser("a client's configuration", in_file("oracle.yaml", lambda p: _client(p)), json.dumps(_CLIENT_YAML).encode(),
           "yaml", ("oracle.config:read_client_config",)),
    Parser("a function's description", in_file("function.yaml", _packed), json.dumps(_FUNCTION_YAML).encode(), "yaml",
           ("oracle.function.spec:read_spec",
            "oracle.function.spec:pack_function", "oracle.function.spec:_table")),
    Parser("a draft", _drafted, json.dumps(_case().value).encode(), "yaml",
           ("oracle.agreement.draft:build_draft", "oracle.agreement.draft:draft_agreement",
            "oracle.agreement.references:References.party", "oracle.agreement.references:References.card")),
    Parser("parties", in_file("parties.yaml", cli_receipt.read_parties),
           json.dumps(["0x" + "11" * 20]).encode(), "yaml", ("oracle.cli.receipt:read_parties",)),
    # Files.
    Parser("a deployment", in_file("deployment.json", Deployment.read), _deployment_file(),
           covers=("oracle.chain.deploy:Deployment.read",)),
    Parser("a signed request", in_file("r.json", asking.read_signed_request), _SIGNED_REQUEST.canonical(),
           covers=("oracle.asking:parse_signed_request", "oracle.asking:read_signed_request")),
    Parser("a public output", lambda d: decode_row(("int64", "string", "bool"), d),
           encode_row(("int64", "string", "bool"), (-3, "größe", True)), "bytes",
           ("enclave_app.protocol.abi_output:decode_row", "enclave_app.protocol.abi:_int256")),
    Parser("an agreement's file", in_file("a.json", document.read_document), _AGREEMENT.canonical(),
           covers=("oracle.agreement.document:parse_document", "oracle.agreement.document:read_document",
                   "oracle.agreement.document:_rebuilt")),
    Parser("a broker's card", in_file("card", card.read_card), _card(),
           covers=("oracle.card:read_card", "oracle.card:BrokerCard.public_key")),
    Parser("a manifest's file", in_file("manifest.json", seal.load_manifest), _MANIFEST,
           covers=("oracle.dataset.seal:load_manifest",)),
    Parser("a broker's log", in_file("log.jsonl", _all_entries), _log_file(), "bytes",
           ("oracle.keybroker.log:read_line", "oracle.keybroker.log:check_file", "oracle.keybroker.log:glimpse",
            "oracle.keybroker.log:_check_answer")),
    Parser("a broker's backup", in_file("backup", read_backup), _backup_file(),
           covers=("oracle.keybroker.backup:read_backup",)),
    Parser("an address's file", in_file("address", lambda p: addresses.read_address(p.name, p.parent)),
           b'{"address": "0x' + b"11" * 20 + b'"}', covers=("oracle.addresses:read_address",)),
    Parser("a task's file", in_file("task.json", lambda p: cli_task.find_task_id(str(p))),
           b'{"task_id": "0x' + b"11" * 32 + b'"}'),
    # Keys.
    Parser("a keystore", in_file("w.json", lambda p: keys.load_wallet(p, lambda: PASSWORD)), _KEYSTORE,
           covers=("oracle.keys:_keystore", "oracle.keys:load_wallet"), secrets=_SECRETS),
    Parser("an HPKE key's file", in_file("h.json", lambda p: keys.load_hpke_key(p, lambda: PASSWORD)), _HPKE_FILE,
           covers=("oracle.keys:load_hpke_key", "oracle.passwords:unlock"), secrets=_SECRETS),
    Parser("a public key's file", in_file("pub", _any_public_key), _card(),
           covers=("oracle.keys:read_public_key", "oracle.keys:_card_key", "oracle.cli.keys:_format")),
    Parser("a raw key's file", in_file("raw", keys.load_raw_key), SECRET.hex().encode(), "bytes",
           ("oracle.keys:_raw_key", "oracle.passwords:read_secret"), secrets=_SECRETS),
    Parser("locked dataset keys", in_file("k.json", lambda p: keyfile.read_keys(p, lambda: PASSWORD)), _KEYS_FILE,
           covers=("oracle.dataset.keyfile:read_keys",), secrets=_SECRETS),
    Parser("plaintext dataset keys", in_file("p.json", lambda p: keyfile.read_keys(p, None)), _PLAIN_KEYS,
           covers=("oracle.dataset.keyfile:read_keys",), secrets=_SECRETS),
    Parser("a password's file", in_file("pw", lambda p: (passwords.password_file(p)(), read_password(p))),
           PASSWORD.encode(), "bytes", ("oracle.passwords:password_file.read",),
           secrets=_SECRETS),
    # Tables.
    Parser("an output's table", _touch, ipc(), "bytes",
           ("oracle.arrow:read_table", "oracle.arrow:_check_messages", "oracle.arrow:_field", "oracle.arrow:_number",
            "oracle.task:Task.result", "oracle.function.trial:try_function")),
    Parser("an Arrow stream to seal", in_file("t.arrow", _all_rows), ipc(compression="lz4"), "bytes",
           ("oracle.dataset.sources:_open_arrow", "oracle.dataset.sources:_read_all")),
    Parser("an Arrow file to seal", in_file("f.arrow", _all_rows), ipc(file=True), "bytes",
           ("oracle.dataset.sources:_open_arrow",)),
    Parser("a Parquet file to seal", in_file("t.parquet", _all_rows), parquet(), "bytes",
           ("oracle.dataset.sources:_open",)),
    Parser("a CSV file to seal", in_file("t.csv", _all_rows), b"a,b\n1,2020-01-01\n2,2021-01-01\n", "bytes",
           ("oracle.dataset.sources:_open",)),
    Parser("a column's type", text(types.parse_type), b"timestamp[us, tz=UTC]", "bytes", errors=()),
    # Addresses and amounts.
    Parser("a storage URI", text(storage.open_storage), b"https://a.example/x", "bytes", ("oracle.storage:open_storage",)),
    Parser("an object store's URI", text(objects.open_objects), b"s3://bucket/a?endpoint=https://s3.example&region=x",
           "bytes", ("oracle.objects:open_objects", "oracle.objects:_is_endpoint")),
    Parser("a name in the spool", text(spool._read_name), b"11" * 32, "bytes", ("oracle.worker.spool:_read_name",)),
    Parser("an enclave's storage URI", text(_bases), b"file:///x", "bytes",
           ("enclave_app.fetch:Storage.check_bases", "enclave_app.fetch:Storage._chunks")),
    Parser("an address", text(common.parse_address), b"0x" + b"11" * 20, "bytes"),
    Parser("an id", text(lambda t: common.parse_id(t, "task")), b"0x" + b"11" * 32, "bytes"),
    Parser("a parameter", text(lambda t: _parameter(t)), b"12", "bytes"),
    Parser("a moment", text(units.moment), b"2026-12-31", "bytes", ("oracle.agreement.units:moment",),
           errors=(ValueError,)),
    Parser("an amount", text(units.wei), b"0.01 ether", "bytes", errors=(ValueError,)),
    Parser("parameters", lambda d: params.ParamDomain.model_validate_json(_INTEGER).read(d), b'{"n":1}'),
]  # fmt: skip


_INTEGER = '{"params": [{"type": "integer", "name": "n", "min": 1, "max": 2}]}'


def _parameter(given: str) -> object:
    domain = params.ParamDomain.model_validate_json(_INTEGER)
    return common.typed_params({"n": given}, domain)


def _rpc_error(data: bytes) -> object:
    try:
        return _rpc_answer(data)
    except RpcFault as fault:
        return explain_revert(fault)


def _client(path: Path) -> object:
    _deployment_file()
    return config.read_client_config(path)
