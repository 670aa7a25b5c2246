"""A public output in a receipt is there itself: it is what was settled, or the receipt is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enclave_app.protocol.abi_output import encode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.structs import Outcome
from oracle.agreement.outputs import check_output, check_public
from oracle.errors import Refused
from oracle.receipt import Expected, Report, Verdict, read_receipt, verify_receipt
from tests.receipt_kit import Story, make_story

CONTENT = encode_row(["int64", "string"], [712, "good"])


def check(story: Story, receipt: bytes | None = None) -> Report:
    expected = Expected(agreement_id=story.record.chain.agreement_id(story.record.agreement))
    return verify_receipt(receipt or story.receipt, expected, story.time + 60, allow_simulated=True)


def bent(**changes: Any) -> Any:
    """A result whose one output says something else."""
    return lambda result: result.model_copy(update={"outputs": (result.outputs[0].model_copy(update=changes),)})


def test_a_receipt_holds_what_was_published() -> None:
    story = make_story(public=CONTENT)
    assert read_receipt(story.receipt).outputs == (CONTENT,)
    report = check(story)
    assert report.verdict is Verdict.AUTHENTIC, report.reason
    assert "PUBLIC" in next(link.detail for link in report.links if link.name == "outputs")


def test_a_failure_under_such_an_agreement_has_no_output() -> None:
    story = make_story(public=CONTENT, outcome=Outcome.FAILED)
    assert read_receipt(story.receipt).outputs == ()
    assert check(story).verdict is Verdict.AUTHENTIC


@pytest.mark.parametrize("changed", [CONTENT[:-1] + b"\1", CONTENT + b"\0", b"", CONTENT[:32]])
def test_other_content_than_was_signed_is_refused(changed: bytes) -> None:
    story = make_story(public=CONTENT)
    value = json.loads(story.receipt)
    value["outputs"] = ["0x" + changed.hex()]
    assert refused(check(story, json.dumps(value).encode())) == ("outputs", "output.digest")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"length": len(CONTENT) + 1}, "output.length"),
        ({"digest": sha256(b"another")}, "output.digest"),
        ({"kind": 1}, "output.name"),
        ({"name": "another"}, "output.name"),
        ({"recipients_digest": sha256(b"somebody")}, "output.recipients"),
    ],
)
def test_a_signed_lie_about_a_public_output_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert refused(check(make_story(public=CONTENT, result=bent(**changes)))) == ("outputs", reason)


def test_a_sealed_output_is_not_shown_as_a_public_one() -> None:
    """Its digest is of a manifest: whoever took the manifest for the content would take ciphertext's papers for an answer."""
    sealed = make_story()
    agreed, settled = sealed.record.agreement.outputs[0], sealed.record.result.outputs[0]
    manifest = sealed.record.outputs[0].manifest
    with pytest.raises(Refused) as caught:
        check_public(agreed, settled, manifest)
    assert caught.value.code == "output.sealed"
    open_ = make_story(public=manifest)
    with pytest.raises(Refused) as caught:
        check_output(open_.record.agreement.outputs[0], open_.record.result.outputs[0], manifest)
    assert caught.value.code == "output.public"


def refused(report: Report) -> tuple[str | None, str | None]:
    return report.failed, report.reason
