"""A client of Intel's Provisioning Certification Service, API version 4, or of a cache of it (PCCS).

It asks the one service that it was given: it follows no redirect, and no address from a certificate. Answers are bounded
before they are read. Source: Intel, "API documentation, version 4" (PCK CRL, TCB info, QE identity, TCB evaluation data
numbers); a PCCS differs in what it encodes its revocation lists in.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal
from urllib.parse import unquote

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict, CIMultiDictProxy

from enclave_app.protocol.canonical import check_depth
from oracle.attestation import Collateral, CollateralError, Tee
from oracle.attestation.collateral import pem_chain
from oracle.collateral.config import PcsConfig
from oracle.collateral.platform import Platform
from oracle.errors import OracleError, Permanent, Refused, Retryable

Feed = Literal["standard", "early"] | int
"""Which evaluation: Intel's standard one, the coming one, or a number."""

Headers = CIMultiDictProxy[str] | CIMultiDict[str]

MAX_DOCUMENT: Final = 512 * 1024
MAX_CRL: Final = 1024 * 1024
"""Intel's longest list today is 3 KB; a PCCS writes it in hex."""
MAX_HEADER: Final = 16 * 1024
TCB_CHAIN: Final = "TCB-Info-Issuer-Chain"
QE_CHAIN: Final = "SGX-Enclave-Identity-Issuer-Chain"
CRL_CHAIN: Final = "SGX-PCK-CRL-Issuer-Chain"
NUMBERS_CHAIN: Final = "TCB-Evaluation-Data-Numbers-Issuer-Chain"
_SIGNATURE: Final = r'"signature"\s*:\s*"([0-9a-fA-F]{128})"'
_PEM_CRL: Final = re.compile(rb"\s*-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----\s*")
_HEX: Final = re.compile(rb'\s*"?((?:[0-9a-fA-F]{2})+)"?\s*')


@dataclass(frozen=True)
class Signed:
    """A JSON document exactly as it was signed, with its signature (hex) and its signer's chain (PEM)."""

    document: str
    signature: str
    chain: str


@dataclass(frozen=True)
class Evaluations:
    """The evaluations that Intel offers collateral of, for one kind of TEE: a signed list, see `check_evaluations`."""

    tee: Tee
    signed: Signed


class Pcs:
    """`async with Pcs(config) as pcs:`. Every method raises Retryable `pcs.unreachable`, `pcs.timeout`, `pcs.busy`,
    `pcs.status`, Permanent `collateral.unknown`, and Refused `pcs.answer`, `pcs.size`, `pcs.redirect`."""

    def __init__(self, config: PcsConfig) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Pcs:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def collateral(self, platform: Platform, feed: Feed) -> Collateral:
        """What Intel publishes about `platform`. It is not checked yet: see `check_collateral`."""
        tcb = await self.tcb_info(platform, feed)
        identity = await self._signed(
            f"{platform.tee.name.lower()}/certification/v4/qe/identity", _feed(feed), "enclaveIdentity", QE_CHAIN
        )
        crl, crl_chain = await self._pck_crl(platform)
        root_crl, _ = await self._get(self.config.root_crl_url, {}, MAX_CRL)
        return Collateral(
            pck_crl_issuer_chain=crl_chain,
            root_ca_crl=_der(root_crl).hex(),
            pck_crl=crl.hex(),
            tcb_info_issuer_chain=tcb.chain,
            tcb_info=tcb.document,
            tcb_info_signature=tcb.signature,
            qe_identity_issuer_chain=identity.chain,
            qe_identity=identity.document,
            qe_identity_signature=identity.signature,
        )

    async def tcb_info(self, platform: Platform, feed: Feed) -> Signed:
        tee = platform.tee.name.lower()
        query = {"fmspc": platform.fmspc.hex().upper(), **_feed(feed)}
        return await self._signed(f"{tee}/certification/v4/tcb", query, "tcbInfo", TCB_CHAIN)

    async def evaluations(self, tee: Tee) -> Evaluations:
        path = f"{tee.name.lower()}/certification/v4/tcbevaluationdatanumbers"
        return Evaluations(tee, await self._signed(path, {}, "tcbEvaluationDataNumbers", NUMBERS_CHAIN))

    async def _signed(self, path: str, query: Mapping[str, str], name: str, chain: str) -> Signed:
        body, headers = await self._get(f"{self.config.base}/{path}", query, MAX_DOCUMENT)
        document, signature = signed_document(body, name)
        return Signed(document, signature, issuer_chain(headers, chain))

    async def _pck_crl(self, platform: Platform) -> tuple[bytes, str]:
        query = {"ca": platform.ca, "encoding": "der"}
        body, headers = await self._get(f"{self.config.base}/sgx/certification/v4/pckcrl", query, MAX_CRL)
        return _der(body), issuer_chain(headers, CRL_CHAIN)

    async def _get(self, url: str, query: Mapping[str, str], most: int) -> tuple[bytes, Headers]:
        session = self._open()
        try:
            async with session.get(url, params=query, allow_redirects=False) as answer:
                _check_status(url, answer.status)
                raw = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    raw += chunk
                    if len(raw) > most:
                        raise Refused("pcs.size", f"{url} answers with more than {most} bytes")
                return bytes(raw), answer.headers
        except TimeoutError:
            raise Retryable("pcs.timeout", f"{url} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("pcs.unreachable", f"{url} cannot be reached ({type(error).__name__})") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.config.timeout),
                connector=aiohttp.TCPConnector(limit=8, ssl=_tls(self.config)),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Nothing is unpacked, so that no answer can grow.
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
            )
        return self._session


def signed_document(body: bytes, name: str) -> tuple[str, str]:
    """{`name`: {…}, "signature": "hex"} taken apart: the inner object as it stands there, since its bytes are what was signed.

    Raises Refused `pcs.answer`.
    """
    try:
        check_depth(body)
        text = body.decode("utf-8")
        head = re.match(rf'\s*\{{\s*(?:{_SIGNATURE}\s*,\s*)?"{name}"\s*:\s*(?=\{{)', text)
        if head is None:
            raise ValueError(f"no {name}")
        _, end = json.JSONDecoder().raw_decode(text, head.end())
        tail = re.fullmatch(r"\s*\}\s*" if head[1] else rf"\s*,\s*{_SIGNATURE}\s*\}}\s*", text[end:])
        if tail is None:
            raise ValueError("no signature, or something else beside it")
    except (ValueError, OracleError) as error:
        raise Refused("pcs.answer", f"not a signed {name}", found=str(error)[:200]) from None
    return text[head.end() : end], (head[1] or tail[1]).lower()


def issuer_chain(headers: Headers, name: str) -> str:
    """The URL-encoded chain of a header, as PEM in one form. Raises Refused `pcs.answer`."""
    values = headers.getall(name, [])
    if len(values) != 1:
        raise Refused("pcs.answer", f"the answer has the header {name} {len(values)} times", expected="once")
    try:
        chain = pem_chain(unquote(values[0], errors="strict"))
    except (CollateralError, UnicodeError) as error:
        raise Refused("pcs.answer", f"the header {name} holds no certificate chain", found=str(error)[:200]) from None
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in chain)


def _der(body: bytes) -> bytes:
    """A revocation list as Intel's service sends it (DER, or PEM), or a PCCS (hex). Raises Refused `pcs.answer`."""
    try:
        hexadecimal = _HEX.fullmatch(body)
        if hexadecimal:
            crl = x509.load_der_x509_crl(bytes.fromhex(hexadecimal[1].decode()))
        elif _PEM_CRL.fullmatch(body):
            crl = x509.load_pem_x509_crl(body)
        else:
            crl = x509.load_der_x509_crl(body)
        return crl.public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion) as error:
        raise Refused("pcs.answer", "not a revocation list", found=str(error)[:200]) from None


def _feed(feed: Feed) -> dict[str, str]:
    return {"tcbEvaluationDataNumber": str(feed)} if isinstance(feed, int) else {"update": feed}


def _check_status(url: str, status: int) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise Permanent(
            "collateral.unknown",
            f"{url} has no such collateral: an FMSPC that it does not know, or an evaluation that it never had or dropped",
            found=f"status {status}",
        )
    if 300 <= status < 400:
        raise Refused("pcs.redirect", f"{url} sends elsewhere, which is not followed", found=f"status {status}")
    if status == 429 or status == 503:
        raise Retryable("pcs.busy", f"{url} is busy", found=f"status {status}")
    if status >= 500:
        raise Retryable("pcs.status", f"{url} fails", found=f"status {status}")
    raise Refused("pcs.answer", f"{url} refuses", found=f"status {status}")


def _tls(config: PcsConfig) -> ssl.SSLContext | bool:
    if config.tls_ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(config.tls_ca))
    except (OSError, ssl.SSLError) as error:
        raise Refused("pcs.tls_ca", f"{config.tls_ca} holds no certificates", found=type(error).__name__) from None
