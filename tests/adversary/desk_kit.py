"""A party at its own desk: an agreement that somebody sent it, its wallet, and the commands that it runs. No chain answers.

A test file takes the fixtures by name: `desk, made = kit.desk, kit.made`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from oracle import errors
from oracle.agreement.document import AgreementDocument, write_document
from oracle.chain.deploy import Deployment
from oracle.keys import import_wallet
from tests.cli_kit import CHEAP, refusal
from tests.unit.agreement.conftest import Case, make_case


@dataclass(frozen=True)
class Desk:
    """The lab's: it owns the function of `case`, and its wallet and configuration are in `base`."""

    base: Path
    case: Case

    @property
    def as_lab(self) -> tuple[object, ...]:
        return ("--config", self.base / "oracle.yaml")

    def received(self, document: AgreementDocument) -> Path:
        write_document(self.base / "agreement.json", document)
        return self.base / "agreement.json"

    def forged(self, document: AgreementDocument, change: Callable[[Any], object]) -> Path:
        """The file after somebody edited its JSON."""
        value = json.loads(document.canonical())
        change(value)
        path = self.base / "agreement.json"
        path.write_text(json.dumps(value))
        return path

    async def files(self) -> object:
        """All that lies on the desk: a refused command writes, signs and replaces nothing."""
        return {path.name: path.read_bytes() for path in self.base.iterdir()}

    async def run(self, *words: object) -> None:
        """A command; its refusal is raised."""
        error = await asyncio.to_thread(refusal, *words)
        raise errors.Refused(error["code"], error["message"])


def configure(base: Path, case: Case, **changes: Any) -> None:
    """A configuration for the contracts of `case`, whose RPC endpoint is not there: nothing is asked of a chain."""
    document = case.draft().document
    deployment = Deployment(
        chain_id=document.chain.chain_id,
        agreement_registry=document.chain.agreement_registry,
        enclave_registry=document.agreement.enclave_registry,
        oracle=document.agreement.oracle,
        streams=document.agreement.oracle,
        audits=document.agreement.oracle,
        verifiers={},
        first_block=0,
    )
    (base / "deployment.json").write_bytes(deployment.model_copy(update=changes).canonical())
    config = {
        "rpc": "http://127.0.0.1:9",
        "deployment": "deployment.json",
        "storage": [base.as_uri()],
        "brokers": {},
        "keystore": "lab.wallet",
        "passwordFile": "pw",
    }
    (base / "oracle.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def desk(made: Case, tmp_path: Path) -> Desk:
    base = tmp_path / "desk"
    base.mkdir()
    (base / "pw").write_text("correct horse\n")
    (tmp_path / "lab.hex").write_text(made.keys[0].secret().hex())
    import_wallet(base / "lab.wallet", tmp_path / "lab.hex", lambda: "correct horse", n=CHEAP)
    configure(base, made)
    return Desk(base, made)
