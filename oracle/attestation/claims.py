"""What verification establishes, whatever kind of TEE made the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enclave_app.appraise.nitro import NitroClaims
from enclave_app.appraise.snp import SnpClaims
from oracle.attestation.types import TcbStatus, Tee


@dataclass(frozen=True)
class DcapClaims:
    """What Intel says about a platform: both evaluation numbers, the kind of machine, and its certificate."""

    tcb_evaluation: int
    qe_evaluation: int
    fmspc: bytes
    pck_serial: int


@dataclass(frozen=True)
class Verified:
    """Claims that hold under one root, with these endorsements and at one moment; nobody has yet said that they are wanted.

    Digests are 32 bytes, times unix seconds; at `valid_until` the claims no longer hold. `registers` are the measured ones
    by name, `root` is SHA-256 of the root certificate's DER, `platform` of what names the machine (PPID, chip id, PCR4).
    Only Intel publishes a status for each platform; AMD's versions are in `snp`, and AWS tells none.
    """

    tee: Tee
    measurement: bytes
    registers: Mapping[str, bytes]
    report_data: bytes
    root: bytes
    platform: bytes
    svn_digest: bytes
    collateral: bytes
    verified_at: int
    valid_until: int
    tcb_status: TcbStatus | None = None
    advisory_ids: tuple[str, ...] = ()
    dcap: DcapClaims | None = None
    snp: SnpClaims | None = None
    nitro: NitroClaims | None = None

    @property
    def evaluation(self) -> int:
        """The number that a floor is held against: the older of TCB info's and QE identity's; 0 where there is none."""
        return 0 if self.dcap is None else min(self.dcap.tcb_evaluation, self.dcap.qe_evaluation)
