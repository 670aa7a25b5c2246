"""An SEV-SNP attestation report, versions 2, 3 and 5, taken apart into typed values.

Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860), ATTESTATION_REPORT, TCB_VERSION and guest policy.
Integers are little-endian; what is kept as bytes is in the report's own order. Version 4 was never published.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from enclave_app.appraise.errors import Code, refuse
from enclave_app.protocol.measurement import SNP_REPORT_BYTES, snp_measurement

VERSIONS: Final = (2, 3, 5)
SIGNED_BYTES: Final = 0x2A0
ECDSA_P384_SHA384: Final = 1
MAX_VMPL: Final = 3
MAX_PADDED: Final = 64 * 1024

_RESERVED: Final = {
    2: ((0x4C, 0x50), (0x188, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    3: ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    5: ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0)),
}
"""Where each version must be zero: from, to."""
_SIGNATURE_RESERVED: Final = ((0x2A0 + 48, 0x2A0 + 72), (0x2A0 + 120, 0x2A0 + 144), (0x2A0 + 144, SNP_REPORT_BYTES))
_POLICY_ALWAYS: Final = 1 << 17
_POLICY_KNOWN: Final = (1 << 26) - 1
_KEY_KNOWN: Final = (1 << 5) - 1


class Signer(IntEnum):
    """SIGNING_KEY: a key of the chip, or one that AMD gave to a cloud provider."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True)
class GuestPolicy:
    """What the guest's owner let the firmware do, as measured at launch."""

    raw: int

    @property
    def smt(self) -> bool:
        """May run where simultaneous multithreading is on."""
        return bool(self.raw >> 16 & 1)

    @property
    def migration_agent(self) -> bool:
        """May be bound to a migration agent, which can then copy it."""
        return bool(self.raw >> 18 & 1)

    @property
    def debug(self) -> bool:
        """The host may read and write the guest's memory."""
        return bool(self.raw >> 19 & 1)

    @property
    def single_socket(self) -> bool:
        """Must run on one socket only."""
        return bool(self.raw >> 20 & 1)

    @property
    def abi(self) -> tuple[int, int]:
        """The oldest firmware ABI that may run it: major, minor."""
        return self.raw >> 8 & 0xFF, self.raw & 0xFF


@dataclass(frozen=True)
class SnpReport:
    """Exactly 1184 bytes of report, as `raw`; `trailing` counts the zeros cut off behind it.

    The four TCBs are 8 raw bytes each: which byte is what depends on the processor (`snp.Line`). `family`, `model` and
    `stepping` are zero in version 2, the mitigation vectors before version 5.
    """

    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    signer: Signer
    report_data: bytes
    launch_measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    family: int
    model: int
    stepping: int
    chip_id: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    signature: tuple[int, int]
    trailing: int
    raw: bytes

    @property
    def measurement(self) -> bytes:
        """The 32 bytes that agreements list (R3)."""
        return snp_measurement(self.raw)


def parse_report(evidence: bytes) -> SnpReport:
    """Take a report apart. Zero padding behind it is cut and counted; raises EvidenceRefused for anything else there."""
    if len(evidence) > MAX_PADDED:
        refuse(Code.EVIDENCE_TOO_LONG, f"{len(evidence)} bytes", f"{SNP_REPORT_BYTES}", "send the report alone")
    if len(evidence) < SNP_REPORT_BYTES:
        refuse(Code.EVIDENCE_TOO_SHORT, f"{len(evidence)} bytes", f"{SNP_REPORT_BYTES}", "send the whole report")
    if any(evidence[SNP_REPORT_BYTES:]):
        refuse(
            Code.EVIDENCE_TRAILING_BYTES,
            f"non-zero bytes behind the report's end at {SNP_REPORT_BYTES}",
            "nothing, or zero padding",
            "send the report exactly as the firmware returned it",
        )
    raw = bytes(evidence[:SNP_REPORT_BYTES])
    version = _number(raw, 0x00, 4)
    if version not in VERSIONS:
        refuse(Code.REPORT_VERSION, f"version {version}", "2, 3 or 5", "update this verifier, or the firmware")
    _check_reserved(raw, version)
    policy, vmpl = _number(raw, 0x08, 8), _number(raw, 0x30, 4)
    if not policy & _POLICY_ALWAYS or policy & ~_POLICY_KNOWN:
        refuse(
            Code.REPORT_RESERVED_BYTES, f"guest policy 0x{policy:x}", "known bits, and bit 17", "update this verifier"
        )
    if vmpl > MAX_VMPL:
        # 0xFFFFFFFF: the host asked for the report, and chose its report data.
        refuse(Code.REPORT_VMPL, f"VMPL 0x{vmpl:x}", "0 to 3", "let the guest itself ask for the report")
    algorithm = _number(raw, 0x34, 4)
    if algorithm != ECDSA_P384_SHA384:
        refuse(
            Code.REPORT_SIGNATURE_ALGORITHM, f"signature algorithm {algorithm}", "1 (ECDSA P-384)", "check the report"
        )
    later = version >= 3
    return SnpReport(
        version=version,
        guest_svn=_number(raw, 0x04, 4),
        policy=GuestPolicy(policy),
        family_id=raw[0x10:0x20],
        image_id=raw[0x20:0x30],
        vmpl=vmpl,
        current_tcb=raw[0x38:0x40],
        platform_info=_number(raw, 0x40, 8),
        signer=_signer(raw),
        report_data=raw[0x50:0x90],
        launch_measurement=raw[0x90:0xC0],
        host_data=raw[0xC0:0xE0],
        id_key_digest=raw[0xE0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        family=raw[0x188] if later else 0,
        model=raw[0x189] if later else 0,
        stepping=raw[0x18A] if later else 0,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mitigations=_number(raw, 0x1F8, 8),
        current_mitigations=_number(raw, 0x200, 8),
        signature=(_number(raw, 0x2A0, 72), _number(raw, 0x2A0 + 72, 72)),
        trailing=len(evidence) - SNP_REPORT_BYTES,
        raw=raw,
    )


def _check_reserved(raw: bytes, version: int) -> None:
    """What AMD defines later would otherwise stay outside every measurement (R3)."""
    for start, end in (*_RESERVED[version], *_SIGNATURE_RESERVED):
        if any(raw[start:end]):
            refuse(
                Code.REPORT_RESERVED_BYTES,
                f"non-zero reserved bytes from 0x{start:x}",
                "zeros",
                "update this verifier for that firmware",
            )


def _signer(raw: bytes) -> Signer:
    """The KEY_INFO word: AUTHOR_KEY_EN (bit 0), MASK_CHIP_KEY (1), SIGNING_KEY (2 to 4)."""
    word = _number(raw, 0x48, 4)
    if word & ~_KEY_KNOWN:
        refuse(Code.REPORT_RESERVED_BYTES, f"key information 0x{word:x}", "five bits", "update this verifier")
    masked, key = word >> 1 & 1, word >> 2 & 7
    if masked or key == Signer.NONE:
        # The firmware writes zeros in place of a signature.
        refuse(
            Code.REPORT_UNSIGNED,
            "a report that no chip key signed",
            "MASK_CHIP_KEY off",
            "let the host unmask the chip key",
        )
    if key not in (Signer.VCEK, Signer.VLEK):
        refuse(Code.REPORT_RESERVED_BYTES, f"signing key {key}", "0 (VCEK) or 1 (VLEK)", "update this verifier")
    return Signer(key)


def _number(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")
