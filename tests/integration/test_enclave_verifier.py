"""An enclave in the role of a verifier, as a process: what it answers, and that it is nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from enclave_app.protocol import signing
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.structs import TcbStatus, Tee
from enclave_app.protocol.wire import AppraisalAnswer, AppraisalBody
from tests.e2e.attested_kit import verifier_config
from tests.enclave_kit import REGISTRY, Refusal, enclave, measured
from tests.snp_kit import Authority, Chip


def body(chip: Chip) -> AppraisalBody:
    ends = chip.endorsements
    return AppraisalBody(
        chain_id=31337,
        registry=REGISTRY,
        tee=Tee.SNP,
        quote=chip.report(sha256(b"bound") + bytes(32)),
        endorsements=(ends.ek, ends.ask, ends.ark),
        now=int(time.time()),
    )


async def test_it_signs_what_it_vouches_for_and_runs_nothing(tmp_path: Path) -> None:
    chip = Authority().chip()
    config = verifier_config([chip.authority.root])
    async with enclave(tmp_path, config=config) as running:
        identity = await running.identity()
        # R3: the policy is part of the measurement. R6: there is no sandbox, and so no function.
        assert (identity.measurement, identity.sandbox) == (measured(config), ())
        assert identity.measurement != measured(verifier_config([sha256(b"another root")]))
        answer = await running.ask("POST", "/v1/appraise", AppraisalAnswer, body(chip))
        digest = answer.statement.typed_digest(Domain(chain_id=31337, verifying_contract=REGISTRY))
        signing.check(digest, answer.signature, identity.signer, "a statement")
        assert answer.statement.tcb_status == TcbStatus.UP_TO_DATE
        with pytest.raises(Refusal) as stranger:
            await running.ask("POST", "/v1/appraise", AppraisalAnswer, body(Authority().chip()))
        assert (stranger.value.status, stranger.value.code) == (400, "appraisal.root")
        for method, path in (("POST", "/v1/tasks"), ("POST", f"/v1/tasks/0x{'00' * 32}/run")):
            with pytest.raises(Refusal) as refusal:
                await running.call(method, path, b"{}")
            assert (refusal.value.status, refusal.value.code) == (404, "http.404")


async def test_an_enclave_that_runs_tasks_vouches_for_nothing(tmp_path: Path) -> None:
    async with enclave(tmp_path) as running:
        with pytest.raises(Refusal) as refusal:
            await running.call("POST", "/v1/appraise", body(Authority().chip()))
        assert (refusal.value.status, refusal.value.code) == (404, "http.404")
