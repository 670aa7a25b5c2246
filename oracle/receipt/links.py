"""The links of a receipt, one function each, in the order of DESIGN section 3; each says what it found, or raises why not.

Pure: the clock is passed in, and what the chain recorded is passed in by whoever asked it. A link may rely on those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from enclave_app.protocol import signing
from enclave_app.protocol.bundle import Bundle, read_bundle
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.evidence import registered_under, report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.manifest import Manifest, read_manifest
from enclave_app.protocol.params import read_domain
from enclave_app.protocol.rules import AS_OF_WINDOW
from enclave_app.protocol.shares import key_ids_digest
from enclave_app.protocol.streaming import encrypted_length
from enclave_app.protocol.structs import FunctionKind, Outcome, RegisteredIdentity, Tee
from oracle.agreement.anchors import LABELS, check_anchors, maker_of
from oracle.agreement.consent import check_consent, signed_by
from oracle.agreement.enclave import check_host, check_operator, check_policy, identity_of, in_grace
from oracle.agreement.fit import check_function
from oracle.agreement.outputs import check_output, check_public, check_recipients, check_result
from oracle.agreement.terms import Terms, check_request_terms, identify_agreement
from oracle.attestation import (
    INTEL_ROOT_DIGEST,
    AttestationError,
    Collateral,
    DevelopmentRoot,
    NitroDocument,
    ParsedQuote,
    SnpEndorsements,
    SnpReport,
    Verified,
    carried,
    evidence_refusal,
    intel_root,
    parse_evidence,
    verify,
)
from oracle.attestation.collateral import pem_chain
from oracle.attestation.types import intel_name
from oracle.chain.reader import Consent, EnclaveRecord
from oracle.errors import Refused
from oracle.receipt.document import SIMULATED, Assurance, Receipt, SignedStatement, assurance, one_form

CLOCK_SKEW = 3600
"""How far, in seconds, a broker's clock may be from the chain's before its statement is not taken for one of this task."""
FUTURE = 300
"""How far, in seconds, a broker's statement may lie ahead of the verifier's own clock."""


@dataclass(frozen=True)
class Expected:
    """What the verifier knows beforehand: the agreement's id, or exactly who must have signed it; without either, a receipt
    says only that it agrees with itself. `registry` is the agreement registry that the verifier trusts; an agreement's id and
    its parties' signatures name one, too."""

    agreement_id: bytes | None = None
    parties: frozenset[str] | None = None
    registry: str | None = None

    @property
    def known(self) -> bool:
        return self.agreement_id is not None or self.parties is not None


@dataclass
class Case:
    """A receipt under examination. `now` in unix seconds; `recorded` are consents as the chain has them, and `registered` what
    its enclave registry held when the last broker released; `function` is a bundle given beside a receipt that holds none.
    `verified` is filled by the link `evidence`."""

    receipt: Receipt
    expected: Expected
    now: int
    allow_simulated: bool = False
    recorded: Mapping[str, Consent] = field(default_factory=dict)
    function: bytes | None = None
    registered: EnclaveRecord | None = None
    verified: tuple[Verified, ...] = ()

    @property
    def assurance(self) -> Assurance:
        root = INTEL_ROOT_DIGEST if self.receipt.root is None else sha256(self.receipt.root)
        return assurance(root, self.receipt.evidence.voucher)

    @property
    def identity(self) -> RegisteredIdentity | None:
        """What the registry must hold of the enclave, once the link `evidence` held."""
        if not self.verified:
            return None
        return identity_of(self.receipt.evidence, self.receipt.evidence.sealing_key, self.verified[-1])

    @cached_property
    def terms(self) -> Terms:
        receipt = self.receipt
        return check_request_terms(receipt.chain, receipt.agreement, receipt.agreement_id, receipt.request)

    @cached_property
    def bundle(self) -> Bundle:
        """The function, from the receipt or given beside it; Refused `function.missing` or `bundle.*`."""
        data = self.receipt.function if self.receipt.function is not None else self.function
        if data is None:
            raise Refused(
                "function.missing",
                "the receipt does not hold the function, which was too large",
                expected=self.receipt.agreement.fn.id.hex(),
                hint="Give its bundle with --function",
            )
        return read_bundle(data, self.receipt.agreement.fn.id)

    @cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        named = zip(self.receipt.manifests, self.receipt.agreement.data, strict=True)
        return tuple(read_manifest(data, term.id_or_stream) for data, term in named)

    @cached_property
    def signed_statements(self) -> tuple[SignedStatement, ...]:
        """Those that a broker of the agreement signed, whatever they say."""
        signers = {broker.hpke_key: broker.signer for broker in self.receipt.agreement.keys.brokers}
        domain = self.receipt.chain.oracle_domain(self.receipt.agreement)

        def holds(release: SignedStatement) -> bool:
            try:
                signer = signing.recover(release.statement.typed_digest(domain), release.signature)
            except Refused:
                return False
            return signer == signers.get(release.statement.broker)

        return tuple(release for release in self.receipt.releases if holds(release))


def agreement_link(case: Case) -> str:
    """The terms keep the protocol's rules, make the id that the receipt names, and are what the verifier expects (R7)."""
    receipt, expected = case.receipt, case.expected
    found = identify_agreement(receipt.chain, receipt.agreement)
    if found != receipt.agreement_id:
        raise Refused(
            "agreement.id", "the terms make another id", found=found.hex(), expected=receipt.agreement_id.hex()
        )
    if expected.agreement_id is not None and found != expected.agreement_id:
        raise Refused(
            "agreement.unexpected",
            "the receipt is about another agreement",
            found=found.hex(),
            expected=expected.agreement_id.hex(),
        )
    if expected.registry not in (None, receipt.chain.agreement_registry):
        raise Refused(
            "agreement.registry",
            "the agreement is of another registry",
            found=receipt.chain.agreement_registry,
            expected=expected.registry,
        )
    parties = receipt.agreement.parties()
    if expected.parties is not None and frozenset(parties) != expected.parties:
        raise Refused(
            "agreement.parties",
            "the agreement is between others",
            found=", ".join(parties),
            expected=", ".join(sorted(expected.parties)),
        )
    return f"0x{found.hex()}" + (", as expected" if expected.known else "; nobody said which is expected")


def consent_link(case: Case) -> str:
    """Every party signed exactly this agreement (R7), or the chain recorded that it consented in another way."""
    receipt = case.receipt
    parties = receipt.agreement.parties()
    signed = signed_by(receipt.agreement_id, parties, receipt.consents)
    for party, signature in zip(parties, receipt.consents, strict=True):
        if signature and party not in signed:
            raise Refused("consent.signature", "a party's signature does not hold", found=party)
        if not signature and party not in case.recorded:
            raise Refused(
                ON_CHAIN,
                "only the chain knows whether a party consented",
                found=party,
                hint="Give --rpc, to read what the registry recorded",
            )
    check_consent(parties, signed, case.recorded)
    named = case.expected.agreement_id is not None or case.expected.registry is not None
    if case.expected.known and not named and len(signed) < len(parties):
        # Anyone can deploy a registry that says whatever its maker likes about anyone.
        raise Refused(
            "consent.registry",
            "a party's consent is only the word of a registry that you did not name",
            found=receipt.chain.agreement_registry,
            hint="Give --registry, if that is the one you trust, or --agreement",
        )
    rest = len(parties) - len(signed)
    return f"{len(signed)} of {len(parties)} parties signed" + (f", {rest} as the chain recorded" if rest else "")


ON_CHAIN = "consent.on_chain"
"""The code of a consent that the chain has to be asked about."""


def function_link(case: Case) -> str:
    """The function's bytes are the agreed ones (R17b), and it reads and makes what the agreement says."""
    receipt, bundle = case.receipt, case.bundle
    header = bundle.header
    kind, deterministic = receipt.agreement.fn.kind, receipt.agreement.fn.deterministic
    if FunctionKind[header.kind.upper()] != kind or header.deterministic != deterministic:
        raise Refused("function.kind", "the function is of another kind than agreed", found=header.kind)
    _fits(lambda: check_function(bundle, receipt.agreement, {}))
    return f"{header.kind} function {header.name!r}, {len(bundle.raw)} bytes, reads {len(header.tables)} tables"


def datasets_link(case: Case) -> str:
    """Each manifest is the agreed dataset (R7b: a fixed one), of the agreed lineage, with the released columns (R9, R10)."""
    receipt, terms = case.receipt, case.receipt.agreement.data
    if len(receipt.manifests) != len(terms):
        raise Refused("datasets.count", "not one manifest a dataset", found=len(receipt.manifests), expected=len(terms))
    for term, manifest in zip(terms, case.manifests, strict=True):
        if manifest.lineage != term.lineage:
            raise Refused("manifest.lineage", "a dataset is of another lineage than its term (R9)", found=term.name)
        manifest.key_indexes(term.columns)
    named = {term.name: manifest for term, manifest in zip(terms, case.manifests, strict=True)}
    _fits(lambda: check_function(case.bundle, receipt.agreement, named))
    columns = sum(len(term.columns) for term in terms)
    return f"{', '.join(term.name for term in terms)}: {columns} columns released"


def request_link(case: Case) -> str:
    """The request is one under this agreement, makes the task's id, and its parameters are agreed ones."""
    receipt, terms = case.receipt, case.terms
    if terms.task_id != receipt.task_id:
        raise Refused(
            "request.task", "the request makes another task", found=terms.task_id.hex(), expected=receipt.task_id.hex()
        )
    read_domain(receipt.param_domain, receipt.agreement.param_domain).read(receipt.request.params)
    return f"task 0x{receipt.task_id.hex()} by {receipt.request.requester}"


def evidence_link(case: Case) -> str:
    """The quote is genuine, under a pinned root or, simulated, under an agreed development root, whenever a broker released.

    Not today's clock: a receipt outlives the collateral.
    """
    receipt = case.receipt
    times = [release.statement.time for release in case.signed_statements] or [receipt.request.as_of]
    try:
        parsed = parse_evidence(receipt.evidence.tee, receipt.evidence.quote)
        if parsed.trailing:
            raise Refused("evidence.form", "there are bytes behind the evidence's end")
        beside: Collateral | SnpEndorsements | None
        if isinstance(parsed, ParsedQuote):
            root = intel_root() if receipt.root is None else _development_root(receipt.root, receipt.chain.chain_id)
            _check_listed(receipt, root)
            beside = _collateral(receipt, parsed, root)
        else:
            root, beside = _brought_along(receipt, parsed)
            _check_listed(receipt, root)
        case.verified = tuple(verify(parsed, beside, root, time) for time in sorted({min(times), max(times)}))
    except AttestationError as error:
        raise evidence_refusal(error) from None
    maker = maker_of(sha256(root))
    under = "a development root" if maker is None else f"{LABELS[maker].split()[0]}'s root"
    span = " to ".join(dict.fromkeys((_when(min(times)), _when(max(times)))))
    what = "quote" if isinstance(parsed, ParsedQuote) else "evidence"
    return f"{Tee(receipt.evidence.tee).name} {what} under {under}, genuine at {span}"


def _check_listed(receipt: Receipt, root: bytes) -> None:
    if sha256(root) not in receipt.agreement.tee.anchors:
        raise Refused(
            "evidence.anchor_not_listed", "the agreement does not take this root (R4)", found=sha256(root).hex()
        )


def _collateral(receipt: Receipt, parsed: ParsedQuote, root: bytes) -> Collateral:
    """Each chain in it and in the quote in its one form, up to the root."""
    if receipt.evidence.endorsements:
        raise Refused("evidence.form", "there are certificates beside a quote that holds its own")
    if receipt.collateral is None:
        raise Refused("evidence.form", "there is no collateral beside a quote")
    quoted = parsed.section.certification.decode("latin-1").removesuffix("\0")
    _check_chains(root, (quoted, *receipt.collateral.chains()))
    return receipt.collateral.collateral()


def _brought_along(receipt: Receipt, parsed: SnpReport | NitroDocument) -> tuple[bytes, SnpEndorsements | None]:
    """AMD's and AWS's evidence comes with its own root: a pinned one, or the receipt's development root."""
    root, endorsements = carried(parsed, receipt.evidence.endorsements)
    if receipt.collateral is not None:
        raise Refused("evidence.form", "there is Intel's collateral beside evidence of another maker's")
    # Its TCB is the verifier's to judge: without one, nobody did.
    if receipt.evidence.voucher is None:
        raise Refused("evidence.voucher", "nobody vouches for evidence that no contract can check (R4)")
    if receipt.root is not None and _development_root(receipt.root, receipt.chain.chain_id) != root:
        raise Refused("evidence.form", "the receipt's root is not the evidence's own")
    if receipt.root is None and maker_of(sha256(root)) is None:
        raise Refused("evidence.root_mismatch", "the evidence is under no maker's root", found=sha256(root).hex())
    return root, endorsements


def binding_link(case: Case) -> str:
    """R2: the quote binds this chain, this registry, the enclave's two keys, and a block."""
    receipt, evidence = case.receipt, case.receipt.evidence
    expected = report_data(
        receipt.chain.chain_id,
        receipt.agreement.enclave_registry,
        evidence.signer,
        evidence.sealing_key,
        evidence.block_hash,
    )
    found = case.verified[0].report_data
    if found != expected:
        raise Refused(
            "evidence.report_data_mismatch",
            "the quote binds something else (R2)",
            found=found.hex(),
            expected=expected.hex(),
        )
    return f"chain {receipt.chain.chain_id}, enclave key {evidence.signer}, block 0x{evidence.block_hash.hex()[:16]}…"


def measurement_link(case: Case) -> str:
    """R3: the enclave runs agreed code, on a platform whose TCB the agreement takes."""
    receipt = case.receipt
    tee, graced = receipt.agreement.tee, False
    for verified in case.verified:
        wanting = verified.tcb_status is not None and not tee.status_mask >> verified.tcb_status & 1
        graced = graced or (wanting and tee.grace_days > 0)
        check_policy(verified, tee, verified.report_data, graced=wanting and tee.grace_days > 0)
    last = case.verified[-1]
    if graced:
        _check_grace(case, last)
    status = "no status" if last.tcb_status is None else intel_name(last.tcb_status)
    shown = f"0x{last.measurement.hex()}, {status}, evaluation {last.evaluation}"
    return shown + (", in the agreement's grace" if graced else "")


GRACE_ON_CHAIN = "measurement.on_chain"
"""The code of a TCB status that the agreement takes in its grace only, so that the chain has to be asked about it."""


def _check_grace(case: Case, verified: Verified) -> None:
    """R4: what the platform was before is on chain, as the registration showed it to the contract."""
    identity = identity_of(case.receipt.evidence, case.receipt.evidence.sealing_key, verified)
    if case.registered is None or case.registered.digest != identity.digest:
        raise Refused(
            GRACE_ON_CHAIN,
            "only the chain knows whether the platform was in the agreement's grace",
            hint="Give --rpc, to read what was registered then",
        )
    latest = max((release.statement.time for release in case.signed_statements), default=case.receipt.request.as_of)
    if not in_grace(case.receipt.agreement.tee, case.registered.standing, latest):
        raise Refused(
            "evidence.status_not_allowed", "the platform was not in the agreement's grace when it got its keys"
        )


def host_link(case: Case) -> str:
    """R5: an agreed host; and whoever is named as its operator signed for this enclave."""
    terms, evidence, tee = case.terms, case.receipt.evidence, case.receipt.agreement.tee
    check_host(terms, evidence, case.verified[-1])
    if evidence.operator != ZERO_ADDRESS:
        check_operator(terms, evidence)
    elif evidence.operator_signature:
        raise Refused("host.signature", "there is an operator's signature, and no operator (R5)")
    if tee.any_host:
        return "any host is agreed" + ("" if evidence.operator == ZERO_ADDRESS else f"; it is {evidence.operator}")
    return f"operator {evidence.operator}" if evidence.operator in tee.operators else "an agreed platform"


def releases_link(case: Case) -> str:
    """R12, R13: at least t agreed brokers signed that they released exactly the agreed keys to this enclave for this task."""
    receipt, keys = case.receipt, case.receipt.agreement.keys
    order = [broker.hpke_key for broker in keys.brokers]
    for release in receipt.releases:
        if release not in case.signed_statements:
            raise Refused(
                "release.signature",
                "a statement is not signed by an agreed broker",
                found=release.statement.broker.hex(),
            )
    places = [order.index(release.statement.broker) for release in receipt.releases]
    if any(left >= right for left, right in pairwise(places)):
        raise Refused("release.order", "the brokers are not in the agreement's order, each once")
    if len(places) < keys.threshold:
        raise Refused(
            "release.too_few", "too few brokers released", found=len(places), expected=f"at least {keys.threshold}"
        )
    released = [
        (position, key)
        for position, (term, manifest) in enumerate(zip(receipt.agreement.data, case.manifests, strict=True))
        for key in manifest.key_indexes(term.columns)
    ]
    said = {
        "agreement_id": receipt.agreement_id,
        "task_id": receipt.task_id,
        "signer": receipt.evidence.signer,
        "nonce": receipt.releases[0].statement.nonce,
        "keys": key_ids_digest(released),
    }
    for release in receipt.releases:
        for name, expected in said.items():
            if getattr(release.statement, name) != expected:
                raise Refused("release.statement", f"a broker's statement has another {name}")
        _check_time(case, release.statement.time)
    return f"{len(places)} brokers, {keys.threshold} needed; {len(released)} keys"


def result_link(case: Case) -> str:
    """The enclave signed this result for this task, under an anchor that the agreement takes (R4, R20)."""
    receipt, result, terms = case.receipt, case.receipt.result, case.terms
    digest = result.typed_digest(terms.chain.oracle_domain(terms.agreement))
    signing.check(digest, receipt.signature, receipt.evidence.signer, "the result")
    check_result(terms, result)
    if result.anchor not in terms.agreement.tee.anchors:
        raise Refused("result.anchor", "the agreement does not take this anchor (R4)", found=result.anchor.hex())
    root, voucher = case.verified[-1].root, receipt.evidence.voucher
    if result.anchor != registered_under(root, voucher):
        raise Refused(
            "result.path",
            "the evidence does not lead to the result's anchor (R4)",
            found=result.anchor.hex(),
            expected=registered_under(root, voucher).hex(),
        )
    check_anchors((root,) if voucher is None else (root, voucher.anchor), receipt.chain.chain_id)
    if result.payee == ZERO_ADDRESS:
        raise Refused("result.payee", "the result names no payee (R20)")
    if result.outcome not in set(Outcome):
        raise Refused("result.outcome", "the result has an unknown outcome", found=result.outcome)
    return f"{Outcome(result.outcome).name.lower()}, payee {result.payee}, digest 0x{digest.hex()}"


def outputs_link(case: Case) -> str:
    """R15, R17, R18: the outputs are the agreed ones, for the agreed recipients, padded where sealed, with the digests in the
    result."""
    receipt, result, agreed = case.receipt, case.receipt.result, case.receipt.agreement.outputs
    wanted = len(agreed) if result.outcome == Outcome.SUCCEEDED else 0
    if len(result.outputs) != wanted or len(receipt.outputs) != wanted:
        raise Refused(
            "result.outputs",
            "not the outputs that the agreement has",
            found=f"{len(result.outputs)} in the result, {len(receipt.outputs)} in the receipt",
            expected=wanted,
        )
    if not wanted:
        return "none: a signed failure has no outputs"
    for term, settled, data in zip(agreed, result.outputs, receipt.outputs, strict=True):
        check_recipients(term, settled, receipt.request.result_key)
        if term.is_public:
            check_public(term, settled, data)
            continue
        manifest = check_output(term, settled, data)
        if settled.length % term.size_class or not settled.length:
            raise Refused("output.size_class", "an output is not padded to its size class (R18)", found=settled.length)
        if manifest.files[0].size != encrypted_length(settled.length):
            raise Refused("output.length", "an output's file has another length than the result says (R18)")
    return ", ".join(
        f"{out.name}: {out.length} bytes{', PUBLIC' if term.is_public else ''}, 0x{out.digest.hex()}"
        for term, out in zip(agreed, result.outputs, strict=True)
    )


def assurance_link(case: Case) -> str:
    """R4: what all of this is worth is the lowest along the path; a simulation says so, and passes only where that is asked."""
    receipt = case.receipt
    found = case.assurance
    if receipt.assurance != found:
        raise Refused(
            "receipt.assurance",
            "the receipt says another assurance than it has",
            found=receipt.assurance,
            expected=found,
        )
    if found == SIMULATED and not case.allow_simulated:
        raise Refused(
            "receipt.simulated",
            "SIMULATED: no hardware vouches for this enclave (R4)",
            hint="--allow-simulated takes it all the same",
        )
    return f"{found}: no hardware vouches for this enclave" if found == SIMULATED else found


Link = Callable[[Case], str]
LINKS: Mapping[str, Link] = {
    "agreement": agreement_link,
    "consent": consent_link,
    "function": function_link,
    "datasets": datasets_link,
    "request": request_link,
    "evidence": evidence_link,
    "binding": binding_link,
    "measurement": measurement_link,
    "host": host_link,
    "releases": releases_link,
    "result": result_link,
    "outputs": outputs_link,
    "assurance": assurance_link,
}
"""In the order in which they are checked. Names are stable."""


def _development_root(der: bytes, chain_id: int) -> bytes:
    root = DevelopmentRoot(der)
    if maker_of(root.digest) is not None:
        raise Refused("evidence.root_pinned", "a maker's root is pinned, and no receipt brings it along")
    root.refuse_on_public_chain(chain_id)
    return root.der


def _check_chains(root: bytes, chains: Sequence[str]) -> None:
    """Each PEM chain in its one form, every certificate issued by the next, the last one the root.

    dcap-qvl reads no further than to what the root has issued, so what stands behind that would be nobody's word.
    """
    for text in chains:
        chain = pem_chain(text)
        issued = all(_issued(each, issuer) for each, issuer in pairwise(chain))
        if not issued or chain[-1].public_bytes(Encoding.DER) != root or one_form(text) != text:
            raise Refused("evidence.form", "a certificate chain is not one, in its one form, that ends with the root")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_time(case: Case, time: int) -> None:
    request = case.receipt.request
    first, last = request.as_of - AS_OF_WINDOW - CLOCK_SKEW, request.deadline + CLOCK_SKEW
    if not first <= time <= min(last, case.now + FUTURE):
        raise Refused(
            "release.time",
            "a broker says that it released at a time that cannot be",
            found=_when(time),
            expected=f"{_when(first)} to {_when(min(last, case.now + FUTURE))}",
        )


def _fits(check: Callable[[], None]) -> None:
    """The drafter's check; here its words are not about a draft."""
    try:
        check()
    except Refused as error:
        raise Refused(error.code.replace("draft.", "function.", 1), error.message) from None


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
