"""python -m tests.chaos.broker_main CONTROL ROLE keybroker serve … : a key broker, its boundaries wrapped."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.chaos.points import Points


def main() -> None:
    points = Points(Path(sys.argv[1]), sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    import oracle.keybroker.ledger as ledger
    import oracle.keybroker.release as release
    import oracle.keybroker.server as server

    points.wrap(server, "open_broker", "open")
    points.wrap(ledger.Ledger, "open", "log.open")
    points.wrap(release.Releaser, "release")
    points.wrap(release.Releaser, "_check_own_words", "check")
    points.wrap(release, "read_release", "chain")
    points.wrap(release, "check_view", "rules")
    points.wrap(release.Releaser, "_open", "open_shares")
    points.wrap(release.Releaser, "_seal", "seal")
    points.wrap(ledger.Ledger, "append_release", "append")
    points.wrap(ledger.Ledger, "_write", "write")
    points.wrap(server.Service, "_answer", "answer")
    points.tell()
    from oracle.cli import main as run

    run()


if __name__ == "__main__":
    main()
