"""Names of the three stages for the protocol's numbers."""

from __future__ import annotations

from typing import Final

from enclave_app.protocol.structs import TcbStatus, Tee

__all__ = ["INTEL_NAMES", "TcbStatus", "Tee", "intel_name"]

INTEL_NAMES: Final = {
    "UpToDate": TcbStatus.UP_TO_DATE,
    "SWHardeningNeeded": TcbStatus.SW_HARDENING_NEEDED,
    "ConfigurationNeeded": TcbStatus.CONFIGURATION_NEEDED,
    "ConfigurationAndSWHardeningNeeded": TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    "OutOfDate": TcbStatus.OUT_OF_DATE,
    "OutOfDateConfigurationNeeded": TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    "Revoked": TcbStatus.REVOKED,
    "TDRelaunchAdvised": TcbStatus.TD_RELAUNCH_ADVISED,
    "TDRelaunchAdvisedConfigurationNeeded": TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
}
"""TCB statuses as Intel's collateral writes them; appraisal policies use the same names."""


def intel_name(status: TcbStatus) -> str:
    return next(name for name, known in INTEL_NAMES.items() if known is status)
