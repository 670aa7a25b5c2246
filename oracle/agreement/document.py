"""The file that travels between parties: an agreement, where it lives, who signed it, and where things are found."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import MAX_DOCUMENT, Document, load, validate
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Address, Bytes, Uint64
from enclave_app.protocol.onchain import Auditors
from enclave_app.protocol.rules import MAX_POLICY_LIST
from enclave_app.protocol.structs import Agreement, Chain
from oracle.agreement.anchors import AttestedPath
from oracle.agreement.requesters import MAX_REQUESTERS, requesters_root
from oracle.files import read_file
from oracle.naming import naming

MAX_CONTRACT_SIGNATURE = 16_384
Digest = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Uri = Annotated[str, StringConstraints(pattern=r"^(https?|file)://[\x21-\x7e]+$", max_length=500)]


class AgreementDocument(Document):
    """`signatures` are ECDSA signatures, each checked against its address whenever a document is read.
    `contract_signatures` belong to contract wallets (ERC-1271) and are UNCHECKED here: only the chain can say.

    `requesters` are the addresses behind `access.requesters`, each with how often it may ask; empty where anyone may request.
    `auditors` are those behind `agreement.auditors`, which activation asks for; absent where nobody has to approve.
    `paths` say what is behind attested anchors of the agreement, which are digests of them. `endpoints` are where brokers
    answer, by the digest of their HPKE key: hints, as are `storage` and `notes`.
    """

    format: Literal["enclave-oracle/agreement"] = "enclave-oracle/agreement"
    v: Literal[1] = 1
    chain: Chain
    agreement: Agreement
    signatures: dict[Address, Bytes] = Field(default_factory=dict, max_length=32)
    contract_signatures: dict[Address, Annotated[Bytes, Field(min_length=1, max_length=MAX_CONTRACT_SIGNATURE)]] = (
        Field(default_factory=dict, max_length=32)
    )
    requesters: dict[Address, Uint64] = Field(default_factory=dict, max_length=MAX_REQUESTERS)
    auditors: Auditors | None = None
    paths: tuple[AttestedPath, ...] = Field(default=(), max_length=MAX_POLICY_LIST)
    endpoints: dict[Digest, Uri] = Field(default_factory=dict, max_length=16)
    storage: tuple[Uri, ...] = Field(default=(), max_length=16)
    notes: str = Field(default="", max_length=4000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parties = set(self.agreement.parties())
        if not set(self.signatures) | set(self.contract_signatures) <= parties:
            raise ValueError("a signature is by someone who is no party")
        if set(self.signatures) & set(self.contract_signatures):
            raise ValueError("a party signed both as an account and as a contract")
        anchors = self.agreement.tee.anchors
        if any(path.anchor not in anchors or path.root not in anchors for path in self.paths):
            raise ValueError("a path leads to an anchor, or comes from a root, that the agreement does not list")
        brokers = {"0x" + broker.hpke_key.hex() for broker in self.agreement.keys.brokers}
        if not set(self.endpoints) <= brokers:
            raise ValueError("an endpoint is for a broker that the agreement does not name")
        return self

    @property
    def id(self) -> bytes:
        """The agreement id, which is also what each party signs."""
        return self.chain.agreement_id(self.agreement)

    def missing(self) -> tuple[str, ...]:
        """The parties that have not signed yet."""
        return tuple(
            p for p in self.agreement.parties() if p not in self.signatures and p not in self.contract_signatures
        )

    def ordered_signatures(self) -> tuple[bytes, ...]:
        """One signature per party in the agreement's order, empty where there is none yet: what `activate` takes."""
        return tuple(
            self.signatures.get(party, self.contract_signatures.get(party, b"")) for party in self.agreement.parties()
        )

    def with_signature(self, address: str, signature: bytes) -> AgreementDocument:
        """This document with one more ECDSA signature; Refused where that address did not sign this agreement.

        It takes the place of what was claimed for a wallet at that address, or anyone could keep a party from signing.
        """
        unchecked = {party: s for party, s in self.contract_signatures.items() if party != address}
        return _rebuilt(self, signatures={**self.signatures, address: signature}, contract_signatures=unchecked)

    def with_contract_signature(self, address: str, signature: bytes) -> AgreementDocument:
        """This document with a contract wallet's ERC-1271 signature, which stays unchecked until the chain sees it."""
        return _rebuilt(self, contract_signatures={**self.contract_signatures, address: signature})


def parse_document(data: bytes) -> AgreementDocument:
    """A document from untrusted bytes; Refused `json.*`, `document.invalid`, `signature.*`, `access.requesters` or
    `agreement.auditors`."""
    return _checked(validate(AgreementDocument, load(data, canonical=False)))


def read_document(path: Path) -> AgreementDocument:
    data = read_file(path, MAX_DOCUMENT)
    with naming(path):
        return parse_document(data)


def write_document(path: Path, document: AgreementDocument) -> None:
    """Write or replace the file in one step, so that a crash leaves the former one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(document.canonical() + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise Refused("file.write", f"cannot write {path}", found=error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def merge(first: AgreementDocument, *others: AgreementDocument) -> AgreementDocument:
    """One document with all signatures and hints (R7); Refused `document.other` where they are not about one agreement."""
    result = first
    for other in others:
        # The id covers chain and registry.
        if other.id != first.id:
            raise Refused(
                "document.other",
                "these files are about different agreements",
                found=other.id.hex(),
                expected=first.id.hex(),
            )
        signatures = {**other.signatures, **result.signatures}
        unchecked = {**other.contract_signatures, **result.contract_signatures}
        result = _rebuilt(
            result,
            signatures=signatures,
            contract_signatures={party: s for party, s in unchecked.items() if party not in signatures},
            requesters=result.requesters or other.requesters,
            auditors=result.auditors or other.auditors,
            endpoints={**other.endpoints, **result.endpoints},
            storage=tuple(dict.fromkeys([*result.storage, *other.storage]))[:16],
            notes=result.notes or other.notes,
        )
    return result


def _rebuilt(document: AgreementDocument, **changes: object) -> AgreementDocument:
    fields = {name: getattr(document, name) for name in type(document).model_fields}
    return _checked(
        validate(AgreementDocument, {to_camel(name): value for name, value in {**fields, **changes}.items()})
    )


def _checked(document: AgreementDocument) -> AgreementDocument:
    """R7: every signature in it is of a party, over this agreement."""
    digest = document.id
    for party, signature in document.signatures.items():
        signing.check(digest, signature, party, "the agreement")
    requesters = document.agreement.access.requesters
    if document.requesters and requesters_root(document.requesters) != requesters:
        raise Refused("access.requesters", "the listed requesters are not those of the agreement")
    if document.auditors is not None and document.auditors.digest != document.agreement.auditors:
        raise Refused("agreement.auditors", "the listed auditors are not those of the agreement")
    return document
