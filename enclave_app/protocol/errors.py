"""The error hierarchy, shared by both sides.

OracleError
├── Retryable    the same call may succeed later (a service is down, a block is not confirmed yet)
├── Permanent    the same call will never succeed
│   └── Refused  input from outside broke a rule; `code` says which, and never changes between releases
└── Bug          this program is wrong; report it
"""

from __future__ import annotations

MAX_MESSAGE = 1000


class OracleError(Exception):
    """Base of every error this project raises on purpose.

    `code` is a stable dotted name for programs; the message is for people: what was found, what was expected and what to
    do next, in at most `MAX_MESSAGE` printable characters and line breaks, since some of it quotes strangers. Neither ever
    holds a key, a share or a plaintext value.
    """

    def __init__(
        self, code: str, message: str, *, found: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        parts = [message]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        text = "; ".join(parts)
        if hint:
            text += f". {hint}"
        text = _shortened(_printable(text[: MAX_MESSAGE + 1]))
        super().__init__(text)
        self.code = code
        self.message = text


def _printable(text: str) -> str:
    """What strangers wrote must not steer a terminal, nor hold half a surrogate pair, which no output takes."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class Retryable(OracleError):
    """The same call may succeed later."""


class Permanent(OracleError):
    """The same call will never succeed."""


class Refused(Permanent):
    """Input from outside broke a rule."""


class Bug(OracleError):
    """This program is wrong."""
