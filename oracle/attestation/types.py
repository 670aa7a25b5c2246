"""Enumerations shared by the three stages; the numbers are those of the contracts."""

from __future__ import annotations

from enum import IntEnum


class Tee(IntEnum):
    """TEE kinds, as in `VerifierStatement.tee` and in the measurement's tag byte."""

    SGX = 1
    TDX = 2


class TcbStatus(IntEnum):
    """Intel's TCB statuses; bit 1 << value of `Enclaves.statusMask` stands for each. Zero is no status."""

    UpToDate = 1
    SWHardeningNeeded = 2
    ConfigurationNeeded = 3
    ConfigurationAndSWHardeningNeeded = 4
    OutOfDate = 5
    OutOfDateConfigurationNeeded = 6
    Revoked = 7
    TDRelaunchAdvised = 8
    TDRelaunchAdvisedConfigurationNeeded = 9
