"""Drafts: what a complete one becomes, and what each missing or wrong part is refused with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from eth_hash.auto import keccak

from enclave_app.protocol.bundle import InputColumn, pack
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.structs import ANYONE, Chain, Confirmation, OutputKind, TcbStatus
from oracle.agreement.document import parse_document
from oracle.agreement.draft import CLOCK_SLACK, Deployment, build_draft, draft_agreement
from oracle.attestation import INTEL_ROOT_DIGEST
from oracle.attestation.anchors import MAKERS
from oracle.card import BrokerCard, read_card
from oracle.keys import create_wallet, read_public_key, read_wallet

PUBLIC = {"name": "result", "recipients": "public", "owners": ["lab"]}


def test_a_complete_draft_becomes_the_agreement_it_describes(case: Any) -> None:
    draft = case.draft()
    agreement = draft.document.agreement
    lab, hospital_a, hospital_b = (key.address for key in case.keys)
    assert agreement.parties() == (lab, hospital_a, hospital_b)
    assert agreement.fn.id == draft.bundle.id
    assert (agreement.fn.limits.memory_mib, agreement.fn.limits.output_bytes) == (512, 1 << 20)
    assert agreement.param_domain == draft.bundle.header.params.id
    assert [d.columns for d in agreement.data] == [("patient", "malignant"), ("patient", "radius")]
    assert [d.id_or_stream for d in agreement.data] == [draft.manifests[n].id for n in ("clinic", "imaging")]
    assert [d.shares_digest for d in agreement.data] == [draft.shares[n].id for n in ("clinic", "imaging")]
    assert agreement.tee.status_mask == 1 << TcbStatus.UP_TO_DATE
    assert agreement.tee.measurements == (bytes([0xE1]) * 32,)
    assert agreement.tee.max_evidence_age == 86400
    assert (agreement.keys.threshold, agreement.keys.confirmation) == (2, Confirmation.FINALIZED)
    assert agreement.outputs[0].recipients == (ZERO32,)
    assert (agreement.price.fee, agreement.price.failed_fee) == (10**16, 10**9)
    assert (agreement.price.to, agreement.price.bps) == ((hospital_a, hospital_b), (3000, 1250))
    assert agreement.not_before == case.now - CLOCK_SLACK
    assert agreement.not_after == case.now + 90 * 86400
    assert agreement.activate_before == case.now + 7 * 86400
    assert len(draft.document.endpoints) == 3
    assert next(iter(draft.document.requesters)) == lab


def test_a_party_is_named_by_the_file_that_it_sent(case: Any) -> None:
    expected = case.draft().document.agreement.fn.owner
    wallet = case.base / "wallet.json"
    if not wallet.exists():
        create_wallet(wallet, lambda: "a password", n=1 << 10)
    said = {"kind": "wallet", "file": "/home/lab/wallet.json", "address": expected}
    (case.base / "said.json").write_text(json.dumps(said))
    (case.base / "address.txt").write_text(f"{expected}\n")
    for file, address in (
        ("said.json", expected),
        ("address.txt", expected),
        ("wallet.json", read_wallet(wallet).address),
    ):
        case.set("parties.lab", file)
        assert case.draft().document.agreement.fn.owner == address


def test_a_card_says_all_of_a_broker(case: Any) -> None:
    written = case.draft().document
    for n, broker in enumerate(written.agreement.keys.brokers):
        card = BrokerCard(
            hpke_key=read_public_key(case.base / f"broker{n}.json").wire,
            digest=broker.hpke_key,
            signer=broker.signer,
            url=f"https://broker{n}.example",
        )
        (case.base / f"card{n}.json").write_bytes(card.canonical())
    case.set("brokers.list", [{"key": f"card{n}.json"} for n in range(3)])
    drafted = case.draft().document
    assert (drafted.agreement.keys, drafted.endpoints) == (written.agreement.keys, written.endpoints)
    first = read_card(case.base / "card0.json")
    (case.base / "card0.json").write_bytes(first.model_copy(update={"url": "javascript:alert(1)"}).canonical())
    with pytest.raises(Refused) as refused:
        case.draft()
    assert (refused.value.code, "brokers.list[0].key" in refused.value.message) == ("draft.reference", True)


def test_an_anchor_can_lie_in_a_file(case: Any) -> None:
    (case.base / "anchor.txt").write_text("0x" + "ab" * 32 + "\n")
    case.set("enclaves.anchors", ["anchor.txt"])
    assert case.draft().document.agreement.tee.anchors == (bytes([0xAB]) * 32,)


def test_two_drafts_differ_by_their_salt_alone(case: Any) -> None:
    first, second = case.draft().document.agreement, case.draft().document.agreement
    assert first.salt != second.salt
    assert first.model_copy(update={"salt": second.salt}) == second


def test_a_yaml_file_is_read_with_paths_from_its_directory(case: Any) -> None:
    (case.base / "agreement.yaml").write_text(yaml.safe_dump(case.value))
    draft = draft_agreement(case.base / "agreement.yaml", now=case.now)
    assert draft.document.agreement.fn.id == case.draft().document.agreement.fn.id


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("parties", "parties: is not set"),
        ("function.limits", "limits: {memory: 512 MiB"),
        ("data.0.columns", "data[0].columns: is not set; write the columns"),
        ("data.0.shares", "data[0].shares: is not set"),
        ("data.0.manifest", "data[0]: name the dataset by its manifest"),
        ("enclaves", "measurements, anchors, statuses"),
        ("enclaves.measurements", "enclaves.measurements: is not set"),
        ("enclaves.anchors", "write anchors: [intel]"),
        ("enclaves.statuses", "write statuses: [UP_TO_DATE]"),
        ("enclaves.evaluationFloor", "enclaves.evaluationFloor: is not set"),
        ("enclaves.maxEvidenceAge", "such as 24 h"),
        ("enclaves.hosts", "anyHost: true"),
        ("brokers.threshold", "brokers.threshold: is not set"),
        ("brokers.confirmation", "confirmation: finalized"),
        ("outputs.0.recipients", "recipients: [requester]"),
        ("outputs.0.owners", "outputs[0].owners: is not set"),
        ("access.requesters", "requesters: anyone"),
        ("access.quota", "access.quota: is not set"),
        ("price", "price: free"),
        ("validity.until", "until: 2026-12-31"),
    ],
)
def test_an_unset_policy_refuses_and_says_what_to_write(case: Any, path: str, says: str) -> None:
    *parents, last = path.split(".")
    inner = case.value
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    del inner[last]
    with pytest.raises(Refused) as refused:
        case.draft()
    assert refused.value.code == "yaml.invalid"
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("path", "value", "code", "says"),
    [
        ("function.owner", "nobody", "draft.party", "function.owner"),
        ("function.bundle", "missing.eofb", "draft.reference", "function.bundle"),
        ("function.bundle", "enclave.txt", "draft.reference", "function.bundle"),
        ("function.bundle", "a\0b", "draft.reference", "function.bundle"),
        ("function.limits.memory", "512 KiB", "draft.limits", "whole MiB"),
        ("function.limits.memory", "512", "yaml.invalid", "function.limits.memory"),
        ("function.limits.time", 30, "yaml.invalid", "function.limits.time"),
        ("data.0.owner", "0x" + "12" * 19, "draft.party", "data[0].owner"),
        ("data.0.manifest", "imaging", "draft.columns", "data[0].columns"),
        ("data.0.columns", ["patient", "weight"], "draft.columns", "data[0].columns"),
        ("data.0.columns", ["patient"], "draft.tables", "malignant"),
        ("data.0.columns", [], "yaml.invalid", "data[0].columns"),
        ("data.0.name", "other", "draft.tables", "clinic"),
        ("data.0.name", "Clinic", "draft.tables", "clinic"),
        ("data.0.shares", "imaging/shares.json", "draft.reference", "data[0].shares"),
        ("data.0.id", "0x" + "11" * 32, "yaml.invalid", "data[0]"),
        ("enclaves.measurements", ["0x12"], "draft.reference", "enclaves.measurements[0]"),
        ("enclaves.measurements", ["0x" + "00" * 32], "agreement.empty", "tee"),
        ("enclaves.anchors", ["inter"], "draft.reference", "enclaves.anchors[0]"),
        ("enclaves.anchors", [], "yaml.invalid", "enclaves.anchors"),
        ("enclaves.statuses", ["UP_TO_DATE", "REVOKED"], "draft.status", "enclaves.statuses[1]"),
        ("enclaves.statuses", ["FINE"], "draft.status", "enclaves.statuses[0]"),
        ("enclaves.evaluationFloor", 0, "yaml.invalid", "enclaves.evaluationFloor"),
        ("enclaves.evaluationFloor", 1 << 32, "draft.range", "eval"),
        ("enclaves.anyHost", True, "yaml.invalid", "anyHost"),
        ("enclaves.anyHost", "yes", "yaml.invalid", "enclaves.anyHost"),
        ("brokers.threshold", 4, "draft.threshold", "brokers.threshold"),
        ("brokers.threshold", 3, "draft.shares", "clinic"),
        ("brokers.confirmation", "sometimes", "yaml.invalid", "brokers.confirmation"),
        ("brokers.list.0.key", "broker9.json", "draft.reference", "brokers.list[0].key"),
        ("brokers.list.0.key", "broker1.json", "draft.shares", "clinic"),
        ("brokers.list.0", {"key": "broker0.json"}, "draft.reference", "brokers.list[0].key"),
        ("brokers.list.0", {"key": "0x" + "12" * 32}, "yaml.invalid", "brokers.list[0]"),
        ("brokers.list.0.url", "javascript:alert(1)", "yaml.invalid", "brokers.list[0].url"),
        ("outputs.0.name", "other", "draft.outputs", "other"),
        ("outputs.0", {**PUBLIC, "sizeClass": "4 KiB"}, "yaml.invalid", "sizeClass"),
        ("outputs.0", {**PUBLIC, "recipients": []}, "yaml.invalid", "recipients"),
        ("outputs.0.recipients", ["nobody"], "draft.reference", "outputs[0].recipients[0]"),
        ("outputs.0.sizeClass", "0 KiB", "agreement.size_class", "size class"),
        ("access.requesters", ["lab", "lab"], "access.requesters", "once"),
        ("access.quotaPerRequester", 11, "agreement.quota", "quota"),
        ("price.fee", "0.01", "draft.amount", "price"),
        ("price.fee", "0.5 wei", "draft.amount", "price"),
        ("price.failedFee", "1 ether", "agreement.price", "fee"),
        ("price.shares", {"hospital_a": "60%", "hospital_b": "50%"}, "agreement.price", "basis points"),
        ("price.shares", {"stranger": "5%"}, "draft.party", "price.shares.stranger"),
        ("validity.until", "2020-01-01", "draft.validity", "before now"),
        ("validity.until", "2027-01-01T12:00:00", "yaml.invalid", "validity.until"),
        ("validity.until", "soon", "yaml.invalid", "validity.until"),
        ("validity.from", "2028-01-01", None, ""),
        ("validity.activateBefore", "2020-01-01", "draft.validity", "before now"),
        ("parties.lab", "0x52908400098527886E0F7030069857D2E4169Ee7", "draft.reference", "parties.lab"),
        ("parties.lab", "nowhere.json", "draft.reference", "parties.lab"),
        ("parties.lab", "enclave.txt", "draft.reference", "parties.lab"),
        ("parties.lab", "", "yaml.invalid", "parties.lab"),
        ("chain.id", 0, "yaml.invalid", "chain.id"),
        ("notes", "x" * 4001, "yaml.invalid", "notes"),
        ("surprise", 1, "yaml.invalid", "surprise"),
    ],
)
def test_one_wrong_field_is_refused_by_its_place(
    case: Any, path: str, value: object, code: str | None, says: str
) -> None:
    case.set(path, value)
    if code is None:
        case.draft()
        return
    with pytest.raises(Refused) as refused:
        case.draft()
    assert refused.value.code == code
    assert says in refused.value.message


def test_share_lists_for_the_brokers_in_another_order_are_refused(case: Any) -> None:
    case.value["brokers"]["list"].reverse()
    with pytest.raises(Refused) as refused:
        case.draft()
    assert refused.value.code == "draft.shares"


def test_any_host_has_to_be_written_out_and_then_stands_alone(case: Any) -> None:
    del case.value["enclaves"]["hosts"]
    case.set("enclaves.anyHost", True)
    tee = case.draft().document.agreement.tee
    assert tee.any_host
    assert tee.operators == tee.platforms == ()


def test_anyone_may_request_only_where_that_is_written(case: Any) -> None:
    case.set("access.requesters", "anyone")
    document = case.draft().document
    assert document.agreement.access.requesters == ANYONE
    assert document.requesters == {}


def test_one_requester_is_a_double_hashed_leaf(case: Any) -> None:
    case.set("access.requesters", ["lab"])
    address = bytes.fromhex(case.keys[0].address[2:])
    assert case.draft().document.agreement.access.requesters == keccak(
        keccak(bytes(12) + address + (5).to_bytes(32, "big"))
    )


def test_a_dataset_can_be_named_by_its_digests(case: Any) -> None:
    drafted = case.draft()
    manifest, shares = drafted.manifests["clinic"], drafted.shares["clinic"]
    case.value["data"][0] = {
        "name": "clinic",
        "owner": "hospital_a",
        "id": "0x" + manifest.id.hex(),
        "lineage": "0x" + manifest.lineage.hex(),
        "shares": "0x" + shares.id.hex(),
        "columns": ["patient", "malignant"],
    }
    assert case.draft().document.agreement.data == drafted.document.agreement.data


def test_a_column_of_another_type_than_the_function_expects_is_refused(case: Any) -> None:
    header = case.draft().bundle.header
    imaging = header.tables[1].model_copy(
        update={"columns": (InputColumn(name="patient", type="int64"), InputColumn(name="radius", type="float"))}
    )
    other = pack(header.model_copy(update={"tables": (header.tables[0], imaging)}), {"query.sql": b"SELECT 1"})
    (case.base / "other.eofb").write_bytes(other.raw)
    case.set("function.bundle", "other.eofb")
    with pytest.raises(Refused, match="has another type") as refused:
        case.draft()
    assert refused.value.code == "draft.tables"


@pytest.mark.parametrize(("chain", "refused_there"), [(1, True), (11155111, True), (31337, False), (900_001, False)])
def test_development_anchors_are_refused_on_public_chains(case: Any, chain: int, refused_there: bool) -> None:
    case.set("chain.id", chain)
    case.set("enclaves.anchors", ["intel", "0x" + "de" * 32])
    if refused_there:
        with pytest.raises(Refused) as refused:
            case.draft()
        assert refused.value.code == "agreement.development_anchor"
    else:
        assert len(case.draft().document.agreement.tee.anchors) == 2


def test_makers_are_known_by_name_and_roots_by_file(case: Any) -> None:
    root = Path(__file__).parents[3] / "oracle" / "attestation" / "roots" / "intel-sgx-root-ca.der"
    case.set("enclaves.anchors", ["intel", "amd", "aws", str(root)])
    anchors = case.draft().document.agreement.tee.anchors
    assert len(anchors) == 5
    assert len(set(anchors)) == 5


VERIFIER = "0x" + "e5" * 32


def test_what_an_attested_verifier_vouches_for_is_listed_beside_the_makers_roots(case: Any) -> None:
    case.set("enclaves.anchors", ["intel", f"amd via {VERIFIER} under intel"])
    document = case.draft().document
    assert [path.root for path in document.paths] == list(MAKERS["amd"])
    assert {(path.voucher.anchor, path.voucher.measurement) for path in document.paths} == {
        (INTEL_ROOT_DIGEST, bytes([0xE5]) * 32)
    }
    anchors = (INTEL_ROOT_DIGEST, *MAKERS["amd"], *(path.anchor for path in document.paths))
    assert document.agreement.tee.anchors == anchors


@pytest.mark.parametrize(
    ("anchor", "refused_there"),
    [
        (f"amd via {VERIFIER} under intel", False),
        (f"amd via {VERIFIER} under 0x{'de' * 32}", True),
        (f"0x{'de' * 32} via {VERIFIER} under intel", True),
    ],
)
def test_a_development_root_anywhere_on_a_path_is_refused_on_public_chains(
    case: Any, anchor: str, refused_there: bool
) -> None:
    case.set("chain.id", 1)
    case.set("enclaves.anchors", [anchor])
    if refused_there:
        with pytest.raises(Refused) as refused:
            case.draft()
        assert refused.value.code == "agreement.development_anchor"
    else:
        assert len(case.draft().document.paths) == 3


@pytest.mark.parametrize("lost", ["anchor", "root"])
def test_a_path_that_leads_nowhere_in_the_agreement_is_no_part_of_a_document(case: Any, lost: str) -> None:
    case.set("enclaves.anchors", [f"aws via {VERIFIER} under intel"])
    document = case.draft().document
    (path,) = document.paths
    value = json.loads(document.canonical())
    value["agreement"]["tee"]["anchors"].remove("0x" + (path.anchor if lost == "anchor" else path.root).hex())
    with pytest.raises(Refused) as refused:
        parse_document(json.dumps(value).encode())
    assert "a path leads to" in refused.value.message


def test_a_grace_is_drafted_in_days_and_is_none_where_it_is_not_written(case: Any) -> None:
    assert case.draft().document.agreement.tee.grace_days == 0
    case.set("enclaves.graceDays", 14)
    assert case.draft().document.agreement.tee.grace_days == 14


def test_statuses_are_read_in_intels_spelling_too(case: Any) -> None:
    case.set("enclaves.statuses", ["UpToDate", "SWHardeningNeeded", "TDRelaunchAdvisedConfigurationNeeded"])
    assert case.draft().document.agreement.tee.status_mask == 1 << 1 | 1 << 2 | 1 << 9


def test_a_free_agreement_says_so(case: Any) -> None:
    case.set("price", "free")
    assert case.draft().document.agreement.price.fee == 0


def test_latest_blocks_are_counted(case: Any) -> None:
    case.set("brokers.confirmation", {"latest": 5})
    keys = case.draft().document.agreement.keys
    assert (keys.confirmation, keys.confirm_blocks) == (Confirmation.LATEST, 5)


def test_the_chain_comes_from_the_file_or_the_configuration_and_they_must_agree(case: Any) -> None:
    written = case.value["chain"]
    chain = Chain(chain_id=written["id"], agreement_registry=written["agreementRegistry"])
    same = Deployment(chain, case.draft().document.agreement.oracle, case.draft().document.agreement.enclave_registry)
    del case.value["chain"]
    with pytest.raises(Refused) as refused:
        case.draft()
    assert refused.value.code == "draft.chain"
    assert build_draft(case.value, base=case.base, now=case.now, deployment=same).document.chain == chain
    case.value["chain"] = {**written, "id": 1}
    with pytest.raises(Refused) as refused:
        build_draft(case.value, base=case.base, now=case.now, deployment=same)
    assert refused.value.code == "draft.chain"


def test_a_public_output_is_abi_values_for_everyone(case: Any) -> None:
    case.set("outputs.0", PUBLIC)
    (output,) = case.draft().document.agreement.outputs
    assert (output.kind, output.recipients, output.size_class, len(output.owners)) == (OutputKind.ABI_VALUES, (), 1, 1)


@pytest.mark.parametrize("confirmation", ["safe", {"latest": 5}])
def test_a_public_output_without_finality_is_refused(case: Any, confirmation: object) -> None:
    """R9: what is published cannot be taken back, so the request must not be either."""
    case.set("outputs.0", PUBLIC)
    case.set("brokers.confirmation", confirmation)
    with pytest.raises(Refused) as refused:
        case.draft()
    assert refused.value.code == "agreement.confirmation"
