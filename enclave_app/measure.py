"""python -m enclave_app.measure [--config FILE]: the measurement of the enclave that this configuration would start.

For the software attester, whose registers are all known beforehand. What agreements list is the 32 bytes printed (R3).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from enclave_app.attesters.base import AttesterError
from enclave_app.attesters.factory import SOFTWARE
from enclave_app.attesters.software import SoftwareEnclave
from enclave_app.config import EnclaveConfig, read_config
from enclave_app.protocol.errors import OracleError, Refused


def measure(raw: bytes) -> bytes:
    """The measurement under the configuration bytes `raw`. Raises Refused and MeasureError."""
    config = read_config(raw)
    if config.attester != SOFTWARE:
        raise Refused(
            "measure.attester",
            "only the software attester's measurement is known before launch",
            found=config.attester,
            hint="Measure the image with the tools of its TEE, or ask the running enclave",
        )
    return SoftwareEnclave.of_program(raw).measurement


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m enclave_app.measure", allow_abbrev=False, description=__doc__)
    parser.add_argument("--config", type=Path, help="left out: the software attester with every ceiling at its default")
    options = parser.parse_args(arguments)
    try:
        default = EnclaveConfig(attester=SOFTWARE).canonical()
        print("0x" + measure(options.config.read_bytes() if options.config else default).hex())
    except (OracleError, AttesterError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
