"""No parser of outside bytes without an entry: whatever decodes something is covered by a property, or excused by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.parsers import PARSERS

ROOT = Path(__file__).parents[2]
DECODERS = {
    # text and documents
    *("loads", "safe_load", "load_all", "compose", "literal_eval", "parse", "validate", "model_validate"),
    *("model_validate_json", "validate_python", "parse_yaml", "read_yaml", "validate_yaml", "from_json", "from_yaml"),
    *("urlsplit", "fromisoformat", "decode_rpc_response"),
    # numbers and bytes
    *("from_bytes", "unpack", "unpack_from", "iter_unpack", "fromhex", "unhexlify", "b64decode", "a2b_base64"),
    # the ABI
    *("abi_decode", "decode_strict", "decode_members", "from_abi", "decode_abi"),
    # tables
    *(
        "open_stream",
        "open_file",
        "read_record_batch",
        "ParquetFile",
        "read_table",
        "open_csv",
        "read_csv",
        "read_feather",
    ),
    *("extract_statements",),
    # keys, signatures, certificates
    *("PublicKey", "recover", "decrypt", "load_der_x509_certificate", "load_pem_x509_certificate"),
    *(
        "load_pem_x509_certificates",
        "load_der_x509_crl",
        "load_pem_x509_crl",
        "load_pem_private_key",
        "load_der_private_key",
    ),
    # archives and objects
    *("TarFile", "ZipFile", "GzipFile", "decompress", "Unpickler"),
    # where bytes come in
    *(
        "read_bytes",
        "read_text",
        "read_file",
        "read_secret",
        "readline",
        "recv",
        "sock_recv",
        "recv_fds",
        "iter_chunked",
    ),
}
"""Calls by which outside bytes become something, by their last name; `int(…, 16)` and `….content.read` count, too."""

OURS = "what it reads, this program or its parent wrote"
OWN_FILE = "a file of whoever runs it, named by its own configuration; its content goes to a covered parser"
CHILD = "runs in a sandboxed child, which may die of it (tests/integration/test_enclave_sandbox.py)"
CHECKED = "its length is fixed, or was checked, before"
TYPED = "a typed value already: it was parsed by what is covered"
STREAM = "an HTTP body, taken in as bytes within a bound (test_bounds.py); what it says goes to a covered parser"

DEVICE = "a pseudo-file or an answer in a buffer, within a bound; what it says goes to a covered parser"

EXCUSED = {
    "oracle.chain.create2:": OURS,
    "oracle.chain.create2:create2_address": TYPED,
    "oracle.chain.create2:first_created_address": TYPED,
    "oracle.chain.index:Index._agreement_activated": TYPED,
    "oracle.chain.events:AgreementApproved.signed": TYPED,
    "oracle.chain.index:Index._task_requested": TYPED,
    "oracle.chain.verification:_sources": OURS,
    "oracle.chain.verification:standard_input": OURS,
    "oracle.cli.contracts:_root": OWN_FILE,
    "oracle.cli.function_audit:_function_id": OWN_FILE,
    "oracle.cli.function_audit:approve": OWN_FILE,
    "oracle.cli.task_relay:_bytes": "a signature from the command line, in hex",
    "oracle.task:Task._shown": "calldata, read in the ABI's strict mode, of which the contract checks every word",
    "oracle.worker.outbox:_read_raw": "a transaction that this worker signed, from its own journal",
    "enclave_app.attesters.configfs_tsm:ConfigfsTsmAttester._report": DEVICE,
    "enclave_app.attesters.dcap_format:": OURS,
    "enclave_app.attesters.gramine:GramineAttester._quote": DEVICE,
    "enclave_app.attesters.measure:_files": OURS,
    "enclave_app.attesters.nitro:NitroAttester._ask": CHECKED,
    "enclave_app.attesters.occlum:OcclumAttester._quote": CHECKED,
    "enclave_app.attesters.platform:": OURS,
    "enclave_app.execution:_decode_job": TYPED,
    "enclave_app.main:main": OWN_FILE,
    "enclave_app.measure:main": OWN_FILE,
    "enclave_app.protocol.bundle:pack": TYPED,
    "enclave_app.protocol.eip712:_word": TYPED,
    "enclave_app.protocol.fields:_to_bytes": CHECKED,
    "enclave_app.protocol.pme:_check_types": OURS,
    "enclave_app.protocol.pme:open_file": CHILD,
    "enclave_app.protocol.shamir:_xor": CHECKED,
    "enclave_app.runtimes.sql:SqlRuntime._serialized": CHILD,
    "enclave_app.runtimes.sql:_single": CHILD,
    "enclave_app.sandbox.channel:_some": CHILD,
    "enclave_app.sandbox.channel:receive_job": OURS,
    "enclave_app.sandbox.host:Sandbox._listen": OURS,
    "enclave_app.sandbox.host:Sandbox.ready": OURS,
    "enclave_app.sandbox.jobs:SqlJob.__call__": CHILD,
    "enclave_app.sandbox.jobs:SqlJob.again": CHILD,
    "enclave_app.sandbox.jobs:decode": CHILD,
    "enclave_app.sandbox.lockdown:_address_space": OURS,
    "enclave_app.sandbox.zygote:_Zygote._child": OURS,
    "enclave_app.sandbox.zygote:_Zygote._command": OURS,
    "enclave_app.tables:_read_file": CHILD,
    "enclave_app.tables:read_stream": CHILD,
    "enclave_app.trial:_run": OURS,
    "oracle.attestation.anchors:": OURS,
    "oracle.attestation.anchors:maker_roots": OURS,
    "oracle.chain.abi:Contract.__init__": OURS,
    "oracle.chain.abi:load": OURS,
    "oracle.chain.enclaves:registered_enclaves": TYPED,
    "oracle.chain.reader:EnclaveReader.record": TYPED,
    "oracle.chain.reader:host_id": TYPED,
    "oracle.chain.registrations:shown_evidence": TYPED,
    "oracle.chain.rpc:Rpc._post": STREAM,
    "oracle.chain.rpc:place_of": OWN_FILE,
    "oracle.chain.bloom:Wanted.__init__": TYPED,
    "oracle.chain.bloom:Wanted.may_be_in": CHECKED,
    "oracle.chain.bloom:bits_of": "any bytes have a hash",
    "oracle.collateral.cache:Cache.platforms": CHECKED,
    "oracle.collateral.pcs:Pcs._get": STREAM,
    "oracle.cli.collateral:_platform": OWN_FILE,
    "oracle.cli.collateral:_quote": OWN_FILE,
    "oracle.cli.collateral:_read": OWN_FILE,
    "oracle.cli.collateral:_root": OWN_FILE,
    "oracle.cli.collateral:_service": "covered as `a broker's configuration`",
    "oracle.cli.enclave:vouch": TYPED,
    "oracle.cli.enclave_chain:_challenge": OWN_FILE,
    "oracle.cli.common:parse_address": "covered as `an address`",
    "oracle.cli.consent:explain_with": OWN_FILE,
    "oracle.cli.dataset:_brokers_of": OWN_FILE,
    "oracle.cli.dataset:_read_shares": OWN_FILE,
    "oracle.cli.evidence:_quote_claims": TYPED,
    "oracle.cli.evidence:_verify": OWN_FILE,
    "oracle.cli.evidence:verify": OWN_FILE,
    "oracle.cli.function:_read": OWN_FILE,
    "oracle.cli.receipt:verify": OWN_FILE,
    "oracle.dataset.open:open_dataset": "an owner's own files, under its own keys, checked by digest first",
    "oracle.devnet.accounts:open_account": OURS,
    "oracle.devnet.fleet:_serves.ready": OURS,
    "oracle.devnet.fleet:_stop": OURS,
    "oracle.devnet.fleet:more_workers": OURS,
    "oracle.devnet.network:Devnet.root": OURS,
    "oracle.devnet.network:Devnet.enclave_pid": OURS,
    "oracle.devnet.network:_write_yaml": OURS,
    "oracle.devnet.processes:Process.tail": OURS,
    "oracle.devnet.scenario:activate_example": OURS,
    "oracle.function.diagnose:explain_sql_error": "an author's own SQL, bound to empty tables without leave to touch files",
    "oracle.function.trial:_read_answer": OURS,
    "oracle.doctor:_attesters": OURS,
    "oracle.keybroker.ledger:Ledger._note": "a covered log's line",
    "oracle.keybroker.backup:back_up": "key files as they are, which the password opened just before",
    "oracle.keybroker.copies:_has_a_line": "looks for a line's end only",
    "oracle.keybroker.segments:Index.count": "rows of a file whose digest the signed log holds",
    "oracle.keybroker.log:_lines": "bounded lines of a covered log",
    "oracle.keybroker.output:check_recipient": "covered as `an HPKE public key`",
    "oracle.receipt.document:read_receipt_file": OWN_FILE,
    "oracle.storage:HttpStorage._read": STREAM,
    "oracle.worker.enclave:Enclave._send": STREAM,
    "oracle.worker.admission:memory_mib": "a number from the kernel",
    "oracle.worker.process:EnclaveProcess._measured": OURS,
    "oracle.cli.worker:_facts": OURS,
    "oracle.worker.desk:find": "hex digits that an operator typed, looked at one by one",
    "oracle.worker.enrolment:Enrolment.retire": "an address that a typed value holds",
    "oracle.worker.postgres:PostgresDatabase._connect": "the address of a server, from one's own configuration",
    "oracle.worker.procfs:_stat": "numbers from the kernel, after the last bracket: a program's name may hold anything",
    "oracle.worker.procfs:listener": "three numbers from the kernel",
    "oracle.worker.procfs:running": "compared with our own words, byte for byte",
    "oracle.worker.rendezvous:Rendezvous.__init__": "an address that the configuration's model has checked",
    "oracle.worker.rendezvous:contender": "an address that a typed value holds",
    "oracle.worker.collateral:open_appraisal": OWN_FILE,
    "oracle.worker.dashboard:Page.read": STREAM,
    "oracle.worker.register:check_evidence": "covered as `an HPKE public key`",
    "oracle.worker.registrars:DcapRegistrar.identify": "covered as `an HPKE public key`",
    "oracle.worker.config:read_host": "covered as `a worker's configuration`",
    "oracle.worker.rows:read_agreement": OURS,
    "oracle.worker.rows:read_task": OURS,
    "oracle.worker.vouching:AttestedRegistrar.identify": "covered as `an HPKE public key`",
    "oracle.worker.vouching:AttestedRegistrar.proof": "covered as `a signature`",
    "oracle.worker.vouching:_read": OWN_FILE,
    "oracle.worker.vouching:open_vouching": OWN_FILE,
}
"""Functions that decode something and need no property of their own, each with the reason."""


def decodes(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        inner = function.value
        if function.attr == "read" and isinstance(inner, ast.Attribute) and inner.attr == "content":
            return True
        return function.attr in DECODERS
    if not isinstance(function, ast.Name):
        return False
    return function.id in DECODERS or (function.id == "int" and len(call.args) == 2)


def found(tree: ast.Module, module: str) -> Iterator[str]:
    """module:qualified.name of each function that decodes something; a module's own body has no name."""

    def walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and decodes(child):
                yield f"{module}:{'.'.join(inside)}"
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, (*inside, getattr(child, "name", "")) if named else inside)

    return walk(tree, ())


def inventory() -> set[str]:
    listed: set[str] = set()
    for package in ("enclave_app", "oracle"):
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            listed.update(found(ast.parse(path.read_text("utf-8")), module))
    return listed


COVERED = {name for parser in PARSERS for name in parser.covers}


def test_every_function_that_decodes_something_is_covered_or_excused() -> None:
    missing = inventory() - COVERED - EXCUSED.keys()
    assert not missing, f"give each a Parser in parsers.py, or a reason in EXCUSED: {sorted(missing)}"


def test_nothing_is_covered_or_excused_that_is_not_there() -> None:
    assert not (COVERED | EXCUSED.keys()) - inventory()


def test_nothing_is_covered_and_excused() -> None:
    assert not COVERED & EXCUSED.keys()


def test_parsers_have_names_of_their_own() -> None:
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(b): return json.loads(b)", ["m:f"]),
        ("class A:\n  async def g(self, r): return await r.content.read(5)", ["m:A.g"]),
        ("def f(x): return int(x, 16)", ["m:f"]),
        ("def f(x): return int(x)", []),
        ("X = bytes.fromhex('00')", ["m:"]),
    ],
)
def test_the_inventory_sees_a_decoder(text: str, names: list[str]) -> None:
    assert list(found(ast.parse(text), "m")) == names
