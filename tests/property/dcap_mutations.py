"""One change to valid Intel evidence: a byte of what is posted, or a value that a minted root then signs again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.dcap_chain_kit import Material, cut
from tests.dcap_kit import (
    DAY,
    NOW,
    TDX,
    Case,
    Crl,
    Level,
    Module,
    Span,
    SvnLevel,
    TdBody,
)

T = TypeVar("T")

POSTED = (
    "pck",
    "ca",
    "signer",
    "root_crl",
    "pck_crl",
    "tcb_info",
    "tcb_signature",
    "qe_identity",
    "qe_signature",
)
TEXTS = ("tcb_info", "qe_identity")
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
    "TDRelaunchAdvised",
)


@dataclass(frozen=True)
class Trial:
    """Evidence to be judged by both, and what was done to it."""

    name: str
    material: Material


def flipped(rng: random.Random, data: bytes, start: int = 0, end: int | None = None) -> tuple[bytes, str]:
    """One byte of it changed, and where."""
    at = rng.randrange(start, len(data) if end is None else end)
    value = rng.choice([data[at] ^ 1 << rng.randrange(8), data[at] + 1 & 255, data[at] - 1 & 255, rng.randrange(256)])
    if value == data[at]:
        value ^= 1
    return data[:at] + bytes([value]) + data[at + 1 :], f"{at}:{data[at]:02x}>{value:02x}"


@dataclass
class Flip:
    """Changes one byte of what it is given, and says where."""

    rng: random.Random
    where: str = ""

    def __call__(self, content: bytes) -> bytes:
        content, self.where = flipped(self.rng, content)
        return content


def retyped(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """One character of a text changed, dropped, or written twice. ASCII, since both sides have to see the same text."""
    at, how = rng.randrange(len(data)), rng.randrange(8)
    if how == 0:
        return data[:at] + data[at + 1 :], f"{at}:{chr(data[at])}>"
    if how == 1:
        return data[:at] + data[at : at + 1] + data[at:], f"{at}:{chr(data[at])} twice"
    if chr(data[at]).isdigit() and how < 7:
        letters = "0123456789".replace(chr(data[at]), "")
    else:
        letters = "".join(map(chr, range(32, 127))).replace(chr(data[at]), "")
    letter = rng.choice(letters)
    return data[:at] + letter.encode() + data[at + 1 :], f"{at}:{chr(data[at])}>{letter}"


# Anyone's changes: nothing is signed again


def change_quote(rng: random.Random, material: Material) -> Trial:
    quote, where = flipped(rng, material.quote, 0, len(cut(material.quote)))
    return Trial(f"quote {where}", replace(material, quote=quote))


def change_post(rng: random.Random, material: Material) -> Trial:
    name = rng.choice(POSTED)
    changed, where = (retyped if name in TEXTS else flipped)(rng, getattr(material, name))
    return Trial(f"{name} {where}", _put(material, name, changed))


def exchange_post(rng: random.Random, material: Material, others: Sequence[Material]) -> Trial:
    """One thing of somebody else's, with what signs it or without."""
    other, name = rng.choice([each for each in others if each is not material]), rng.choice(POSTED)
    together = {"tcb_info": "tcb_signature", "qe_identity": "qe_signature"}
    changes: dict[str, Any] = {name: getattr(other, name)}
    if name in together and rng.randrange(2):
        changes[together[name]] = getattr(other, together[name])
    return Trial(f"another's {' and '.join(changes)}", replace(material, **changes))


def change_time(rng: random.Random, material: Material, ends: Sequence[int]) -> Trial:
    now = rng.choice(ends) + rng.choice([-DAY, -1, 0, 1, DAY])
    return Trial(f"at {now}", replace(material, now=now))


# Intel's own changes: what a minted root signs again


def sign_body(rng: random.Random, case: Case) -> Trial:
    change = Flip(rng)
    quote = case.mint(signed=change)
    return Trial(f"signed body {change.where}", replace(Material.of(case), quote=quote))


def sign_qe_report(rng: random.Random, case: Case) -> Trial:
    change = Flip(rng)
    quote = case.mint(qe_report=change)
    return Trial(f"signed QE report {change.where}", replace(Material.of(case), quote=quote))


def sign_certificate(rng: random.Random, case: Case) -> Trial:
    """One byte of what a certificate or a revocation list says."""
    name = rng.choice(["pck", "ca", "signer", "root_crl", "pck_crl"])
    material, authority = Material.of(case), case.authority
    original = getattr(material, name)
    if name.endswith("crl"):
        content = x509.load_der_x509_crl(original).tbs_certlist_bytes
    else:
        content = x509.load_der_x509_certificate(original).tbs_certificate_bytes
    content, where = flipped(rng, content)
    signer = authority.ca if name in ("pck", "pck_crl") else authority.root
    return Trial(f"signed {name} {where}", _put(material, name, signed_der(content, signer.key)))


def sign_text(rng: random.Random, case: Case) -> Trial:
    name = rng.choice(["tcb", "qe"])
    text, where = retyped(rng, getattr(case, name).text.encode())
    changed = _put(case, f"{name}_text", text.decode())
    return Trial(f"signed {name} {where}", Material.of(changed))


def sign_values(rng: random.Random, case: Case) -> Trial:
    """One value of what Intel says of platforms, modules and quoting enclaves, or of the platform itself."""
    changes: list[Callable[[random.Random, Case], tuple[Case, str]]] = [
        _level,
        _level,
        _levels,
        _tcb,
        _qe,
        _qe_level,
        _platform,
        _platform,
        _lists,
        _spans,
    ]
    if case.tee == TDX:
        changes += [_td_svns, _td_svns, _td_svns, _module, _module, _td_attributes]
    changed, what = rng.choice(changes)(rng, case)
    return Trial(what, Material.of(changed))


def signed_der(content: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate or a list that says `content`, under ECDSA with SHA-256."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = b"\0" + key.sign(content, ec.ECDSA(hashes.SHA256()))
    return _tlv(0x30, content + algorithm + _tlv(0x03, signature))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _put(owner: T, name: str, value: object) -> T:
    changed: T = replace(owner, **{name: value})  # type: ignore[type-var]
    return changed


def _nudged(rng: random.Random, data: bytes) -> bytes:
    at = rng.choice([i for i in range(len(data)) if i < 4 or not rng.randrange(4)])
    value = max(0, min(255, data[at] + rng.choice([-1, 1])))
    return data[:at] + bytes([value]) + data[at + 1 :]


def _level(rng: random.Random, case: Case) -> tuple[Case, str]:
    levels = list(case.tcb.levels)
    at = rng.randrange(len(levels))
    level = levels[at]
    changes: list[dict[str, Any]] = [
        {"status": rng.choice(STATUSES)},
        {"components": _nudged(rng, level.components)},
        {"pce_svn": max(0, level.pce_svn + rng.choice([-1, 1]))},
        {"tdx": _nudged(rng, level.tdx)},
        {"date": level.date + rng.choice([-DAY, DAY])},
        {"advisories": ("INTEL-SA-00001", "INTEL-SA-00002")},
    ]
    change = rng.choice(changes)
    levels[at] = replace(level, **change)
    return replace(case, tcb=replace(case.tcb, levels=tuple(levels))), f"level {at} {change}"


def _levels(rng: random.Random, case: Case) -> tuple[Case, str]:
    levels = list(case.tcb.levels)
    how = rng.randrange(5)
    if how == 0:
        levels.pop(rng.randrange(len(levels)))
    elif how == 1:
        rng.shuffle(levels)
    elif how == 2:
        levels.insert(0, Level(rng.choice(STATUSES), pce_svn=levels[0].pce_svn + 1))
    elif how == 3:
        middle = replace(levels[0], status=rng.choice(STATUSES), pce_svn=max(0, levels[0].pce_svn - 1))
        levels.insert(1, middle)
    else:
        levels.append(levels[-1])
    return replace(case, tcb=replace(case.tcb, levels=tuple(levels))), f"levels {how}"


def _tcb(rng: random.Random, case: Case) -> tuple[Case, str]:
    changes: list[dict[str, Any]] = [
        {"fmspc": _nudged(rng, case.tcb.fmspc)},
        {"pce_id": _nudged(rng, case.tcb.pce_id)},
        {"evaluation": case.tcb.evaluation + rng.choice([-1, 1])},
        {"span": _span(rng)},
        {"tee": 3 - case.tee},
    ]
    change = rng.choice(changes)
    return replace(case, tcb=replace(case.tcb, **change)), f"TCB info {change}"


def _qe(rng: random.Random, case: Case) -> tuple[Case, str]:
    name = rng.choice(["misc_select", "misc_select_mask", "attributes", "attributes_mask", "mr_signer"])
    changes: list[dict[str, Any]] = [
        *[{name: flipped(rng, getattr(case.qe, name))[0]}] * 4,
        {"isv_prod_id": case.qe.isv_prod_id + rng.choice([-1, 1])},
        {"evaluation": case.qe.evaluation + rng.choice([-1, 1])},
        {"span": _span(rng)},
        {"tee": 3 - case.tee},
    ]
    change = rng.choice(changes)
    return replace(case, qe=replace(case.qe, **change)), f"QE identity {change}"


def _svn_levels(rng: random.Random, levels: Sequence[SvnLevel]) -> tuple[tuple[SvnLevel, ...], str]:
    found = list(levels)
    at, how = rng.randrange(len(found)), rng.randrange(5)
    if how < 2:
        found[at] = replace(found[at], status=rng.choice(STATUSES))
    elif how == 2:
        found[at] = replace(found[at], isv_svn=max(0, found[at].isv_svn + rng.choice([-1, 1])))
    elif how == 3:
        found.pop(at)
    else:
        found.insert(0, SvnLevel(found[0].isv_svn + 1, rng.choice(STATUSES)))
    return tuple(found), f"{how} at {at}"


def _qe_level(rng: random.Random, case: Case) -> tuple[Case, str]:
    levels, what = _svn_levels(rng, case.qe.levels)
    return replace(case, qe=replace(case.qe, levels=levels)), f"QE levels {what}"


def _module(rng: random.Random, case: Case) -> tuple[Case, str]:
    modules = list(case.tcb.modules)
    at = rng.randrange(len(modules))
    module, how = modules[at], rng.randrange(8)
    if how == 0 and at:
        modules.pop(at)
    elif how == 1 and at:
        modules.append(Module(rng.randrange(1, 256)))
    elif how == 2 and at:
        modules[at] = replace(module, version=rng.choice([1, 2, 3, 0x10]))
    elif how == 3:
        modules[at] = replace(module, mr_signer=flipped(rng, module.mr_signer)[0])
    elif how == 4:
        modules[at] = replace(module, attributes=flipped(rng, module.attributes)[0])
    elif how == 5:
        modules[at] = replace(module, mask=flipped(rng, module.mask)[0])
    else:
        modules[at] = replace(module, levels=_svn_levels(rng, module.levels)[0])
    return replace(case, tcb=replace(case.tcb, modules=tuple(modules))), f"module {at} {how}"


def _platform(rng: random.Random, case: Case) -> tuple[Case, str]:
    best = case.tcb.levels[0]
    changes: list[dict[str, Any]] = [
        *[{"cpu_svn": _nudged(rng, best.components)}] * 3,
        {"pce_svn": max(0, best.pce_svn + rng.choice([-1, 1, 200]))},
        {"fmspc": _nudged(rng, case.tcb.fmspc)},
        {"pce_id": _nudged(rng, case.tcb.pce_id)},
        {"ppid": rng.randbytes(16)},
        {"span": _span(rng)},
    ]
    change = rng.choice(changes)
    return replace(case, pck=case.authority.platform(**change)), f"platform {change}"


def _lists(rng: random.Random, case: Case) -> tuple[Case, str]:
    name = rng.choice(["root_crl", "pck_crl"])
    authority = case.authority
    certificates = [case.pck, authority.ca, authority.signer, authority.root]
    revoked = tuple(each for each in certificates if rng.randrange(4) == 0)
    crl = Crl(_span(rng) if rng.randrange(2) else Crl().span, revoked)
    return _put(case, name, crl), f"{name} {crl.span} {[certificates.index(each) for each in revoked]}"


def _spans(rng: random.Random, case: Case) -> tuple[Case, str]:
    name = rng.choice(["tcb", "qe"])
    span = _span(rng)
    return _put(case, name, replace(getattr(case, name), span=span)), f"{name} {span}"


def _span(rng: random.Random) -> Span:
    start = NOW + rng.choice([-30 * DAY, -1, 0, 1, DAY])
    return Span(start, max(start, NOW + rng.choice([-DAY, -1, 0, 1, DAY])))


def _td_svns(rng: random.Random, case: Case) -> tuple[Case, str]:
    assert isinstance(case.body, TdBody)
    name = rng.choice(["tee_tcb_svn", "tee_tcb_svn2"])
    value = _nudged(rng, getattr(case.body, name))
    if not rng.randrange(4):
        value = value[:1] + bytes([rng.choice([0, 1, 2, 3])]) + value[2:]
    return replace(case, body=_put(case.body, name, value)), f"{name} {value.hex()}"


def _td_attributes(rng: random.Random, case: Case) -> tuple[Case, str]:
    assert isinstance(case.body, TdBody)
    value = (1 << 28 ^ 1 << rng.randrange(64)).to_bytes(8, "little")
    return replace(case, body=replace(case.body, td_attributes=value)), f"TD attributes {value.hex()}"


def ends(material: Material) -> list[int]:
    """The first and the last second of everything that a verdict rests on, but for the documents."""
    found = []
    for each in (material.pck, material.ca, material.signer, material.root):
        certificate = x509.load_der_x509_certificate(each)
        found += [certificate.not_valid_before_utc, certificate.not_valid_after_utc]
    for each in (material.root_crl, material.pck_crl):
        crl = x509.load_der_x509_crl(each)
        assert crl.next_update_utc is not None
        found += [crl.last_update_utc, crl.next_update_utc]
    return [int(moment.timestamp()) for moment in found]
