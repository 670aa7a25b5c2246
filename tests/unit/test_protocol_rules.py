"""An agreement's and a request's rules: each refused for one changed field, by its stable code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol import rules
from enclave_app.protocol.canonical import validate
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.structs import Agreement, TaskRequest

# The first of a type is the ordinary one; a later agreement has terms that this version refuses.
CASES = {
    case["type"]: case["value"]
    for case in reversed(
        json.loads((Path(__file__).parents[1] / "vectors" / "eip712.json").read_text("utf-8"))["cases"]
    )
}
ZERO32, ZERO20 = "0x" + "00" * 32, "0x" + "00" * 20
A32, B32, A20 = "0x" + "aa" * 32, "0x" + "bb" * 32, "0x" + "aa" * 20


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(value))
    parent: Any = result
    *parts, last = path.split(".")
    for part in parts:
        parent = parent[int(part) if part.isdigit() else part]
    key: Any = int(last) if last.isdigit() else last
    parent[key] = new(parent[key]) if callable(new) else new
    return result


def refusal(path: str, new: Any) -> Refused:
    agreement = validate(Agreement, changed(CASES["Agreement"], path, new))
    with pytest.raises(Refused) as caught:
        rules.check_agreement(agreement)
    return caught.value


def many(count: int) -> list[str]:
    return [f"0x{n:064x}" for n in range(1, count + 1)]


def addresses(count: int) -> list[str]:
    return [f"0x{n:040x}" for n in range(1, count + 1)]


def renamed(dataset: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [{**dataset, "name": f"d{n}"} for n in range(count)]


def test_the_vectors_agreement_is_good() -> None:
    rules.check_agreement(validate(Agreement, CASES["Agreement"]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fn.kind", 2),
        ("fn.kind", 0),
        ("fn.deterministic", False),
        ("fn.sealedId", A32),
        ("fn.sharesDigest", A32),
        ("data.1.policy", 2),
        ("data.1.policy", 0),
        ("data.1.minVersion", "1"),
        ("data.1.budget", "1"),
    ],
)
def test_what_is_not_built_yet_is_refused(path: str, value: Any) -> None:
    error = refusal(path, value)
    assert error.code == "agreement.not_yet"
    assert path.split(".")[-1] in error.message


def test_every_off_value_has_its_negative() -> None:
    (marker,) = test_what_is_not_built_yet_is_refused.pytestmark
    tried = {".".join(part for part in path.split(".") if not part.isdigit()) for path, _ in marker.args[1]}
    assert tried == {*rules.AGREEMENT_OFF}


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("oracle", ZERO20, "agreement.empty"),
        ("enclaveRegistry", ZERO20, "agreement.empty"),
        ("fn.id", ZERO32, "agreement.empty"),
        ("fn.owner", ZERO20, "agreement.empty"),
        ("fn.limits.memoryMiB", 0, "agreement.limits"),
        ("fn.limits.timeSeconds", 0, "agreement.limits"),
        ("fn.limits.outputBytes", "0", "agreement.limits"),
        ("fn.limits.outputRows", "0", "agreement.limits"),
        ("paramDomain", ZERO32, "agreement.empty"),
        ("salt", ZERO32, "agreement.empty"),
        ("data", [], "agreement.count"),
        ("data", lambda d: renamed(d[0], 17), "agreement.count"),
        ("data.1.name", "hospital_a", "agreement.duplicate"),
        ("data.1.name", "", "agreement.name"),
        ("data.1.name", "Hospital", "agreement.name"),
        ("data.1.name", "a b", "agreement.name"),
        ("data.1.name", "a\n", "agreement.name"),
        ("data.1.name", "1a", "agreement.name"),
        ("data.1.name", "a" * 64, "agreement.name"),
        ("data.1.owner", ZERO20, "agreement.empty"),
        ("data.1.idOrStream", ZERO32, "agreement.empty"),
        ("data.1.lineage", ZERO32, "agreement.empty"),
        ("data.1.sharesDigest", ZERO32, "agreement.empty"),
        ("data.1.columns", [], "agreement.count"),
        ("data.1.columns", [f"c{n}" for n in range(1025)], "agreement.count"),
        ("data.1.columns", ["a", "a"], "agreement.duplicate"),
        ("data.1.columns.0", "", "agreement.name"),
        ("data.1.columns.0", "pat\u202eient", "agreement.name"),
        ("data.1.columns.0", "e\u0301", "agreement.name"),
        ("tee.measurements", [], "agreement.count"),
        ("tee.measurements", many(65), "agreement.count"),
        ("tee.measurements.0", ZERO32, "agreement.empty"),
        ("tee.anchors", [], "agreement.count"),
        ("tee.anchors", many(65), "agreement.count"),
        ("tee.anchors.0", ZERO32, "agreement.empty"),
        ("tee.statusMask", 0, "agreement.statuses"),
        ("tee.statusMask", 1 << 1 | 1 << 7, "agreement.statuses"),
        ("tee.statusMask", 1 << 1 | 1, "agreement.statuses"),
        ("tee.statusMask", 1 << 1 | 1 << 10, "agreement.statuses"),
        ("tee.evalFloor", 0, "agreement.evidence"),
        ("tee.maxEvidenceAge", "0", "agreement.evidence"),
        ("tee.anyHost", True, "agreement.hosts"),
        ("tee.operators.0", ZERO20, "agreement.hosts"),
        ("tee.operators", addresses(65), "agreement.count"),
        ("tee.platforms.0", ZERO32, "agreement.empty"),
        ("tee.platforms", many(65), "agreement.count"),
        ("keys.brokers", [], "agreement.count"),
        ("keys.brokers", [{"hpkeKey": h, "signer": a} for h, a in zip(many(17), addresses(17), strict=True)],
         "agreement.count"),
        ("keys.brokers.0.hpkeKey", ZERO32, "agreement.empty"),
        ("keys.brokers.0.signer", ZERO20, "agreement.empty"),
        ("keys.brokers.0.hpkeKey", CASES["Agreement"]["keys"]["brokers"][1]["hpkeKey"], "agreement.duplicate"),
        ("keys.brokers.0.signer", CASES["Agreement"]["keys"]["brokers"][1]["signer"], "agreement.duplicate"),
        ("keys.threshold", 0, "agreement.threshold"),
        ("keys.threshold", 4, "agreement.threshold"),
        ("keys.maxReleases", 0, "agreement.releases"),
        ("keys.confirmation", 0, "agreement.confirmation"),
        ("keys.confirmation", 4, "agreement.confirmation"),
        ("keys.confirmation", 3, "agreement.confirmation"),
        ("outputs", [], "agreement.count"),
        ("outputs", lambda o: renamed(o[0], 17), "agreement.count"),
        ("outputs", lambda o: o * 2, "agreement.duplicate"),
        ("outputs.0.name", "By Diagnosis", "agreement.name"),
        ("outputs.0.recipients", [A32, A32], "agreement.duplicate"),
        ("outputs.0.recipients", many(65), "agreement.count"),
        ("outputs.0.owners", [], "agreement.count"),
        ("outputs.0.owners", addresses(18), "agreement.count"),
        ("outputs.0.owners.0", ZERO20, "agreement.empty"),
        ("outputs.0.sizeClass", 0, "agreement.size_class"),
        ("outputs.0.kind", 0, "agreement.output_kind"),
        ("outputs.0.kind", 2, "agreement.output_kind"),
        ("outputs.0.kind", 3, "agreement.output_kind"),
        ("outputs.0.recipients", [], "agreement.output_kind"),
        ("access.requesters", ZERO32, "agreement.empty"),
        ("access.quota", "0", "agreement.quota"),
        ("access.quota", "9", "agreement.quota"),
        ("access.quotaPerRequester", "0", "agreement.quota"),
        ("access.quotaPerRequester", "101", "agreement.quota"),
        ("price.fee", str(1 << 128), "agreement.price"),
        ("price.fee", "1", "agreement.price"),
        ("price.failedFee", str(10**15 + 1), "agreement.price"),
        ("price.minFee", str(10**15 + 1), "agreement.price"),
        ("price", {**CASES["Agreement"]["price"], "minFee": "1", "to": [], "bps": []}, "agreement.price"),
        ("price.to", addresses(1), "agreement.price"),
        ("price.to", addresses(17), "agreement.count"),
        ("price.to.0", ZERO20, "agreement.price"),
        ("price.bps", [2500], "agreement.price"),
        ("price.bps", [5000, 5001], "agreement.price"),
        ("notBefore", "1900000000", "agreement.validity"),
        ("notAfter", str(1 << 40), "agreement.validity"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_refused(path: str, value: Any, code: str) -> None:
    assert refusal(path, value).code == code


@pytest.mark.parametrize("rule", [0, 4])
def test_an_unknown_confirmation_rule_is_refused_without_blocks_too(rule: int) -> None:
    keys = {**CASES["Agreement"]["keys"], "confirmBlocks": 0}
    assert refusal("keys", {**keys, "confirmation": rule}).code == "agreement.confirmation"


def test_no_hosts_at_all_are_refused() -> None:
    tee = {**CASES["Agreement"]["tee"], "operators": [], "platforms": []}
    assert refusal("tee", tee).code == "agreement.hosts"
    rules.check_agreement(validate(Agreement, changed(CASES["Agreement"], "tee", {**tee, "anyHost": True})))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tee.operators", []),
        ("tee.platforms", []),
        ("price", {**CASES["Agreement"]["price"], "to": [], "bps": []}),
        ("price.bps", [5000, 5000]),
        ("price.minFee", str(10**15)),
        ("price.fee", str((1 << 128) - 1)),
        ("access.quotaPerRequester", "100"),
        ("keys.threshold", 3),
        ("outputs.0.recipients", [ZERO32]),
        ("notAfter", str((1 << 40) - 1)),
    ],
)
def test_the_border_of_a_rule_is_inside(path: str, value: Any) -> None:
    rules.check_agreement(validate(Agreement, changed(CASES["Agreement"], path, value)))


PUBLIC = changed(
    changed(
        CASES["Agreement"],
        "outputs.0",
        {**CASES["Agreement"]["outputs"][0], "kind": 2, "recipients": [], "sizeClass": 1},
    ),
    "keys",
    {**CASES["Agreement"]["keys"], "confirmation": 3, "confirmBlocks": 0},
)


def test_a_public_output_is_agreed_in_one_way_only() -> None:
    rules.check_agreement(validate(Agreement, PUBLIC))


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("outputs.0.kind", 1, "agreement.output_kind"),
        ("outputs.0.recipients", [ZERO32], "agreement.output_kind"),
        ("outputs.0.sizeClass", 2, "agreement.size_class"),
        ("outputs.0.sizeClass", 0, "agreement.size_class"),
        ("outputs.0.owners", [], "agreement.count"),
        ("keys.confirmation", 2, "agreement.confirmation"),
        ("keys.confirmation", 1, "agreement.confirmation"),
    ],
)
def test_a_public_output_that_is_half_of_one_is_refused(path: str, value: Any, code: str) -> None:
    with pytest.raises(Refused) as caught:
        rules.check_agreement(validate(Agreement, changed(PUBLIC, path, value)))
    assert caught.value.code == code


def test_a_sealed_output_beside_a_public_one_needs_a_final_request_too() -> None:
    both = changed(PUBLIC, "outputs", [PUBLIC["outputs"][0], {**CASES["Agreement"]["outputs"][0], "name": "sealed"}])
    rules.check_agreement(validate(Agreement, both))
    with pytest.raises(Refused) as caught:
        rules.check_agreement(validate(Agreement, changed(both, "keys.confirmation", 2)))
    assert caught.value.code == "agreement.confirmation"


AGREEMENT = validate(Agreement, CASES["Agreement"])


@pytest.mark.parametrize(("recipients", "needed"), [([ZERO32], True), ([A32, ZERO32], True), ([A32], False)])
def test_a_request_needs_a_key_where_an_output_is_for_it(recipients: list[str], needed: bool) -> None:
    agreement = validate(Agreement, changed(CASES["Agreement"], "outputs.0.recipients", recipients))
    request = validate(TaskRequest, changed(CASES["TaskRequest"], "resultKey", ZERO32))
    if needed:
        with pytest.raises(Refused) as caught:
            rules.check_request(agreement, request)
        assert caught.value.code == "agreement.empty"
    else:
        rules.check_request(agreement, request)


def test_a_request_for_a_public_output_needs_no_key() -> None:
    request = validate(TaskRequest, changed(CASES["TaskRequest"], "resultKey", ZERO32))
    rules.check_request(validate(Agreement, PUBLIC), request)


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("versions", [], "request.versions"),
        ("versions", lambda v: v[::-1], "request.versions"),
        ("versions", lambda v: [*v, A32], "request.versions"),
        ("versions.1", A32, "request.versions"),
        ("inputsId", A32, "agreement.not_yet"),
        ("inputShares", A32, "agreement.not_yet"),
        ("spend", "1", "agreement.not_yet"),
        ("resultKey", ZERO32, "agreement.empty"),
        ("params", "0x" + "00" * 4097, "request.params"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(path: str, value: Any, code: str) -> None:
    rules.check_request(AGREEMENT, validate(TaskRequest, CASES["TaskRequest"]))
    with pytest.raises(Refused) as caught:
        rules.check_request(AGREEMENT, validate(TaskRequest, changed(CASES["TaskRequest"], path, value)))
    assert caught.value.code == code
