"""A stand-in of Intel's PCS, version 4, and of a PCCS: the same paths, parameters, headers and encodings, on 127.0.0.1.

Its collateral is minted under a development root; `Service.lie` is what a test changes about one answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from aiohttp import web

from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.dcap_format import sign_raw
from enclave_app.attesters.development_pki import Issuer
from enclave_app.attesters.platform import (
    DEVELOPMENT_CPU_SVN,
    DEVELOPMENT_FMSPC,
    DEVELOPMENT_PCE_SVN,
    DevelopmentAuthority,
)
from oracle.attestation import Tee

Answer = tuple[int, bytes, dict[str, str]]
V4 = "certification/v4"


def spec(evaluation: int, status: str = "UpToDate", **said: object) -> CollateralSpec:
    values = {"cpu_svn": DEVELOPMENT_CPU_SVN, "pce_svn": DEVELOPMENT_PCE_SVN, "status": status, **said}
    return CollateralSpec(evaluation=evaluation, **values)  # type: ignore[arg-type]


@dataclass
class Service:
    """`published` maps an evaluation to its collateral; `standard` and `early` are which of them the two feeds give.

    For collateral that `authority` did not sign, `signer` is who signs the list of evaluations, `tee` and `ca` what it is of.
    """

    authority: DevelopmentAuthority
    published: dict[int, dict[str, str]] = field(default_factory=dict)
    standard: int = 17
    early: int = 17
    pccs: bool = False
    fmspc: bytes = DEVELOPMENT_FMSPC
    lie: Callable[[str, Answer], Answer] = lambda path, answer: answer
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""
    tee: Tee = Tee.SGX
    ca: str = "platform"
    signer: Issuer | None = None

    def publish(self, evaluation: int, status: str = "UpToDate", now: int | None = None, days: int = 30) -> None:
        self.published[evaluation] = self.authority.collateral(spec(evaluation, status), now=now, days=days)

    @property
    def root_crl_url(self) -> str:
        return f"{self.url}/IntelSGXRootCA.der"

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        self.asked[path] += 1
        number = {"standard": self.standard, "early": self.early}.get(query.get("update", "standard"), 0)
        if "tcbEvaluationDataNumber" in query:
            if "update" in query:
                return 400, b"", {}
            number = int(query["tcbEvaluationDataNumber"])
        held = self.published.get(number)
        anything = held or next(iter(self.published.values()))
        kind, _, what = path[1:].partition(f"/{V4}/")
        own = kind == self.tee.name.lower()
        match kind, what:
            case "IntelSGXRootCA.der", "" if not self.pccs:
                return 200, bytes.fromhex(anything["root_ca_crl"]), {"Content-Type": "application/pkix-crl"}
            case "sgx", "rootcacrl" if self.pccs:
                return 200, anything["root_ca_crl"].encode(), {"Content-Type": "text/html; charset=utf-8"}
            case "sgx", "pckcrl":
                if query.get("ca") != self.ca:
                    return 404, b"", {}
                raw = bytes.fromhex(anything["pck_crl"])
                body = raw.hex().encode() if self.pccs else raw if query.get("encoding") == "der" else b"PEM"
                chain = {"SGX-PCK-CRL-Issuer-Chain": quote(anything["pck_crl_issuer_chain"], safe="")}
                return 200, body, {"Content-Type": "application/pkix-crl", **chain}
            case _, "tcb" if own:
                if query.get("fmspc", "").upper() != self.fmspc.hex().upper():
                    return 404, b"", {}
                return _signed(held, "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")
            case _, "qe/identity" if own:
                return _signed(held, "enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain")
            case _, "tcbevaluationdatanumbers" if own:
                return self._numbers(anything)
        return 404, b"", {}

    def _numbers(self, anything: dict[str, str]) -> Answer:
        signer = self.signer or self.authority._tcb
        tcb = json.loads(anything["tcb_info"])
        day = f"{datetime.fromisoformat(tcb['issueDate']).astimezone(UTC):%Y-%m-%d}T00:00:00Z"
        rows = [
            {"tcbEvaluationDataNumber": number, "tcbRecoveryEventDate": day, "tcbDate": day}
            for number in sorted(self.published, reverse=True)
        ]
        dates = {name: tcb[name] for name in ("issueDate", "nextUpdate")}
        document = json.dumps(
            {"id": self.tee.name, "version": 1, **dates, "tcbEvalNumbers": rows}, separators=(",", ":")
        )
        held = {
            "numbers": document,
            "numbers_signature": sign_raw(signer.key, document.encode()).hex(),
            "numbers_issuer_chain": anything["tcb_info_issuer_chain"],
        }
        return _signed(held, "tcbEvaluationDataNumbers", "numbers", "TCB-Evaluation-Data-Numbers-Issuer-Chain")


def _signed(held: dict[str, str] | None, name: str, part: str, header: str) -> Answer:
    if held is None:
        return 404, b"", {}
    body = f'{{"{name}":{held[part]},"signature":"{held[f"{part}_signature"]}"}}'
    chain = quote(held[f"{part}_issuer_chain"], safe="")
    return 200, body.encode(), {"Content-Type": "application/json", header: chain, "Request-ID": "1"}


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    async def handle(request: web.Request) -> web.Response:
        status, body, headers = service.lie(request.path, service.answer(request.path, dict(request.query)))
        return web.Response(status=status, body=body, headers=headers)

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, max_line_size=1 << 16, max_field_size=1 << 16)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()
