"""Whether a result is one of a task, and its outputs are the agreed ones (R15, R17)."""

from __future__ import annotations

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.manifest import Manifest, read_manifest
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.structs import Out, Output, Result
from oracle.agreement.terms import Terms
from oracle.errors import Refused


def check_result(terms: Terms, result: Result) -> None:
    """R17: the result is one of this task."""
    if result.agreement_id != terms.agreement_id:
        raise Refused("result.agreement", "a result is for another agreement", found=result.agreement_id.hex())
    if result.task_id != terms.task_id:
        raise Refused("result.task", "a result is for another task", found=result.task_id.hex())


def check_output(agreed: Output, settled: Out, manifest: bytes) -> Manifest:
    """R17: the manifest is the one whose digest was settled, for the output that the agreement has at this place. Raises
    Refused `output.public` for one that is not sealed."""
    _check_same(agreed, settled)
    if agreed.is_public:
        raise Refused("output.public", f"output {agreed.name} is public: it is in the settlement, and has no key")
    read = read_manifest(manifest, settled.digest)
    if read.encryption != "tink-aes256-gcm-hkdf-1mb":
        raise Refused("output.encryption", "an output is sealed in another way", found=read.encryption)
    return read


def check_public(agreed: Output, settled: Out, content: bytes) -> None:
    """R17: the content is what was settled by its plain digest, for the public output that the agreement has at this place."""
    _check_same(agreed, settled)
    if not agreed.is_public:
        raise Refused("output.sealed", f"output {agreed.name} is sealed: the result has a manifest's digest of it")
    if sha256(content) != settled.digest:
        raise Refused("output.digest", "not the content of the public output", found=sha256(content).hex())
    if len(content) != settled.length:
        raise Refused("output.length", "a public output has another length than the result says", found=len(content))


def _check_same(agreed: Output, settled: Out) -> None:
    if (agreed.name, agreed.kind) != (settled.name, settled.kind):
        raise Refused(
            "output.name", "the result has another output here than the agreement", found=repr(settled.name[:80])
        )


def check_recipients(agreed: Output, settled: Out, result_key: bytes) -> None:
    """R15: the result names the recipients that the agreement has, and the request's key where it leaves it to that."""
    if settled.recipients_digest != recipients_digest(agreed.recipients, result_key):
        raise Refused("output.recipients", "the result names other recipients than the agreement")
