"""The commands against real contracts, each step by the command that a person would use.

No enclave runs here: how a task is settled and its result opened is the end-to-end tests' story.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from eth_utils.address import to_checksum_address

from enclave_app.protocol.onchain import requester_leaf
from enclave_app.protocol.structs import TaskRequest
from oracle.agreement.document import read_document
from tests import town_kit
from tests.broker_kit import make_world
from tests.cli_kit import answer, oracle, refusal
from tests.town_kit import FEE, MEASUREMENT, Town

town = town_kit.town


def test_an_agreement_lives_from_activation_to_revocation(town: Town) -> None:
    document, agreement_id = town.active("life")
    status = answer("agreement", "status", agreement_id, *town.as_("stranger"))
    assert (status["status"], status["quota"], status["fee_wei"]) == ("active", 10, str(FEE))
    assert answer("agreement", "suspend", document, *town.as_("hospital"))["status"] == "suspended"
    assert answer("agreement", "resume", document, *town.as_("hospital"))["status"] == "active"
    assert answer("agreement", "revoke", agreement_id, "--yes", *town.as_("lab"))["status"] == "revoked"
    shown = oracle("agreement", "status", agreement_id, *town.as_("lab"))
    assert "revoked" in shown.stdout


def test_an_active_agreement_is_read_from_the_chain(town: Town) -> None:
    _, agreement_id = town.active("read")
    shown = answer("agreement", "show", agreement_id, *town.as_("stranger"))
    assert shown["agreement_id"] == agreement_id
    assert shown["missing"] == []
    assert shown["terms"]["data"][0]["name"] == "people"


def test_an_agreement_that_one_party_did_not_sign_is_not_activated(town: Town) -> None:
    draft, document = town.base / "half.draft", town.base / "half.json"
    draft.write_text(yaml.safe_dump(town.draft()))
    answer("agreement", "draft", draft, "--out", document, *town.as_("lab"))
    answer("agreement", "sign", document, "--yes", *town.as_("lab"))
    error = refusal("agreement", "activate", document, *town.as_("lab"))
    assert error["code"].startswith("contract.AgreementRegistry_")
    answer("agreement", "approve", document, "--yes", *town.as_("hospital"))
    assert answer("agreement", "activate", document, *town.as_("lab"))["status"] == "active"


def test_revoking_asks_first(town: Town) -> None:
    _, agreement_id = town.active("ask")
    ran = oracle("agreement", "revoke", agreement_id, *town.as_("lab"), given="n\n")
    assert (ran.code, "confirm.declined" in ran.stderr) == (1, True)
    assert answer("agreement", "status", agreement_id, *town.as_("lab"))["status"] == "active"


def test_programs_and_hosts_are_dropped_once(town: Town) -> None:
    document, _ = town.active("drop")
    host = town.addresses["stranger"]
    answer("agreement", "drop-measurement", document, MEASUREMENT, "--yes", *town.as_("hospital"))
    answer("agreement", "drop-host", document, host, "--yes", *town.as_("hospital"))
    answer("agreement", "suspend", document, *town.as_("lab"))
    narrowed = answer("agreement", "status", document, *town.as_("stranger"))["narrowed"]
    assert narrowed == [
        {"how": "dropped measurement", "what": MEASUREMENT, "party": town.addresses["hospital"]},
        {"how": "dropped host", "what": host, "party": town.addresses["hospital"]},
        {"how": "suspended", "what": None, "party": town.addresses["lab"]},
    ]
    shown = oracle("agreement", "status", document, *town.as_("hospital")).stdout
    assert f"dropped host {host} by YOU ({town.addresses['hospital']})" in " ".join(shown.split())
    assert "fee 0.001 ether" in " ".join(shown.split())
    error = refusal("agreement", "drop-host", document, host, "--yes", *town.as_("stranger"))
    assert error["code"].startswith("contract.AgreementRegistry_")


def test_a_strangers_suspension_is_refused(town: Town) -> None:
    document, _ = town.active("stranger")
    error = refusal("agreement", "suspend", document, *town.as_("stranger"))
    assert error["code"] == "contract.AgreementRegistry_NotAParty"


def test_an_agreement_of_another_chain_is_not_sent(town: Town) -> None:
    registry = "0x" + "a1" * 20
    chain = {"id": 31337, "agreementRegistry": registry, "oracle": registry, "enclaveRegistry": registry}
    (town.base / "other.draft").write_text(yaml.safe_dump({**town.draft(), "chain": chain}))
    ran = refusal("agreement", "draft", town.base / "other.draft", "--out", town.base / "o.json", *town.as_("lab"))
    assert ran["code"] == "draft.chain"


def test_a_request_is_paid_followed_cancelled_and_its_fee_collected(town: Town) -> None:
    document, agreement_id = town.active("request")
    asked = answer("task", "request", document, "--param", "smallest_group=2", *town.as_("lab"))
    assert (asked["agreement_id"], asked["state"], asked["fee_wei"]) == (agreement_id, "requested", str(FEE))
    waiting = refusal("task", "watch", asked["task_id"], "--patience", "0.1", *town.as_("stranger"))
    assert (waiting["code"], waiting["retry"]) == ("task.pending", True)
    assert refusal("task", "expire", asked["task_id"], *town.as_("lab"))["code"].startswith("contract.ComputeOracle_")
    assert answer("task", "cancel", asked["task_id"], *town.as_("lab"))["state"] == "cancelled"
    assert answer("task", "watch", asked["task_id"], *town.as_("stranger"))["state"] == "cancelled"
    assert answer("withdraw", *town.as_("lab"))["amount_wei"] == str(FEE)
    assert refusal("withdraw", *town.as_("lab"))["code"] == "withdraw.nothing"
    assert answer("agreement", "status", agreement_id, *town.as_("lab"))["used"] == 0


def test_a_task_that_nobody_computed_expires(town: Town) -> None:
    _, agreement_id = town.active("expire", access={"requesters": "anyone", "quota": 10})
    words = ("--param", "smallest_group=2", "--seconds", 60)
    asked = answer("task", "request", agreement_id, *words, *town.as_("stranger"))
    town.call("anvil_mine", hex(2), hex(100))
    assert refusal("task", "watch", asked["task_id"], *town.as_("lab"))["code"] == "task.late"
    assert answer("task", "expire", asked["task_id"], *town.as_("stranger"))["state"] == "expired"
    assert refusal("task", "result", asked["task_id"], *town.as_("stranger"))["code"] == "task.pending"


@pytest.mark.parametrize(
    ("words", "who", "code"),
    [
        (("--param", "smallest_group=0"), "lab", "params.value"),
        (("--param", "smallest_group=x"), "lab", "params.value"),
        ((), "lab", "params.names"),
        (("--param", "smallest_group=2"), "stranger", "access.requester"),
    ],
)
def test_what_would_be_refused_later_costs_nothing_now(town: Town, words: tuple[str, ...], who: str, code: str) -> None:
    document, agreement_id = town.active(f"refused-{code}-{len(words)}-{words[-1:]}")
    assert refusal("task", "request", document, *words, *town.as_(who))["code"] == code
    assert answer("agreement", "status", agreement_id, *town.as_("lab"))["used"] == 0


def test_a_list_of_requesters_has_to_be_at_hand(town: Town) -> None:
    _, agreement_id = town.active("listed")
    error = refusal("task", "request", agreement_id, "--param", "smallest_group=2", *town.as_("lab"))
    assert error["code"] == "access.requesters"


def test_the_tasks_of_an_agreement_are_listed_as_they_stand(town: Town) -> None:
    document, agreement_id = town.active("tasks")
    assert answer("task", "list", document, *town.as_("hospital"))["tasks"] == []
    asked = [
        answer("task", "request", document, "--param", f"smallest_group={n}", *town.as_("lab"))["task_id"]
        for n in (1, 2)
    ]
    answer("task", "cancel", asked[0], *town.as_("lab"))
    listed = answer("task", "list", agreement_id, *town.as_("hospital"))["tasks"]
    assert [(task["task_id"], task["params"], task["state"]) for task in listed] == [
        (asked[0], '{"smallest_group":1}', "cancelled"),
        (asked[1], '{"smallest_group":2}', "requested"),
    ]
    assert {task["requester"] for task in listed} == {town.addresses["lab"]}
    request = TaskRequest.model_validate(listed[1]["request"])
    written = read_document(document)
    domain = written.chain.oracle_domain(written.agreement)
    assert "0x" + request.typed_digest(domain).hex() == asked[1]


def test_a_contracts_arguments_are_what_a_request_of_a_wallet_holds(town: Town) -> None:
    listed = ["lab", town.addresses["stranger"]]
    document, agreement_id = town.active("arguments", access={"requesters": listed, "quota": 10})
    words = (document, "--param", "smallest_group=2")
    assert answer("task", "arguments", *words, *town.as_("lab"))["admission"]["proof"] == []
    said = answer("task", "arguments", *words, "--requester", town.addresses["stranger"], *town.as_("lab"))
    terms = answer("agreement", "show", document, *town.as_("lab"))["terms"]
    leaf = requester_leaf(town.addresses["lab"], 10)
    assert said == {
        "oracle": to_checksum_address(terms["oracle"]),
        "agreement_id": agreement_id,
        "versions": [terms["data"][0]["idOrStream"]],
        "params": "0x" + b'{"smallest_group":2}'.hex(),
        "result_key": answer("keys", "show", town.base / "result.key")["digest"],
        "fee_wei": str(FEE),
        "admission": {
            "requesters": terms["access"]["requesters"],
            "quota": "10",
            "proof": ["0x" + leaf.hex()],
            "data": [],
        },
    }


@pytest.mark.parametrize(
    ("words", "who", "code"),
    [
        (("--param", "smallest_group=0"), "lab", "params.value"),
        (("--param", "smallest_group=2"), "stranger", "access.requester"),
    ],
)
def test_arguments_that_the_contract_would_not_take_are_refused(
    town: Town, words: tuple[str, ...], who: str, code: str
) -> None:
    document, _ = town.active(f"arguments-{code}")
    asked = ("task", "arguments", document, *words, "--requester", town.addresses[who], *town.as_("lab"))
    assert refusal(*asked)["code"] == code


def test_a_devnet_gives_ether_to_whom_it_is_told(town: Town) -> None:
    address = "0x" + "ab" * 20
    assert answer("devnet", "fund", address.lower(), "--ether", 3, *town.as_("lab"))["balance_wei"] == str(3 * 10**18)
    own = answer("devnet", "fund", *town.as_("stranger"))
    assert own["address"] == town.addresses["stranger"]
    assert int(own["balance_wei"]) > 10 * 10**18


def test_unknown_ids_are_said(town: Town) -> None:
    nothing = "0x" + "00" * 32
    assert refusal("agreement", "show", nothing, *town.as_("lab"))["code"] == "agreement.unknown"
    assert refusal("task", "watch", nothing, *town.as_("lab"))["code"] == "task.unknown"
    assert refusal("task", "watch", "0x12", *town.as_("lab"))["code"] == "digest.length"
    assert answer("agreement", "status", nothing, *town.as_("lab"))["status"] == "none"


def test_a_chain_that_is_not_there_may_be_tried_again(town: Town) -> None:
    config = yaml.safe_load((town.base / "lab.yaml").read_text())
    (town.base / "gone.yaml").write_text(yaml.safe_dump({**config, "rpc": "http://127.0.0.1:9"}))
    error = refusal("enclave", "list", "--config", town.base / "gone.yaml")
    assert (error["code"], error["retry"]) == ("rpc.unreachable", True)


def test_a_registry_without_enclaves_lists_none(town: Town) -> None:
    assert answer("enclave", "list", "--all", *town.as_("lab")) == {"enclaves": []}


def test_a_result_goes_only_into_a_file_of_a_known_kind(town: Town) -> None:
    words = ("task", "result", "0x" + "00" * 32, "--out", town.base / "result.xls")
    assert refusal(*words, *town.as_("lab"))["code"] == "result.format"


def test_enclaves_are_listed_with_how_they_stand(town: Town, tmp_path: Path) -> None:
    world = asyncio.run(make_world(town.url, tmp_path))
    (tmp_path / "deployment.json").write_bytes(world.deployment.canonical())
    config = {"rpc": town.url, "deployment": "deployment.json", "storage": [tmp_path.as_uri()], "brokers": {}}
    (tmp_path / "oracle.yaml").write_text(yaml.safe_dump(config))
    words = ("enclave", "list", "--config", tmp_path / "oracle.yaml")
    (found,) = answer(*words)["enclaves"]
    assert found["signer"] == world.enclave.signer.address
    assert found["measurement"] == "0x" + world.program.measurement.hex()
    assert (found["state"], found["tee"], found["tcb_status"], found["maker"]) == ("valid", "sgx", "up_to_date", None)
    assert "DEVELOPMENT" in oracle(*words).stdout
    town.call("anvil_mine", hex(2), hex(8 * 86_400))
    assert answer(*words)["enclaves"] == []
    assert [enclave["state"] for enclave in answer(*words, "--all")["enclaves"]] == ["expired"]
