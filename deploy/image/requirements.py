"""What the enclave's image installs: the part of requirements.lock that `enclave_app` loads.

python deploy/image/requirements.py > deploy/image/requirements.txt      after scripts/lock
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from enclave_app.attesters.measure import DEPENDENCIES, resolved_distributions  # noqa: E402

HEAD = "# Made by deploy/image/requirements.py from requirements.lock: what enclave_app loads, and nothing else.\n"


def requirements() -> str:
    """Name, version and hashes of each distribution, as the lock has them, without its comments."""
    entries = re.findall(
        r"^[A-Za-z0-9][^\n]*\n(?:    --hash[^\n]*\n)*", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    wanted = resolved_distributions(DEPENDENCIES)
    kept = [entry for entry in entries if re.sub(r"[-_.]+", "-", entry.split("==")[0]).lower() in wanted]
    missing = len(wanted) - len(kept)
    if missing:
        raise SystemExit(f"{missing} of {len(wanted)} distributions are not in requirements.lock; run scripts/lock")
    return HEAD + "".join(kept)


if __name__ == "__main__":
    sys.stdout.write(requirements())
