"""What every error's text keeps to, because some of it quotes strangers."""

from __future__ import annotations

import pytest

from enclave_app.protocol.errors import MAX_MESSAGE, Refused
from oracle.errors import Reverted, RpcFault


@pytest.mark.parametrize(
    "error",
    [
        RpcFault(1, "\x1b[2J\x07\ud800\u202e", None),
        Reverted("Error", {"message": "\r\x1b]0;title\x07"}),
        Refused("a.code", "a message", found="\0" * 5000, expected="\u2028"),
    ],
)
def test_an_errors_text_is_printable_and_short(error: Refused) -> None:
    assert all(character.isprintable() for character in error.message)
    assert len(error.message) <= MAX_MESSAGE
    assert error.message.encode() == str(error).encode()


def test_line_breaks_and_letters_stay() -> None:
    assert Refused("a.code", "é 𝔘\nnext").message == "é 𝔘\nnext"
