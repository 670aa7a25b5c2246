"""What verification establishes, whatever kind of TEE made the evidence."""

from __future__ import annotations

from dataclasses import dataclass

from oracle.attestation.types import TcbStatus, Tee


@dataclass(frozen=True)
class Verified:
    """Claims that hold under one root, one collateral and one moment; nobody has yet said that they are wanted.

    Digests are 32 bytes, times unix seconds; at `valid_until` the claims no longer hold. `root` is SHA-256 of the root
    certificate's DER, `platform` of the PPID.
    """

    tee: Tee
    measurement: bytes
    report_data: bytes
    root: bytes
    tcb_status: TcbStatus
    advisory_ids: tuple[str, ...]
    tcb_evaluation: int
    qe_evaluation: int
    platform: bytes
    fmspc: bytes
    pck_serial: int
    svn_digest: bytes
    collateral: bytes
    verified_at: int
    valid_until: int

    @property
    def evaluation(self) -> int:
        """The number that a floor is held against: the older of TCB info's and QE identity's."""
        return min(self.tcb_evaluation, self.qe_evaluation)
