"""A scratch copy of the repository, in which each check has its switch, with a virtual environment of its own.

Programs that tests start (the enclave, brokers, the command line) come from `sys.executable`, so they run in the copy too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked(root: Path) -> list[str]:
    """What git knows or would add; ignored files stay behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True, check=True
    )
    return sorted({name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()})


def make(place: Path, replaced: Mapping[str, str], root: Path = ROOT) -> None:
    """Fill `place` with the repository at `root`, where `replaced` (path → text) stands instead of what is there.

    Only what changed is written, so that compilers that go by time or content find their work done.
    """
    place.mkdir(parents=True, exist_ok=True)
    wanted = set(replaced)
    for name in tracked(root):
        if name in replaced:
            continue
        wanted.add(name)
        target = place / name
        if not target.exists() or target.read_bytes() != (root / name).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target)
    for name, text in replaced.items():
        target = place / name
        if not target.exists() or target.read_text() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    manifest = place / ".tools" / "files"
    if manifest.exists():
        for name in set(manifest.read_text().splitlines()) - wanted:
            (place / name).unlink(missing_ok=True)
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_text("\n".join(sorted(wanted)))
    _take_packages(place / "node_modules", root / "node_modules")


def _take_packages(target: Path, packages: Path) -> None:
    """npm's own list says what is installed: a copy of other packages is made anew."""
    listed = ".package-lock.json"
    if not (packages / listed).exists():
        return
    if (target / listed).exists() and (target / listed).read_bytes() == (packages / listed).read_bytes():
        return
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-al", str(packages), str(target)], check=True)


def make_venv(place: Path, switch: Path, base: int) -> Path:
    """A Python that imports the copy before the clone, and knows `switch`; gives its path.

    `base` is the coinbase that the contracts' switches count from."""
    venv = place / ".venv"
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(venv)], check=True)
    site = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    real = sysconfig.get_path("purelib")
    shutil.copyfile(Path(__file__).with_name("switch.py"), site / "mutation_switch.py")
    # The copy's path comes before what `addsitedir` adds, which holds the clone's own editable install.
    (site / "mutation.pth").write_text(
        f"{place}\nimport mutation_switch; mutation_switch.install({str(switch)!r})\n"
        f"import site; site.addsitedir({real!r})\n"
    )
    for program in sorted(Path(sys.executable).parent.iterdir()):
        link = venv / "bin" / program.name
        if program.name in ("forge", "node", "npm", "npx", "ruff", "mypy") and not link.exists():
            link.symlink_to(program.resolve())
    _wrap_anvil(venv / "bin" / "anvil", Path(sys.executable).with_name("anvil").resolve(), switch.parent, base)
    return python


def _wrap_anvil(path: Path, anvil: Path, notes: Path, base: int) -> None:
    """An anvil that takes switched contracts, which are larger, and leaves its port where the switch is."""
    path.write_text(
        "#!/bin/sh\nport=8545\nwas=\n"
        'for word; do [ "$was" != --port ] || port=$word; was=$word; done\n'
        f'echo "$port {base}" >"{notes}/anvil-$port"\n'
        f'exec "{anvil}" "$@" --code-size-limit 100000\n'
    )
    path.chmod(0o755)


def environment() -> dict[str, str]:
    """This process's, without what would point Python elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
