"""A secret under a password: scrypt (RFC 7914) makes the key, AES-256-GCM seals, additional data binds the purpose."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import Field

from enclave_app.protocol.canonical import Document
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Bytes
from oracle.files import read_file

Password = Callable[[], str]
"""Asked only when a password is needed: a prompt, or `password_file`."""

SCRYPT_N = 1 << 17
"""128 MiB and about a third of a second: OWASP's first recommendation for scrypt."""
MAX_SCRYPT_N = 1 << 20
MAX_SCRYPT_WORK = 1 << 24
"""n · r · p; a file with more is not ours, and would take minutes or gigabytes."""
MAX_SECRET_FILE = 8 << 20


class Locked(Document):
    """A secret under a password. The cost is in the file, bounded, so that it can grow later."""

    kdf: Literal["scrypt"] = "scrypt"
    n: int = Field(ge=1 << 10, le=MAX_SCRYPT_N)
    r: int = Field(default=8, ge=1, le=16)
    p: int = Field(default=1, ge=1, le=4)
    salt: Bytes = Field(min_length=16, max_length=64)
    nonce: Bytes = Field(min_length=12, max_length=12)
    sealed: Bytes = Field(min_length=16)


def lock(secret: bytes, password: Password, purpose: bytes, *, n: int = SCRYPT_N) -> Locked:
    """Seal `secret`; `purpose` must be given again to open it. Refused `password.empty` for an empty password."""
    text = password()
    if not text:
        raise Refused("password.empty", "an empty password protects nothing")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key = Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(text.encode())
    return Locked(n=n, salt=salt, nonce=nonce, sealed=AESGCM(key).encrypt(nonce, secret, purpose))


def unlock(locked: Locked, password: Password, purpose: bytes) -> bytes:
    """The secret; Refused `password.wrong` for a wrong password, a changed file or another purpose."""
    if locked.n & (locked.n - 1):
        raise Refused("password.cost", "a scrypt cost is not a power of two", found=locked.n)
    if locked.n * locked.r * locked.p > MAX_SCRYPT_WORK:
        raise Refused("password.cost", "a scrypt cost is too high", expected=f"n · r · p of at most {MAX_SCRYPT_WORK}")
    key = Scrypt(salt=locked.salt, length=32, n=locked.n, r=locked.r, p=locked.p).derive(password().encode())
    try:
        return AESGCM(key).decrypt(locked.nonce, locked.sealed, purpose)
    except InvalidTag:
        raise Refused("password.wrong", "the password is wrong, or the file was changed") from None


def password_file(path: Path) -> Password:
    """A password from the first line of a file."""

    def read() -> str:
        return read_secret(path).decode("utf-8", "replace").split("\n", 1)[0].rstrip("\r")

    return read


def read_secret(path: Path) -> bytes:
    """A secret file's bytes; Refused `file.read` where it cannot be read, without quoting what it holds."""
    return read_file(path, MAX_SECRET_FILE)


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read (0600); never overwrites (Refused `file.exists`)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError:
        raise Refused("file.exists", f"{path} is already there", hint="A key file is never overwritten") from None
    except OSError as error:
        raise Refused("file.write", f"cannot write {path}", found=error.strerror) from error
