"""Addresses as people hand them on: as they are, or in a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from enclave_app.protocol.canonical import load
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Address
from oracle.files import read_file

MAX_FILE = 100_000
_ADDRESS = TypeAdapter(Address)


def read_address(text: str, base: Path) -> str:
    """The checksummed address that `text` is, or that the file of that name in `base` says: as text, or as JSON with a key
    `address`, which is what keystores have and `oracle keys show --json` prints.

    Raises Refused `address`, and `file.read` where it is neither.
    """
    said = text if text.startswith("0x") else written(read_file(base / text, MAX_FILE), "address")
    try:
        return _ADDRESS.validate_python(said if said.startswith("0x") else f"0x{said}")
    except ValidationError:
        raise Refused(
            "address",
            "not an address",
            found=repr(said[:60]),
            expected="0x and 40 hex digits, every one as it was given, or a file with them",
        ) from None


def written(data: bytes, key: str) -> str:
    """What a file says: its text, or what `key` has where it is JSON."""
    text = data[:MAX_FILE].decode("utf-8", "replace").strip()
    if text.startswith("{"):
        text = str(load(text.encode(), canonical=False).get(key, ""))
    return text
