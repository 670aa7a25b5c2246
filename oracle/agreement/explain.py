"""An agreement in plain words, for whoever is about to sign it: what may happen, who sees what, who is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from enclave_app.protocol.bundle import Bundle
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.params import BooleanParam, ChoiceParam, Param
from enclave_app.protocol.structs import (
    ANYONE,
    Agreement,
    Confirmation,
    Dataset,
    Enclaves,
    FunctionKind,
    Output,
    TcbStatus,
)
from oracle.agreement.anchors import LABELS, development_anchors, maker_of
from oracle.agreement.document import AgreementDocument
from oracle.agreement.draft import Deployment
from oracle.agreement.fit import unneeded_columns
from oracle.agreement.units import show_amount, show_duration, show_moment, show_size
from oracle.attestation.anchors import PUBLIC_CHAINS

LONG_GRACE = 90
"""Days after which a machine without a fix is no longer only waiting for its next maintenance."""


class Severity(StrEnum):
    """INFO: a plain term. NOTICE: look twice. WARNING: gives something away. DANGER: gives protection away."""

    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    DANGER = "danger"


@dataclass(frozen=True)
class Line:
    severity: Severity
    topic: str
    text: str


def explain(
    document: AgreementDocument,
    *,
    bundle: Bundle | None = None,
    manifests: Mapping[str, Manifest] | None = None,
    names: Mapping[str, str] | None = None,
    deployment: Deployment | None = None,
) -> tuple[Line, ...]:
    """What a signature under this document consents to, line by line.

    `bundle` adds the function's own text, `manifests` (by dataset name) rows and types, `names` (address to name) what
    to call the parties, `deployment` the contracts that the reader knows. Texts of other parties are shown without control
    characters. Refused
    `explain.bundle` or `explain.manifest` for ones that the agreement does not name.
    """
    return _Explanation(document, bundle, manifests or {}, names or {}, deployment).lines()


class _Explanation:
    def __init__(
        self,
        document: AgreementDocument,
        bundle: Bundle | None,
        manifests: Mapping[str, Manifest],
        names: Mapping[str, str],
        deployment: Deployment | None,
    ) -> None:
        self._document, self._agreement = document, document.agreement
        self._bundle, self._manifests, self._names = bundle, manifests, names
        self._deployment = deployment
        self._lines: list[Line] = []
        if bundle is not None and bundle.id != self._agreement.fn.id:
            raise Refused("explain.bundle", "this is not the function that the agreement names", found=bundle.id.hex())
        if stray := set(self._manifests) - {term.name for term in self._agreement.data}:
            named = ", ".join(term.name for term in self._agreement.data)
            raise Refused(
                "explain.manifest", "the agreement names no such dataset", found=sorted(stray)[0], expected=named
            )

    def lines(self) -> tuple[Line, ...]:
        agreement = self._agreement
        self._function(agreement)
        self._auditors(agreement)
        for term in agreement.data:
            self._dataset(term)
        self._unneeded()
        self._access(agreement)
        for output in agreement.outputs:
            self._output(output)
        self._price(agreement)
        self._validity(agreement)
        self._predecessor(agreement)
        self._enclaves(agreement)
        self._brokers(agreement)
        self._contracts(agreement)
        self._signatures()
        return tuple(self._lines)

    def _say(self, topic: str, text: str, severity: Severity = Severity.INFO) -> None:
        # Names and texts are other parties': nothing in them may move the cursor or turn the writing direction.
        shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        self._lines.append(Line(severity, topic, shown))

    def _who(self, address: str) -> str:
        return f"{self._names[address]} ({address})" if address in self._names else address

    def _function(self, agreement: Agreement) -> None:
        fn, limits = agreement.fn, agreement.fn.limits
        kind = FunctionKind(fn.kind).name if fn.kind in set(FunctionKind) else f"unknown ({fn.kind})"
        self._say(
            "function", f"One fixed {kind} function may run, and nothing else. It belongs to {self._who(fn.owner)}."
        )
        if self._bundle is None:
            self._say(
                "function",
                f"Its text was not given here. Get the bundle 0x{fn.id.hex()} and read it before you sign.",
                Severity.WARNING,
            )
        else:
            header = self._bundle.header
            self._say("function", f"It is “{header.name}”: {header.description or 'no description'}")
            self._say("function", f"Its text: {self._bundle.entry_text().strip()}")
            given = "; ".join(_domain(param) for param in header.params.params) or "none"
            self._say("function", f"Values that a requester chooses, visible to everyone: {given}.")
        if not fn.deterministic:
            self._say(
                "function",
                "IT IS NOT DETERMINISTIC: the same request may give another answer each time.",
                Severity.WARNING,
            )
        self._say(
            "function",
            f"Each run may use {limits.memory_mib} MiB of memory and {show_duration(limits.time_seconds)}, and may "
            f"give out at most {limits.output_rows} rows or {show_size(limits.output_bytes)}.",
        )

    def _dataset(self, term: Dataset) -> None:
        self._say(
            "data",
            f"It reads “{term.name}” of {self._who(term.owner)}: {len(term.columns)} column(s): "
            f"{', '.join(term.columns)}.",
        )
        manifest = self._manifests.get(term.name)
        if manifest is None:
            return
        if manifest.id != term.id_or_stream:
            raise Refused(
                "explain.manifest", f"the manifest of {term.name} is not the dataset that the agreement names"
            )
        closed = [c.name for c in manifest.columns if c.name not in term.columns]
        rest = f" It cannot read: {', '.join(closed)}." if closed else " That is every column there is."
        self._say("data", f"“{term.name}” has {sum(file.rows for file in manifest.files)} rows.{rest}")

    def _unneeded(self) -> None:
        if self._bundle is None:
            return
        for name, columns in unneeded_columns(self._bundle, self._agreement).items():
            self._say(
                "data",
                f"“{name}” releases columns that the function does not read: {', '.join(columns)}.",
                Severity.WARNING,
            )

    def _access(self, agreement: Agreement) -> None:
        access = agreement.access
        if access.requesters == ANYONE:
            self._say("access", "ANYONE may request it: any address, without asking.", Severity.WARNING)
        elif self._document.requesters:
            quotas = list(self._document.requesters.items())[:20]
            own = access.quota_per_requester
            listed = ", ".join(f"{self._who(a)}{f' ({n} time(s))' if n < own else ''}" for a, n in quotas)
            more = len(self._document.requesters) - 20
            self._say("access", f"Only these may request it: {listed}{f' and {more} more' if more > 0 else ''}.")
        else:
            self._say(
                "access",
                "Only a fixed list of addresses may request it, and THE LIST IS NOT HERE (root "
                f"0x{access.requesters.hex()}).",
                Severity.WARNING,
            )
        self._say(
            "access",
            f"It may be requested {access.quota} time(s) in all, {access.quota_per_requester} by any one requester. "
            "Each request is spent when it is made, whatever comes of it (R9).",
        )
        self._say(
            "access",
            "Repeated answers add up: with every request a requester can learn more about the rows behind them.",
            Severity.NOTICE,
        )

    def _output(self, output: Output) -> None:
        owners = ", ".join(self._who(owner) for owner in output.owners)
        if not output.recipients:
            self._say(
                "output",
                f"“{output.name}” IS PUBLIC: ITS CONTENT IS WRITTEN ON THE CHAIN, FOR EVERYONE AND FOR EVER. Whoever hosts the "
                "enclave knows it before that, and may act on it, or keep it back until the request expires.",
                Severity.DANGER,
            )
            self._say("output", f"“{output.name}” is one row, for contracts to read. Nothing hides how long it is.")
            return
        seen = ["whoever requests" if not any(r) else f"the holder of key 0x{r.hex()}" for r in output.recipients]
        self._say("output", f"“{output.name}” can be read by {', '.join(seen)}, after it is settled on the chain.")
        self._say(
            "output",
            f"Its length is padded to {show_size(output.size_class)}, so that it tells little. To use it as input "
            f"elsewhere needs the consent of {owners}.",
        )

    def _price(self, agreement: Agreement) -> None:
        price = agreement.price
        if not price.fee and not price.failed_fee:
            self._say("price", "It costs a requester nothing, and pays nobody.")
            return
        shares = "".join(
            f", {bps / 100:g}% of it to {self._who(to)}" for to, bps in zip(price.to, price.bps, strict=False)
        )
        show = partial(show_amount, token=price.token)
        self._say(
            "price",
            f"A result costs its requester {show(price.fee)}{shares}, the rest to whoever ran it. A failure of the "
            f"function itself costs {show(price.failed_fee)}.",
        )
        if price.min_fee:
            self._say(
                "price",
                f"Of the fee of a task that nobody answers in time {show(price.min_fee)} is kept, for those who have shares.",
                Severity.NOTICE,
            )
        if price.token != ZERO_ADDRESS:
            self._say(
                "price",
                f"It is paid in the token {price.token}, in its smallest unit. Whoever rules that token may freeze what is "
                "owed in it.",
                Severity.NOTICE,
            )

    def _validity(self, agreement: Agreement) -> None:
        self._say(
            "validity",
            f"It runs from {show_moment(agreement.not_before)} until {show_moment(agreement.not_after)}, if all "
            f"parties have signed and it is activated by {show_moment(agreement.activate_before)}.",
        )
        self._say(
            "validity",
            "Any party alone may suspend or revoke it at any time. That stops new requests and key releases; it does "
            "not take back what was already computed (R8).",
        )

    def _predecessor(self, agreement: Agreement) -> None:
        if agreement.supersedes != ZERO32:
            self._say(
                "validity",
                f"It takes the place of agreement 0x{agreement.supersedes.hex()}, which ends for ever when this one becomes "
                "active.",
                Severity.NOTICE,
            )

    def _auditors(self, agreement: Agreement) -> None:
        auditors = self._document.auditors
        if agreement.auditors == ZERO32:
            return
        if auditors is None:
            self._say(
                "function",
                "Auditors have to approve the function first, and WHO THEY ARE IS NOT HERE (digest "
                f"0x{agreement.auditors.hex()}).",
                Severity.WARNING,
            )
            return
        listed = ", ".join(self._who(account) for account in auditors.accounts)
        self._say(
            "function",
            f"It becomes active only once {auditors.threshold} of these auditors approved the function on chain: {listed}.",
        )

    def _enclaves(self, agreement: Agreement) -> None:
        tee = agreement.tee
        programs = ", ".join("0x" + m.hex() for m in tee.measurements)
        self._say(
            "enclaves",
            f"Data is opened only inside an enclave that runs one of {len(tee.measurements)} exact program(s): "
            f"{programs}. Check these digests against a build of your own, or of someone you trust.",
        )
        makers = dict.fromkeys(LABELS[m] for anchor in tee.anchors if (m := maker_of(anchor)))
        if makers:
            self._say("enclaves", f"Whose word is taken that the enclave is real: {', '.join(makers)}.")
        for path in self._document.paths:
            self._say(
                "enclaves",
                f"{_whose(path.root)} enclaves count as real on chain on the word of the enclave 0x"
                f"{path.voucher.measurement.hex()}, under {_whose(path.voucher.anchor)}. Check that digest, too.",
                Severity.NOTICE if path.is_hardware else Severity.DANGER,
            )
        for anchor in development_anchors(tee.anchors, self._document.paths):
            self._say(
                "enclaves",
                f"DEVELOPMENT OR PRIVATE TRUST ANCHOR 0x{anchor.hex()}: no hardware maker stands behind it. Enclaves "
                "under it may be SIMULATED, and whoever runs a SIMULATED enclave CAN READ ALL DATA. For trials "
                "with test data only.",
                Severity.DANGER,
            )
        self._statuses(tee)
        if tee.any_host:
            self._say(
                "enclaves",
                "ANY HOST (anyHost): anyone who owns such a machine may run it. Whoever holds the hardware can "
                "attack it physically, and such attacks on attestation keys are known (R5). Name operators "
                "unless you accept that.",
                Severity.DANGER,
            )
        else:
            if tee.operators:
                self._say("enclaves", f"Only these may host it: {', '.join(self._who(o) for o in tee.operators)}.")
            if tee.platforms:
                self._say("enclaves", f"Only these machines: {', '.join('0x' + p.hex() for p in tee.platforms)}.")

    def _statuses(self, tee: Enclaves) -> None:
        floor, age = tee.eval_floor, tee.max_evidence_age
        taken = [status for status in TcbStatus if tee.status_mask & 1 << status]
        lax = [status.name for status in taken if status is not TcbStatus.UP_TO_DATE]
        self._say(
            "enclaves",
            f"Its firmware must be {' or '.join(status.name for status in taken)} by the maker's data number {floor} "
            f"or later, and its evidence at most {show_duration(age)} old.",
        )
        if lax:
            self._say(
                "enclaves",
                f"Also taken is firmware or settings with known weaknesses: {', '.join(lax)}.",
                Severity.WARNING,
            )
        if tee.grace_days:
            self._say(
                "enclaves",
                f"When the maker publishes newer weaknesses, machines that were fine until then go on for {tee.grace_days} "
                "day(s) without the fix.",
                Severity.NOTICE if tee.grace_days <= LONG_GRACE else Severity.WARNING,
            )

    def _brokers(self, agreement: Agreement) -> None:
        keys = agreement.keys
        count, t = len(keys.brokers), keys.threshold
        for index, broker in enumerate(keys.brokers, start=1):
            url = self._document.endpoints.get("0x" + broker.hpke_key.hex(), "address not given")
            self._say("brokers", f"Key broker {index}: {self._who(broker.signer)}, {url}.")
        self._say(
            "brokers",
            f"The keys are split over {count} broker(s), and {t} of them are needed. ANY {t} OF THEM TOGETHER CAN "
            f"OPEN THE DATA WITHOUT ANY ENCLAVE; {count - t} may be down without harm.",
            Severity.DANGER if t == 1 else Severity.NOTICE,
        )
        deep = f" with {keys.confirm_blocks} more on top" if keys.confirm_blocks else ""
        rule = {
            Confirmation.LATEST: f"is in a block{deep}, WHICH COULD STILL BE UNDONE",
            Confirmation.SAFE: "is in a block that the chain calls safe",
            Confirmation.FINALIZED: "is final on the chain",
        }.get(Confirmation(keys.confirmation) if keys.confirmation in set(Confirmation) else Confirmation.LATEST)
        self._say(
            "brokers",
            f"They release keys for one request at a time, once it {rule}, at most {keys.max_releases} time(s) "
            "to one machine.",
            Severity.NOTICE if keys.confirmation == Confirmation.LATEST else Severity.INFO,
        )
        if keys.release_delay:
            blocks = f"{keys.release_delay} block(s)"
            self._say("brokers", f"A request can be cancelled for {blocks}, and then neither costs nor counts.")
        else:
            self._say("brokers", "A request cannot be cancelled.")

    def _contracts(self, agreement: Agreement) -> None:
        """R7: brokers read requests and settlements from the contracts that an agreement names, whoever wrote those."""
        known, severity = self._deployment, Severity.INFO
        if known is None:
            severity = Severity.NOTICE
        self._say(
            "chain",
            f"Requests, quota, fees and results are kept by the contract {agreement.oracle}, and enclaves by "
            f"{agreement.enclave_registry}: brokers believe both"
            + ("; compare them with what you know." if known is None else "."),
            severity,
        )
        named = Deployment(self._document.chain, agreement.oracle, agreement.enclave_registry)
        if known is not None and known != named:
            self._say(
                "chain",
                "THESE ARE NOT THE CONTRACTS of your own configuration. Contracts of somebody else can let everything run, as "
                "often as they like, and hand out results that were never settled.",
                Severity.DANGER,
            )

    def _signatures(self) -> None:
        document = self._document
        chain = document.chain.chain_id
        self._say(
            "chain",
            f"All this lives on {PUBLIC_CHAINS.get(chain, 'a private or development chain')} (chain {chain}), registry "
            f"{document.chain.agreement_registry}. Its terms, requests and digests are public there.",
        )
        for party in document.agreement.parties():
            if party in document.signatures:
                state = "has signed (checked)"
            elif party in document.contract_signatures:
                state = "is a contract wallet; its signature is UNCHECKED until the chain sees it"
            else:
                state = "has not signed"
            severity = Severity.NOTICE if party in document.contract_signatures else Severity.INFO
            self._say("signatures", f"{self._who(party)} {state}.", severity)
        if document.notes:
            self._say("notes", f"Notes of whoever made this file, which bind nobody: {document.notes}")


def _whose(root: bytes) -> str:
    maker = maker_of(root)
    return f"DEVELOPMENT OR PRIVATE 0x{root.hex()}" if maker is None else LABELS[maker]


def _domain(param: Param) -> str:
    match param:
        case ChoiceParam():
            return f"{param.name}, one of {', '.join(param.values[:20])}{' …' if len(param.values) > 20 else ''}"
        case BooleanParam():
            return f"{param.name}, true or false"
        case _:
            return f"{param.name}, {param.type} from {param.min} to {param.max}"
