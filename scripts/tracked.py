"""Fails when a tracked file names a package registry this machine is set up with, or a path of this machine.

The names are read from the machine's own settings, so that none has to be written here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent


def output(*command: str, fine: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in fine:
        sys.exit(f"{' '.join(command[:2])} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def registries() -> Iterator[str]:
    settings = output("npm", "config", "get", "registry") + output(sys.executable, "-m", "pip", "config", "list")
    settings += "\n".join(value for name, value in os.environ.items() if re.search("INDEX_URL|REGISTRY", name, re.I))
    for url in re.findall(r"\w+://[^\s'\"]+", settings):
        host = urlsplit(url).hostname
        if host and "." in host and not re.fullmatch(r"[\d.]+", host):
            yield host


def machine_paths() -> Iterator[str]:
    """The clone's folder and its owner's home, where they are specific enough to be searched for."""
    for path in (ROOT, ROOT.parent, Path.home()):
        if len(path.parts) > 2 or path == Path.home():
            yield f"{path}/"


def main() -> int:
    names = sorted({*registries(), *machine_paths()})
    found = output("git", "grep", "-nIF", *(part for name in names for part in ("-e", name)), "--", ".", fine=(0, 1))
    print(found or f"none of {len(names)} names found", end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
