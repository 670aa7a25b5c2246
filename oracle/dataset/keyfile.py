"""The owner's keys of a sealed dataset, which open it without brokers: the footers' key, then the columns'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from enclave_app.protocol.canonical import Document, load, validate
from enclave_app.protocol.digests import commitment, tag
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Bytes32
from enclave_app.protocol.manifest import MAX_COLUMNS, Manifest
from oracle.naming import naming
from oracle.passwords import SCRYPT_N, Locked, Password, lock, read_secret, unlock, write_secret

_PURPOSE = tag("dataset-key-file")
KEY_BYTES = 32


class LockedKeysFile(Document):
    """The keys, in order, under a password."""

    format: Literal["enclave-oracle/dataset-keys"] = "enclave-oracle/dataset-keys"
    v: Literal[1] = 1
    dataset: Bytes32
    keys: Locked


class PlaintextKeysFile(Document):
    """The keys as they are; whoever reads the file reads the data."""

    format: Literal["enclave-oracle/dangerous-plaintext-keys"] = "enclave-oracle/dangerous-plaintext-keys"
    v: Literal[1] = 1
    dataset: Bytes32
    keys: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_COLUMNS + 1)


@dataclass(frozen=True)
class DatasetKeys:
    """All keys of the dataset of that id, by key index; the repr never shows them."""

    dataset: bytes
    keys: tuple[bytes, ...]

    def check(self, manifest: Manifest) -> None:
        """Refuse keys that are not the ones the manifest commits to (R11)."""
        if self.dataset != manifest.id or tuple(commitment(key) for key in self.keys) != manifest.keys:
            raise Refused(
                "keys.dataset",
                "these keys are for another dataset",
                found=self.dataset.hex(),
                expected=manifest.id.hex(),
            )

    def __repr__(self) -> str:
        return f"DatasetKeys({self.dataset.hex()[:16]}…, {len(self.keys)} keys)"


def write_keys(
    path: Path,
    keys: DatasetKeys,
    password: Password | None,
    *,
    dangerous_plaintext_keys: bool = False,
    n: int = SCRYPT_N,
) -> None:
    """Write a new key file (0600), under the password, or in plaintext only where that is written out (R21)."""
    check_protection(password, dangerous_plaintext_keys)
    if password is None:
        write_secret(path, PlaintextKeysFile(dataset=keys.dataset, keys=keys.keys).canonical())
    else:
        locked = lock(b"".join(keys.keys), password, _PURPOSE + keys.dataset, n=n)
        write_secret(path, LockedKeysFile(dataset=keys.dataset, keys=locked).canonical())


def check_protection(password: Password | None, dangerous_plaintext_keys: bool) -> None:
    if (password is None) != dangerous_plaintext_keys:
        raise Refused(
            "keys.protection",
            "a key file is either under a password or plainly dangerous",
            hint="Give a password, or ask for dangerous_plaintext_keys and no password",
        )


def read_keys(path: Path, password: Password | None) -> DatasetKeys:
    """The keys of a file, of either kind. Refused `keys.password` where one is needed and none is given."""
    with naming(path):
        value = load(read_secret(path), canonical=False)
        if isinstance(value, dict) and value.get("format") == PlaintextKeysFile.model_fields["format"].default:
            plain = validate(PlaintextKeysFile, value)
            return DatasetKeys(plain.dataset, plain.keys)
        locked = validate(LockedKeysFile, value)
        if password is None:
            raise Refused("keys.password", f"{path} is under a password, and none was given")
        raw = unlock(locked.keys, password, _PURPOSE + locked.dataset)
    return DatasetKeys(locked.dataset, tuple(raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)))
