"""From a YAML draft to an agreement: names become addresses, files become digests, and all parts must fit together."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from enclave_app.protocol.bundle import Bundle
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.onchain import Auditors
from enclave_app.protocol.shares import ShareList
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Confirmation,
    Dataset,
    DatasetPolicy,
    Enclaves,
    Function,
    FunctionKind,
    KeyRelease,
    Limits,
    Output,
    OutputKind,
    Price,
    TcbStatus,
)
from oracle.agreement.document import AgreementDocument
from oracle.agreement.draft_file import (
    HINTS,
    AccessPart,
    AuditorsPart,
    BrokerPart,
    BrokersPart,
    ChainPart,
    DataPart,
    DraftFile,
    EnclavesPart,
    FunctionPart,
    LatestPart,
    OutputPart,
    PricePart,
    TokenPart,
    ValidityPart,
)
from oracle.agreement.fit import check_columns, check_function, check_shares
from oracle.agreement.references import References
from oracle.agreement.requesters import requesters_root
from oracle.agreement.sign import check_signable
from oracle.agreement.units import token_units, wei
from oracle.yamlfile import read_yaml, validate_yaml, yaml_path

CLOCK_SLACK: Final = 300
"""Seconds that a chain's clock may be behind that of whoever drafts, where an agreement is to be valid from now on."""

SIZE_CLASS: Final = 64 << 10
"""Bytes to a multiple of which an output is padded where the draft does not say (R18)."""


@dataclass(frozen=True)
class Deployment:
    """Where the contracts are, for a draft that does not say so itself."""

    chain: Chain
    oracle: str
    enclave_registry: str


@dataclass(frozen=True)
class Draft:
    """The unsigned document, and what was read on the way: the function, manifests and share lists by dataset name."""

    document: AgreementDocument
    bundle: Bundle
    manifests: dict[str, Manifest]
    shares: dict[str, ShareList]


def draft_agreement(path: Path, *, now: int, deployment: Deployment | None = None) -> Draft:
    """The draft in a YAML file; paths in it count from its directory. `now` in unix seconds.

    Raises Refused `yaml.*` and `draft.*`, whose messages begin with the place in the file, and `agreement.*` for what
    the rules do not take. Nothing is signed.
    """
    return build_draft(read_yaml(path), base=path.parent, now=now, deployment=deployment)


def build_draft(value: Any, *, base: Path, now: int, deployment: Deployment | None = None) -> Draft:
    """The same from a YAML value; see `draft_agreement`."""
    file = validate_yaml(DraftFile, value, HINTS)
    where = _deployment(file.chain, deployment)
    refer = References(base, file.parties)
    brokers = tuple(_broker(part, refer, f"brokers.list[{i}]") for i, part in enumerate(file.brokers.list))
    bundle = refer.bundle(file.function.bundle, "function.bundle")
    manifests, shares, data = {}, {}, []
    for index, part in enumerate(file.data):
        term, manifest, listed = _dataset(part, refer, ("data", index))
        data.append(term)
        if manifest is not None:
            manifests[part.name] = manifest
        if listed is not None:
            shares[part.name] = listed
    fn = _function(file.function, bundle, refer)
    requesters, auditors = _requesters(file.access, refer), _auditors(file.auditors, refer)
    not_before, not_after, activate_before = _validity(file.validity, now)
    try:
        agreement = Agreement(
            oracle=where.oracle,
            enclave_registry=where.enclave_registry,
            fn=fn,
            data=tuple(data),
            tee=_enclaves(file.enclaves, refer),
            keys=_keys(file.brokers, tuple(broker for broker, _ in brokers)),
            param_domain=bundle.header.params.id,
            outputs=tuple(_output(part, refer, ("outputs", i)) for i, part in enumerate(file.outputs)),
            access=_access(file.access, requesters),
            price=_price(file.price, refer),
            not_before=not_before,
            not_after=not_after,
            activate_before=activate_before,
            supersedes=ZERO32 if file.supersedes is None else refer.agreement(file.supersedes, "supersedes"),
            auditors=ZERO32 if auditors is None else auditors.digest,
            salt=secrets.token_bytes(32),
        )
    except ValidationError as error:
        # Only a number that is too large for its Solidity type comes here; everything else was read by its own rule.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Refused("draft.range", f"{yaml_path(first['loc'])}: {first['msg']}") from None
    for name, listed in shares.items():
        check_shares(agreement, name, listed)
    check_function(bundle, agreement, manifests)
    document = AgreementDocument(
        chain=where.chain,
        agreement=agreement,
        requesters=requesters,
        auditors=auditors,
        paths=refer.paths,
        endpoints={"0x" + broker.hpke_key.hex(): url for broker, url in brokers if url is not None},
        storage=file.storage,
        notes=file.notes,
    )
    check_signable(document)
    return Draft(document, bundle, manifests, shares)


def _deployment(part: ChainPart | None, given: Deployment | None) -> Deployment:
    if part is None:
        if given is None:
            raise Refused(
                "draft.chain", "chain: is not set; write chain: {id, agreementRegistry, oracle, enclaveRegistry}"
            )
        return given
    written = Deployment(
        Chain(chain_id=part.id, agreement_registry=part.agreement_registry), part.oracle, part.enclave_registry
    )
    if given is not None and given != written:
        raise Refused("draft.chain", "chain: is another deployment than the one that is configured")
    return written


def _function(part: FunctionPart, bundle: Bundle, refer: References) -> Function:
    limits = part.limits
    if limits.memory % (1 << 20):
        raise Refused("draft.limits", "function.limits.memory: must be whole MiB", found=f"{limits.memory} bytes")
    try:
        sized = Limits(
            memory_mib=limits.memory >> 20,
            time_seconds=limits.time,
            output_bytes=limits.output_bytes,
            output_rows=limits.output_rows,
        )
    except ValidationError:
        raise Refused("draft.limits", "function.limits: a limit is too large") from None
    return Function(
        id=bundle.id,
        sealed_id=ZERO32,
        shares_digest=ZERO32,
        owner=refer.party(part.owner, "function.owner"),
        kind=FunctionKind[bundle.header.kind.upper()],
        deterministic=bundle.header.deterministic,
        limits=sized,
    )


def _dataset(
    part: DataPart, refer: References, at: tuple[str | int, ...]
) -> tuple[Dataset, Manifest | None, ShareList | None]:
    manifest = None if part.manifest is None else refer.manifest(part.manifest, yaml_path((*at, "manifest")))
    if manifest is not None:
        dataset, lineage = manifest.id, manifest.lineage
        columns = tuple(c.name for c in manifest.columns) if part.columns == "all" else part.columns
        check_columns(manifest, columns, yaml_path((*at, "columns")))
    else:
        dataset = refer.digest(part.id or "", yaml_path((*at, "id")))
        lineage = refer.digest(part.lineage or "", yaml_path((*at, "lineage")))
        columns = tuple(part.columns)
    shares_digest, shares = refer.shares(part.shares, dataset, yaml_path((*at, "shares")))
    term = Dataset(
        name=part.name,
        owner=refer.party(part.owner, yaml_path((*at, "owner"))),
        id_or_stream=dataset,
        lineage=lineage,
        shares_digest=shares_digest,
        policy=DatasetPolicy.FIXED,
        min_version=0,
        columns=columns,
        budget=0,
    )
    return term, manifest, shares


def _enclaves(part: EnclavesPart, refer: References) -> Enclaves:
    mask = 0
    # Intel writes UpToDate where the protocol writes UP_TO_DATE: both are read.
    known = {status.name.replace("_", "").lower(): status for status in TcbStatus if status is not TcbStatus.REVOKED}
    for index, name in enumerate(part.statuses):
        status = known.get(name.replace("_", "").lower())
        if status is None:
            raise Refused(
                "draft.status",
                f"enclaves.statuses[{index}]: no TCB status that can be taken",
                found=repr(name[:80]),
                expected=", ".join(found.name for found in known.values()),
            )
        mask |= 1 << status
    anchors = [
        anchor for i, name in enumerate(part.anchors) for anchor in refer.anchors(name, f"enclaves.anchors[{i}]")
    ]
    return Enclaves(
        measurements=tuple(
            refer.measurement(m, f"enclaves.measurements[{i}]") for i, m in enumerate(part.measurements)
        ),
        anchors=tuple(dict.fromkeys(anchors)),
        status_mask=mask,
        eval_floor=part.evaluation_floor,
        grace_days=part.grace_days,
        max_evidence_age=part.max_evidence_age,
        any_host=part.any_host,
        operators=tuple(refer.party(h, f"enclaves.hosts[{i}]") for i, h in enumerate(part.hosts)),
        platforms=tuple(refer.digest(p, f"enclaves.platforms[{i}]") for i, p in enumerate(part.platforms)),
    )


def _keys(part: BrokersPart, brokers: tuple[Broker, ...]) -> KeyRelease:
    latest = part.confirmation if isinstance(part.confirmation, LatestPart) else None
    rule = {"safe": Confirmation.SAFE, "finalized": Confirmation.FINALIZED}
    if part.threshold > len(part.list):
        raise Refused(
            "draft.threshold",
            "brokers.threshold: is above the number of brokers",
            found=part.threshold,
            expected=len(part.list),
        )
    return KeyRelease(
        brokers=brokers,
        threshold=part.threshold,
        max_releases=part.max_releases,
        confirmation=Confirmation.LATEST if latest else rule[str(part.confirmation)],
        confirm_blocks=latest.latest if latest else 0,
        release_delay=part.release_delay,
    )


def _broker(part: BrokerPart, refer: References, at: str) -> tuple[Broker, str | None]:
    """A broker, and where it answers. A card says both keys, so that nobody copies one of them from elsewhere."""
    if part.signer is not None:
        signer = refer.party(part.signer, f"{at}.signer")
        return Broker(hpke_key=refer.hpke_key(part.key, f"{at}.key"), signer=signer), part.url
    card = refer.card(part.key, f"{at}.key")
    return Broker(hpke_key=card.digest, signer=card.signer), part.url or card.url


def _output(part: OutputPart, refer: References, at: tuple[str | int, ...]) -> Output:
    owners = tuple(refer.party(owner, yaml_path((*at, "owners", i))) for i, owner in enumerate(part.owners))
    if part.recipients == "public":
        return Output(name=part.name, kind=OutputKind.ABI_VALUES, recipients=(), owners=owners, size_class=1)
    return Output(
        name=part.name,
        kind=OutputKind.ARROW_TABLE,
        recipients=tuple(
            ZERO32 if name == "requester" else refer.hpke_key(name, yaml_path((*at, "recipients", i)))
            for i, name in enumerate(part.recipients)
        ),
        owners=owners,
        size_class=SIZE_CLASS if part.size_class is None else part.size_class,
    )


def _requesters(part: AccessPart, refer: References) -> dict[str, int]:
    """How often each may ask: a list gives each what the agreement gives any requester."""
    if part.requesters == "anyone":
        return {}
    quotas = part.requesters if isinstance(part.requesters, dict) else None
    listed = [refer.party(name, f"access.requesters[{i}]") for i, name in enumerate(part.requesters)]
    if len(set(listed)) != len(listed):
        raise Refused("access.requesters", "access.requesters: name each requester once")
    return dict(zip(listed, quotas.values() if quotas else [_most(part)] * len(listed), strict=True))


def _most(part: AccessPart) -> int:
    return part.quota if part.quota_per_requester is None else part.quota_per_requester


def _access(part: AccessPart, requesters: dict[str, int]) -> Access:
    return Access(
        requesters=requesters_root(requesters) if requesters else ANYONE,
        quota=part.quota,
        quota_per_requester=_most(part),
    )


def _auditors(part: AuditorsPart | None, refer: References) -> Auditors | None:
    if part is None:
        return None
    accounts = tuple(refer.party(name, f"auditors.accounts[{i}]") for i, name in enumerate(part.accounts))
    # The contract counts each once; whoever is named twice would make a threshold that nobody can see through.
    if len(set(accounts)) != len(accounts) or part.threshold > len(accounts):
        raise Refused(
            "draft.auditors",
            "auditors: name each auditor once, and a threshold that they can reach",
            found=part.threshold,
            expected=f"at most {len(set(accounts))}",
        )
    return Auditors(accounts=accounts, threshold=part.threshold)


def _price(part: PricePart | str, refer: References) -> Price:
    if isinstance(part, str):
        return Price(token=ZERO_ADDRESS, fee=0, min_fee=0, failed_fee=0, to=(), bps=())
    token = part.token.address if isinstance(part.token, TokenPart) else part.token or ZERO_ADDRESS
    return Price(
        token=token,
        fee=_units(part.fee, part, "fee"),
        min_fee=_units(part.min_fee, part, "minFee"),
        failed_fee=_units(part.failed_fee, part, "failedFee"),
        to=tuple(refer.party(name, f"price.shares.{name}") for name in part.shares),
        bps=tuple(part.shares.values()),
    )


def _units(value: int | str, part: PricePart, name: str) -> int:
    try:
        if part.token is None:
            return wei(value)
        named = part.token if isinstance(part.token, TokenPart) else None
        return token_units(value, named.symbol if named else "", named.decimals if named else 0)
    except ValueError as error:
        raise Refused("draft.amount", f"price.{name}: {error}", found=repr(value)[:80]) from None


def _validity(part: ValidityPart, now: int) -> tuple[int, int, int]:
    start = part.from_.resolve(now)
    not_after = part.until.resolve(start)
    # What is valid from now on must be so on a chain whose clock is behind this one's, or whose newest block is old.
    not_before = start - CLOCK_SLACK if start == now else start
    activate_before = not_after if part.activate_before is None else part.activate_before.resolve(now)
    if not_after <= now or activate_before <= now:
        raise Refused("draft.validity", "validity: ends, or must be activated, before now")
    return not_before, not_after, activate_before
