"""A mebibyte of each kind of nonsense, through every parser, in a process that may take little memory beyond its start.

    python -m tests.property.bombs [--all]      prints what failed, one line each

Without `--all`, each parser gets what its own kind of document could be mistaken for.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from tests.property.parsers import PARSERS, Parser

MIB = 1 << 20
SPARE = 320 * MIB
"""Address space beyond what the process has when all is imported."""

JSON = {
    "brackets": b"[" * MIB,
    "objects": b'{"a":' * (MIB // 5),
    "small objects": b"[" + b"{}," * 350_000 + b"{}]",
    "an integer of a million digits": b"1" * MIB,
    "backslashes": b'"' + b"\\" * MIB,
    "quotes": b'"' * MIB,
    "white space": b" " * MIB,
}
YAML = {
    "items": b"- a\n" * (MIB // 4),
    "dashes": b"- " * (MIB // 2),
    "aliases": b"a: &a [x]\n" + b"".join(b"b%d: *a\n" % n for n in range(1000)),
    "merges": b"a: &a {b: 1}\nc: {<<: [*a, *a, *a]}\n",
}
BYTES = {
    "zeros": bytes(MIB),
    "ones": b"\xff" * MIB,
    "PEM": b"-----BEGIN CERTIFICATE-----\n" + b"A" * 76 + b"\n" * MIB,
    "hex": b"0x" + b"f" * MIB,
    "spaces in hex": b"0x" + b" " * MIB,
    "digits": b"9" * 70 + b"." + b"9" * MIB,
    "lines": b"\n" * MIB,
    "commas": b"," * MIB,
}
OWN = {"json": JSON, "yaml": YAML, "bytes": BYTES}


def explode(parser: Parser, name: str, data: bytes) -> None:
    try:
        parser.read(data)
    except parser.errors:
        return
    except BaseException as error:
        print(f"{parser.name}, {name}: {type(error).__name__}: {str(error)[:200]}", flush=True)


def main(everything: bool) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    messages = [parser for parser in PARSERS if parser.name.startswith("message ")]
    for parser in PARSERS:
        # Messages differ in their models only, and no bomb gets so far.
        if parser in messages[1:] and not everything:
            continue
        bombs = {**JSON, **YAML, **BYTES} if everything else OWN[parser.kind]
        for name, data in bombs.items():
            # If the process dies, the last line on stderr says of what.
            print(f"{parser.name}, {name}", file=sys.stderr, flush=True)
            explode(parser, name, data)


if __name__ == "__main__":
    main("--all" in sys.argv)
