"""The switches as every process of the scratch tree sees them; installed into its virtual environment.

One file, mapped by all: which check is dropped (4 bytes), then a byte for each check that says whether it has refused since
it was last cleared. Memory, so that a sandboxed process without file access takes part.
"""

from __future__ import annotations

import builtins
import mmap
from pathlib import Path
from types import TracebackType
from typing import Any

SIZE = 1 << 14
_board: mmap.mmap | bytearray = bytearray(SIZE)
directory = ""
"""Where the board lies."""


def install(path: str) -> None:
    """Map the board, and give the instrumented code its two names."""
    global _board, directory
    directory = str(Path(path).parent)
    if Path(path).exists():
        with Path(path).open("r+b") as file:
            _board = mmap.mmap(file.fileno(), SIZE)
    vars(builtins).update(__mutant_drops__=drops, __mutant_call__=Call)


def activate(number: int) -> None:
    """Drop check `number`; zero drops none."""
    _board[:4] = number.to_bytes(4, "big")


def active() -> int:
    return int.from_bytes(_board[:4], "big")


def take_refused() -> list[int]:
    """The checks that have refused since the last call."""
    found = [number for number, byte in enumerate(_board[4:], 4) if byte]
    for number in found:
        _board[number] = 0
    return [number - 3 for number in found]


def _refused(number: int) -> None:
    _board[number + 3] = 1


def drops(number: int, refuses: Any) -> Any:
    """`refuses`, what a check's condition came to; False for the check that is dropped. Number zero is no mutant's."""
    if number and refuses:
        _refused(number)
        if active() == number:
            return False
    return refuses


class Call:
    """Around a call that is made for what it refuses: a dropped one's refusal goes nowhere."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not self._number or not isinstance(error, Exception):
            return False
        _refused(self._number)
        return active() == self._number
