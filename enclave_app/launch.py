"""How the enclave's process comes to hold nothing that no measurement covers (R3).

    python -m enclave_app …   →   python -I -S -B -X pycache_prefix=/dev/null enclave_app/launch.py PATH …

The second takes the place of the first, and starts with an empty environment: no variable reaches Python, the loader or a
library. It reads no bytecode, because what is measured is the source; it runs no start-up hook of an installation; and it
imports nothing but the standard library and measured files, which are looked for along PATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from importlib.metadata import Distribution, DistributionFinder

_NO_BYTECODE: Final = "/dev/null"
"""Nothing lies below it, so none is found."""
FLAGS: Final = ("-I", "-S", "-B", "-X", f"pycache_prefix={_NO_BYTECODE}")
ENVIRONMENT: Final = {"LC_CTYPE": "C.UTF-8"}
"""What Python sets by itself where there is no locale."""


def relaunch(arguments: Sequence[str]) -> NoReturn:
    """Become the second process. Where to look for modules is the host's to say: what is found there is measured."""
    places = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # noqa: PTH100 - pathlib takes long to load
    os.execve(sys.executable, [sys.executable, *FLAGS, __file__, places, *arguments], ENVIRONMENT)  # noqa: S606


class MeasuredFinder:
    """Finds the standard library and measured `files`; for everything else there is no such module.

    So a module that a dependency would use where it is installed cannot be given to it unmeasured.
    """

    def __init__(self, files: Collection[str], standard: Sequence[str]) -> None:
        self._files, self._standard = files, standard

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if PathFinder.find_spec(name.partition(".")[0], self._standard) is not None:
            return PathFinder.find_spec(name, path or self._standard)
        for place in sys.path if path is None else path:
            spec = PathFinder.find_spec(name, [place])
            if spec is not None and spec.origin in self._files:
                return spec
        return None

    @staticmethod
    def find_distributions(context: DistributionFinder.Context) -> Iterable[Distribution]:
        """Only by name, to be measured: whoever asks for all looks for plugins."""
        return PathFinder.find_distributions(context) if context.name else ()


def main(places: str, arguments: Sequence[str]) -> int:
    """The second process; returns its exit status."""
    standard = list(sys.path)
    # Resolved, as `package_root` is: a module is measured under the path it is found at.
    sys.path += [str(Path(__file__).resolve().parents[1]), *places.split(os.pathsep)]
    from enclave_app.attesters.measure import MeasureError, measured_files, package_root
    from enclave_app.logs import Log

    flags = sys.flags.isolated and sys.flags.no_site and sys.pycache_prefix == _NO_BYTECODE
    if not flags or os.environ != ENVIRONMENT:
        Log()("enclave.refused", code="enclave.launch", message="start the enclave with: python -m enclave_app")
        return 1
    try:
        finder = MeasuredFinder(measured_files(package_root()), standard)
    except MeasureError as error:
        Log()("enclave.refused", code="enclave.start", message=str(error))
        return 1
    sys.meta_path[sys.meta_path.index(PathFinder)] = finder
    from enclave_app.main import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
