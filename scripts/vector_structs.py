"""The values behind tests/vectors/eip712.json: one for every structure, each field with a value of its own."""

from __future__ import annotations

from typing import Any

from eth_utils.crypto import keccak

from enclave_app.protocol import structs as s
from enclave_app.protocol.eip712 import Domain, Struct
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import Auditors
from enclave_app.protocol.signing import SigningKey
from oracle.agreement.requesters import requesters_root

SIGNER = "enclave-oracle/test-signer"
"""A public text: the key is its keccak256, so nobody takes it for a secret."""


def word(text: str) -> bytes:
    return keccak(text=f"enclave-oracle/vectors/{text}")


def address(text: str) -> str:
    return "0x" + word(text)[-20:].hex()


def signing_key(text: str = SIGNER) -> SigningKey:
    return SigningKey(keccak(text=text))


DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")

LIMITS = s.Limits(memory_mib=512, time_seconds=30, output_bytes=1 << 20, output_rows=10_000)
FUNCTION = s.Function(
    id=word("function"),
    sealed_id=ZERO32,
    shares_digest=ZERO32,
    owner=address("function owner"),
    kind=s.FunctionKind.SQL,
    deterministic=True,
    limits=LIMITS,
)
DATASETS = tuple(
    s.Dataset(
        name=name,
        owner=address(f"{name} owner"),
        id_or_stream=word(f"{name} dataset"),
        lineage=word(f"{name} lineage"),
        shares_digest=word(f"{name} shares"),
        policy=s.DatasetPolicy.FIXED,
        min_version=0,
        columns=columns,
        budget=0,
    )
    for name, columns in (("hospital_a", ("patient", "diagnosis")), ("hospital_b", ("patient", "größe µm", "面積")))
)
ENCLAVES = s.Enclaves(
    measurements=(word("measurement 1"), word("measurement 2")),
    anchors=(word("anchor"),),
    status_mask=1 << s.TcbStatus.UP_TO_DATE | 1 << s.TcbStatus.SW_HARDENING_NEEDED,
    eval_floor=17,
    grace_days=0,
    max_evidence_age=86_400,
    any_host=False,
    operators=(address("operator 1"), address("operator 2")),
    platforms=(word("platform"),),
)
BROKERS = tuple(s.Broker(hpke_key=word(f"broker {i} key"), signer=address(f"broker {i}")) for i in (1, 2, 3))
KEYS = s.KeyRelease(
    brokers=BROKERS,
    threshold=2,
    max_releases=3,
    confirmation=s.Confirmation.LATEST,
    confirm_blocks=2,
    release_delay=5,
)
OUTPUTS = (
    s.Output(
        name="by_diagnosis",
        kind=s.OutputKind.ARROW_TABLE,
        recipients=(ZERO32, word("recipient")),
        owners=(address("hospital_a owner"), address("hospital_b owner")),
        size_class=4096,
    ),
)
ACCESS = s.Access(requesters=s.ANYONE, quota=100, quota_per_requester=10)
PRICE = s.Price(
    token=ZERO_ADDRESS,
    fee=10**15,
    min_fee=0,
    failed_fee=10**14,
    to=(address("hospital_a owner"), address("function owner")),
    bps=(2500, 1500),
)
AGREEMENT = s.Agreement(
    oracle=address("oracle"),
    enclave_registry=address("enclave registry"),
    fn=FUNCTION,
    data=DATASETS,
    tee=ENCLAVES,
    keys=KEYS,
    param_domain=word("parameter domain"),
    outputs=OUTPUTS,
    access=ACCESS,
    price=PRICE,
    not_before=1_700_000_000,
    not_after=1_900_000_000,
    activate_before=1_800_000_000,
    supersedes=ZERO32,
    auditors=ZERO32,
    salt=word("salt"),
)
QUOTAS = {address(f"requester {i}"): i for i in range(1, 8)}
"""Tasks that each may ask for."""
AUDITORS = Auditors(accounts=tuple(address(f"auditor {i}") for i in (1, 2, 3)), threshold=2)
EVERY_TERM = AGREEMENT.model_copy(
    update={
        "fn": FUNCTION.model_copy(
            update={"sealed_id": word("sealed function"), "shares_digest": word("function shares")}
        ),
        "data": (
            DATASETS[0].model_copy(
                update={
                    "id_or_stream": word("stream"),
                    "shares_digest": ZERO32,
                    "policy": int(s.DatasetPolicy.LATEST),
                    "min_version": 3,
                }
            ),
            DATASETS[1].model_copy(update={"budget": 1_000_000}),
        ),
        "tee": ENCLAVES.model_copy(update={"grace_days": 30, "any_host": True, "operators": (), "platforms": ()}),
        "keys": KEYS.model_copy(update={"confirmation": int(s.Confirmation.FINALIZED), "confirm_blocks": 0}),
        "outputs": (
            *OUTPUTS,
            s.Output(
                name="mean",
                kind=s.OutputKind.ABI_VALUES,
                recipients=(),
                owners=(address("hospital_a owner"),),
                size_class=1,
            ),
        ),
        "access": s.Access(requesters=requesters_root(QUOTAS), quota=100, quota_per_requester=6),
        "price": PRICE.model_copy(update={"token": address("token"), "min_fee": 10**13}),
        "auditors": AUDITORS.digest,
    }
)
"""Streams, a budget, a list of requesters, auditors, a token, a public output."""
AGREEMENT_ID = AGREEMENT.typed_digest(DOMAIN)
REQUEST = s.TaskRequest(
    agreement_id=AGREEMENT_ID,
    requester=address("requester"),
    nonce=word("request nonce"),
    versions=tuple(d.id_or_stream for d in DATASETS),
    inputs_id=ZERO32,
    input_shares=ZERO32,
    params=b'{"min_cases":5}',
    result_key=word("result key"),
    spend=0,
    max_fee=10**16,
    as_of=1_750_000_000,
    deadline=1_750_003_600,
    callback=address("requester"),
    callback_gas=200_000,
)
TASK_ID = REQUEST.typed_digest(DOMAIN)
OUTS = tuple(
    s.Out(
        name=name,
        kind=s.OutputKind.ARROW_TABLE,
        recipients_digest=word(f"{name} recipients"),
        length=length,
        digest=word(f"{name} output"),
    )
    for name, length in (("by_diagnosis", 4096), ("rest", 8192))
)
SUCCEEDED = s.Result(
    agreement_id=AGREEMENT_ID,
    task_id=TASK_ID,
    outcome=s.Outcome.SUCCEEDED,
    outputs=OUTS,
    payee=address("payee"),
    anchor=word("anchor"),
)
FAILED = SUCCEEDED.model_copy(update={"outcome": int(s.Outcome.FAILED), "outputs": ()})
BATCH = s.Batch(
    agreement_id=AGREEMENT_ID,
    payee=address("payee"),
    anchor=word("anchor"),
    tasks=(TASK_ID, word("another task")),
    results=(SUCCEEDED.typed_digest(DOMAIN), word("another result")),
)
AUDIT = s.Audit(function_id=FUNCTION.id, report=word("audit report"))
STATEMENT = s.VerifierStatement(
    tee=s.Tee.SGX,
    measurement=word("measurement 1"),
    report_data=word("report data"),
    root=word("root"),
    tcb_status=s.TcbStatus.UP_TO_DATE,
    evaluation=17,
    platform=word("platform"),
    svn_digest=word("svn digest"),
    collateral=word("collateral"),
    appraised_at=1_750_000_100,
    valid_until=1_750_600_000,
)
ENROLMENT = s.Enrolment(
    signer=signing_key().address,
    sealing_key=word("sealing key"),
    block_hash=word("block"),
    operator=address("operator 1"),
)
IDENTITY = s.RegisteredIdentity(
    measurement=word("measurement 1"),
    platform=word("platform"),
    sealing_key=word("sealing key"),
    svn_digest=word("svn digest"),
    verifier=word("measurement 2"),
    operator=address("operator 1"),
    tee=s.Tee.SNP,
)
RELEASE_REQUEST = s.ReleaseRequest(
    agreement_id=AGREEMENT_ID,
    task_id=TASK_ID,
    broker=BROKERS[0].hpke_key,
    nonce=word("enclave nonce"),
    sealing_key=word("sealing key"),
    anchor=word("anchor"),
)
RELEASE_STATEMENT = s.ReleaseStatement(
    agreement_id=AGREEMENT_ID,
    task_id=TASK_ID,
    signer=signing_key().address,
    nonce=word("enclave nonce"),
    broker=BROKERS[0].hpke_key,
    keys=word("key ids"),
    answer=word("answer"),
    collateral=word("collateral"),
    time=1_750_000_200,
    block_number=1234,
    block_hash=word("confirmed block"),
)
OUTPUT_SHARES = s.OutputShares(
    agreement_id=AGREEMENT_ID, task_id=TASK_ID, output_id=word("by_diagnosis output"), shares=word("output shares")
)
CASES: tuple[Struct, ...] = (
    LIMITS,
    FUNCTION,
    *DATASETS,
    ENCLAVES,
    BROKERS[0],
    KEYS,
    OUTPUTS[0],
    ACCESS,
    PRICE,
    AGREEMENT,
    EVERY_TERM.model_copy(update={"supersedes": AGREEMENT_ID}),
    REQUEST,
    OUTS[0],
    SUCCEEDED,
    FAILED,
    BATCH,
    AUDIT,
    STATEMENT,
    ENROLMENT,
    s.Host(signer=signing_key().address),
    s.Retire(signer=signing_key().address),
    RELEASE_REQUEST,
    RELEASE_STATEMENT,
    OUTPUT_SHARES,
)


def hexed(data: bytes | bytearray) -> str:
    return "0x" + data.hex()


def eip712() -> dict[str, Any]:
    key = signing_key()
    return {
        "domain": {
            "name": "Enclave Oracle",
            "version": "1",
            "chainId": DOMAIN.chain_id,
            "verifyingContract": DOMAIN.verifying_contract,
            "separator": hexed(DOMAIN.separator()),
        },
        "signer": {"keyIsKeccak256Of": SIGNER, "address": key.address},
        "cases": [
            {
                "type": case.type_name(),
                "typeString": case.encode_type(),
                "typeHash": hexed(case.type_hash()),
                "value": case.model_dump(mode="json", by_alias=True),
                "abi": hexed(case.abi_encode()),
                "structHash": hexed(case.struct_hash()),
                "digest": hexed(case.typed_digest(DOMAIN)),
                "signature": hexed(key.sign(case.typed_digest(DOMAIN))),
            }
            for case in CASES
        ],
    }
