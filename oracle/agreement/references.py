"""What a draft refers to: parties by name; files or digests of bundles, manifests, keys, measurements and anchors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import TypeAdapter, ValidationError

from enclave_app.protocol.bundle import MAX_BUNDLE, Bundle, read_bundle
from enclave_app.protocol.digests import parse_digest, sha256
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.evidence import Voucher
from enclave_app.protocol.fields import Address
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import ShareList, read_share_list
from oracle.addresses import read_address, written
from oracle.agreement.anchors import AttestedPath
from oracle.agreement.document import Uri, read_document
from oracle.attestation.anchors import MAKERS
from oracle.card import BrokerCard, read_card
from oracle.dataset.seal import load_manifest
from oracle.files import read_file
from oracle.keys import read_public_key

_VIA = re.compile(r"(?P<root>\S+) via (?P<verifier>\S+) under (?P<under>\S+)")
_DIGEST = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS = TypeAdapter(Address)
_URI: TypeAdapter[str | None] = TypeAdapter(Uri | None)
T = TypeVar("T")


class References:
    """Looks up what a draft names. Every refusal begins with the place in the draft (`draft.*`)."""

    def __init__(self, base: Path, parties: Mapping[str, str]) -> None:
        """`parties` are an address each, or a file that says one."""
        self._base = base
        self._paths: dict[AttestedPath, None] = {}
        self._parties = {name: self._address(text, f"parties.{name}") for name, text in parties.items()}

    def party(self, text: str, at: str) -> str:
        """The checksummed address of a party's name, or of an address."""
        if text in self._parties:
            return self._parties[text]
        try:
            return _ADDRESS.validate_python(text)
        except ValidationError:
            known = ", ".join(self._parties)
            raise Refused(
                "draft.party",
                f"{at}: neither a party nor an address",
                found=repr(text[:80]),
                expected=f"{known}, or 0x…",
            ) from None

    def digest(self, text: str, at: str) -> bytes:
        return self._try(at, lambda: parse_digest(text))

    def agreement(self, text: str, at: str) -> bytes:
        """The id of an agreement, from its file or as it is."""
        if _DIGEST.fullmatch(text):
            return parse_digest(text)
        return self._try(at, lambda: read_document(self._base / text)).id

    def bundle(self, text: str, at: str) -> Bundle:
        return self._try(at, lambda: read_bundle(self._read(text), None))

    def manifest(self, text: str, at: str) -> Manifest:
        return self._try(at, lambda: load_manifest(self._base / text))

    def shares(self, text: str, dataset: bytes, at: str) -> tuple[bytes, ShareList | None]:
        """The digest of a share list, and the list itself where a file was named."""
        if _DIGEST.fullmatch(text):
            return parse_digest(text), None
        data = self._try(at, lambda: self._read(text))
        return sha256(data), self._try(at, lambda: read_share_list(data, dataset, None))

    def hpke_key(self, text: str, at: str) -> bytes:
        """The digest of an HPKE public key."""
        if _DIGEST.fullmatch(text):
            return parse_digest(text)
        return self._try(at, lambda: read_public_key(self._base / text).digest)

    def card(self, text: str, at: str) -> BrokerCard:
        """A broker's card, whose URL, if it has one, is one that a document may hold."""
        card = self._try(at, lambda: read_card(self._base / text))
        try:
            _URI.validate_python(card.url)
        except ValidationError:
            raise Refused(
                "draft.reference", f"{at}: the card has a URL that cannot be used", found=repr(str(card.url)[:80])
            ) from None
        return card

    def anchors(self, text: str, at: str) -> tuple[bytes, ...]:
        """The digests of a maker's roots, of a root certificate in a file, or the one that is written there or here.

        `amd via MEASUREMENT under intel` are AMD's roots, and what an enclave of that measurement, itself registered under
        Intel's root, vouches for: the contract takes the one, and brokers check under the other.
        """
        if found := _VIA.fullmatch(text):
            roots, under = self.anchors(found["root"], at), self.anchors(found["under"], at)
            measurement = self.measurement(found["verifier"], at)
            paths = [
                AttestedPath(voucher=Voucher(anchor=anchor, measurement=measurement), root=root)
                for anchor in under
                for root in roots
            ]
            self._paths.update(dict.fromkeys(paths))
            return (*roots, *(path.anchor for path in paths))
        if text in MAKERS:
            return tuple(MAKERS[text])
        if _DIGEST.fullmatch(text):
            return (parse_digest(text),)
        return (self._try(at, lambda: _anchor_digest(self._read(text))),)

    @property
    def paths(self) -> tuple[AttestedPath, ...]:
        """What is behind the attested anchors that were looked up."""
        return tuple(self._paths)

    def measurement(self, text: str, at: str) -> bytes:
        """A digest, or a file that holds it: as text, or as JSON with a key `measurement`."""
        return self._try(
            at, lambda: parse_digest(text if _DIGEST.fullmatch(text) else written(self._read(text), "measurement"))
        )

    def _address(self, text: str, at: str) -> str:
        return self._try(at, lambda: read_address(text, self._base))

    def _read(self, text: str) -> bytes:
        return read_file(self._base / text, MAX_BUNDLE)

    def _try(self, at: str, look_up: Callable[[], T]) -> T:
        try:
            return look_up()
        except Refused as refused:
            raise Refused("draft.reference", f"{at}: {refused.message}") from refused
        except ValueError:
            raise Refused("draft.reference", f"{at}: not a file name") from None


def _anchor_digest(data: bytes) -> bytes:
    if _DIGEST.fullmatch(said := data[:100].decode("utf-8", "replace").strip()):
        return parse_digest(said)
    pem = data.lstrip().startswith(b"-----BEGIN")
    try:
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion):
        raise Refused("anchor.certificate", "neither a certificate in DER or PEM nor a digest") from None
    return sha256(certificate.public_bytes(Encoding.DER))
