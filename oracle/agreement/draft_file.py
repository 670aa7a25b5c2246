"""The draft's YAML, as its models. Whatever is a policy has no default: unset refuses, and says what to write (R21)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StrictBool, StringConstraints, model_validator

from enclave_app.protocol.fields import Address
from oracle.agreement.document import Uri
from oracle.agreement.units import Amount, BasisPoints, Duration, Size, When
from oracle.yamlfile import YamlModel

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
"""A name, an address, a digest or a path; which one is found out where it is used."""
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Quotas = Annotated[dict[Text, Annotated[int, Field(ge=1, lt=1 << 64)]], Field(min_length=1)]

HINTS: Final = {
    "parties": "parties: {name: address or file, …} for everyone who is named below",
    "function.limits": "limits: {memory: 512 MiB, time: 30 s, outputBytes: 1 MiB, outputRows: 1000}",
    "data.columns": "the columns that may be read, or `columns: all`",
    "enclaves": "which may run: measurements, anchors, statuses, evaluationFloor, maxEvidenceAge, and the hosts",
    "enclaves.measurements": "the digests of the enclave programs that you have checked",
    "enclaves.anchors": "anchors: [intel], a digest, the file of a root certificate, or `amd via MEASUREMENT under intel`",
    "enclaves.statuses": "statuses: [UP_TO_DATE], and any other TCB status that you accept",
    "enclaves.evaluationFloor": "the lowest TCB evaluation data number that you accept, such as 17",
    "enclaves.maxEvidenceAge": "how old evidence may be, such as 24 h",
    "brokers": "the key brokers: threshold, confirmation, and list: [{key: a broker's card}, …]",
    "brokers.threshold": "how many brokers are needed to open a key, such as 2",
    "brokers.confirmation": "confirmation: finalized, or safe, or {latest: 5} for that many blocks",
    "outputs.recipients": "recipients: [requester], the digests or files of HPKE keys, or `recipients: public`",
    "outputs.owners": "the parties who must agree when this output becomes an input elsewhere",
    "access": "access: {requesters: [address, …], quota: 100}, or `requesters: anyone`",
    "access.requesters": "the addresses that may request, {address: how often, …}, or `requesters: anyone`",
    "access.quota": "how many requests there may be in all",
    "price": "price: free, or {fee: 0.01 ether}",
    "validity": "validity: {until: 2026-12-31}, or a duration such as 90 days",
    "validity.until": "until: 2026-12-31, or a duration such as 90 days",
}


class ChainPart(YamlModel):
    id: int = Field(ge=1, lt=1 << 64)
    agreement_registry: Address
    oracle: Address
    enclave_registry: Address


class LimitsPart(YamlModel):
    """What one task may use; time is wall clock, output sizes are over all outputs together."""

    memory: Size
    time: Duration
    output_bytes: Size
    output_rows: int = Field(ge=1)


class FunctionPart(YamlModel):
    """`bundle`: the file that `oracle function pack` wrote."""

    bundle: Text
    owner: Text
    limits: LimitsPart


class DataPart(YamlModel):
    """`manifest`: a manifest's file or directory; or `id` and `lineage` for a dataset that is not at hand.
    `shares`: the share list's file or digest."""

    name: Text
    owner: Text
    manifest: Text | None = None
    id: Text | None = None
    lineage: Text | None = None
    shares: Text
    columns: Literal["all"] | Texts

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_id = self.id is not None and self.lineage is not None
        if by_id == (self.manifest is not None) or (self.manifest is not None and (self.id or self.lineage)):
            raise ValueError("name the dataset by its manifest, or by id and lineage")
        if by_id and self.columns == "all":
            raise ValueError("`columns: all` needs the manifest; list the columns otherwise")
        return self


class EnclavesPart(YamlModel):
    """`graceDays`: how long a platform stays welcome whose status was one of `statuses` before Intel published newer findings."""

    measurements: Texts
    anchors: Texts
    statuses: Texts
    evaluation_floor: int = Field(ge=1)
    max_evidence_age: Duration
    grace_days: int = Field(default=0, ge=0, lt=1 << 32)
    hosts: tuple[Text, ...] = ()
    platforms: tuple[Text, ...] = ()
    any_host: StrictBool = False

    @model_validator(mode="after")
    def _hosts(self) -> Self:
        if self.any_host == bool(self.hosts or self.platforms):
            raise ValueError(
                "name who may host, `hosts: [operator, …]` or `platforms: [digest, …]`; or write `anyHost: true`, and "
                "then whoever owns such a machine may run it, with the hardware in hand (R5)"
            )
        return self


class BrokerPart(YamlModel):
    """`key`: the broker's card, which says the rest too; or its HPKE public key's file or digest. `url` is a hint for others,
    never trusted."""

    key: Text
    signer: Text | None = None
    url: Uri | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.signer is None and self.key.startswith("0x"):
            raise ValueError("a digest does not say who signs: write `signer: 0x…`, or give the broker's card as key")
        return self


class LatestPart(YamlModel):
    latest: int = Field(ge=0)


class BrokersPart(YamlModel):
    """`maxReleases` per task and platform: 3 lets a crashed enclave start over twice. `releaseDelay` in blocks: with 0
    a request cannot be cancelled."""

    threshold: int = Field(ge=1)
    confirmation: Literal["finalized", "safe"] | LatestPart
    max_releases: int = Field(default=3, ge=1, le=255)
    release_delay: int = Field(default=0, ge=0)
    list: Annotated[tuple[BrokerPart, ...], Field(min_length=1, max_length=16)]


class OutputPart(YamlModel):
    """`sizeClass`: lengths are padded to a multiple of it; 64 KiB where it is not set. A public output is not padded."""

    name: Text
    recipients: Literal["public"] | Texts
    owners: Texts
    size_class: Size | None = None

    @model_validator(mode="after")
    def _padded_or_public(self) -> Self:
        if self.recipients == "public" and self.size_class is not None:
            raise ValueError("a public output is not padded: leave `sizeClass` out, or name its recipients")
        return self


class AccessPart(YamlModel):
    """`quotaPerRequester` is the whole quota where it is not set. `requesters` is a list, or a mapping that says how often each
    one may ask."""

    requesters: Literal["anyone"] | Texts | Quotas
    quota: int = Field(ge=1)
    quota_per_requester: int | None = Field(default=None, ge=1)


class TokenPart(YamlModel):
    """An ERC-20 token. With `symbol` and `decimals` amounts can be written `10 USDC`; they are the draft's own words, so whoever
    signs looks at the token's smallest units, which the agreement holds."""

    address: Address
    symbol: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9.]{0,15}$")]
    decimals: int = Field(ge=0, le=36)


class PricePart(YamlModel):
    """A fee for a result, another for a signed failure; `shares` of it go to parties, the rest to whoever ran it. `minFee` of it
    goes to those shares where a task expires unanswered. Amounts of a `token` are integers in its smallest unit, or `10 USDC`.
    """

    token: Address | TokenPart | None = None
    fee: Amount
    failed_fee: Amount = 0
    min_fee: Amount = 0
    shares: dict[Text, BasisPoints] = Field(default_factory=dict)


class AuditorsPart(YamlModel):
    """Who has to have approved the function before the agreement can become active: `threshold` of these."""

    accounts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)]
    threshold: int = Field(ge=1, le=16)


class ValidityPart(YamlModel):
    """`from` is now and `activateBefore` is `until` where they are not set. A duration counts from `from`.

    Now is five minutes ago in the agreement, since a chain's clock may be behind.
    """

    from_: When = Field(default="now", alias="from", validate_default=True)
    until: When
    activate_before: When | None = None


class DraftFile(YamlModel):
    """`supersedes`: the file or id of an agreement that ends when this one becomes active."""

    chain: ChainPart | None = None
    parties: dict[Text, Text] = Field(min_length=1)
    function: FunctionPart
    data: Annotated[tuple[DataPart, ...], Field(min_length=1, max_length=16)]
    enclaves: EnclavesPart
    brokers: BrokersPart
    outputs: Annotated[tuple[OutputPart, ...], Field(min_length=1, max_length=16)]
    access: AccessPart
    price: Literal["free"] | PricePart
    validity: ValidityPart
    supersedes: Text | None = None
    auditors: AuditorsPart | None = None
    storage: tuple[Uri, ...] = Field(default=(), max_length=16)
    notes: str = Field(default="", max_length=4000)
