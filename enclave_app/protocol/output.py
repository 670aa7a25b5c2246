"""Sealed outputs (R16, R17, R18): everything about one is derived from the task's keys and the padded plaintext."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from . import streaming
from .digests import commitment, hash_abi, sha256, tag
from .errors import Refused
from .manifest import File, Manifest
from .shamir import KEY_BYTES

PADDED_VERSION = 1
_LENGTH_BYTES = 8


class TaskSecret:
    """What all keys released for one task make together; a party that lacks one of them can predict nothing (R16).

    HKDF-SHA256 with salt = taskId over the concatenation of the keys, ordered by (dataset index, key index), and
    info = tag("task-secret") ‖ agreementId.
    """

    def __init__(self, keys: Sequence[bytes], agreement_id: bytes, task_id: bytes) -> None:
        # Of one length, so that their concatenation reads in one way only.
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise Refused("task.keys", "a task's secret takes at least one key, and keys of 32 bytes only")
        self.agreement_id, self.task_id = agreement_id, task_id
        self._secret = HKDF(SHA256(), 32, task_id, tag("task-secret") + agreement_id).derive(b"".join(keys))

    def derive(self, purpose: str, context: bytes = b"", length: int = 32) -> bytes:
        return HKDFExpand(SHA256(), length, tag(purpose) + context).derive(self._secret)


@dataclass(frozen=True)
class SealedOutput:
    """A sealed output: its manifest, ciphertext, padded length in bytes, key, and what splits that key."""

    manifest: Manifest
    ciphertext: bytearray
    length: int
    key: bytes
    coefficients: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        return self.manifest.id

    def __repr__(self) -> str:
        return f"SealedOutput({self.digest.hex()})"


@dataclass(frozen=True)
class PublicOutput:
    """An output without recipients: `content` goes into the settlement as it is, named by its plain SHA-256 (R17)."""

    content: bytes

    @property
    def digest(self) -> bytes:
        return sha256(self.content)

    @property
    def length(self) -> int:
        return len(self.content)


MadeOutput = SealedOutput | PublicOutput


def pad(plaintext: bytes, size_class: int) -> bytes:
    """1 ‖ length (8, big-endian) ‖ plaintext ‖ zeros, up to the next multiple of `size_class` bytes (R18)."""
    if size_class < 1:
        raise Refused("output.size_class", "an output has no size class")
    body = bytes([PADDED_VERSION]) + len(plaintext).to_bytes(_LENGTH_BYTES, "big") + plaintext
    return body + bytes(-len(body) % size_class)


def unpad(padded: bytes | bytearray) -> bytes:
    """The plaintext that `pad` padded (R18)."""
    start = 1 + _LENGTH_BYTES
    length = int.from_bytes(padded[1:start], "big")
    if (
        len(padded) < start
        or padded[0] != PADDED_VERSION
        or start + length > len(padded)
        or any(padded[start + length :])
    ):
        raise Refused("output.padding", "an output's padding is wrong")
    return bytes(padded[start : start + length])


def associated_data(agreement_id: bytes, task_id: bytes, name: str) -> bytes:
    return hash_abi("output", ["bytes32", "bytes32", "string"], [agreement_id, task_id, name])


def seal_output(secret: TaskSecret, name: str, plaintext: bytes, size_class: int, threshold: int) -> SealedOutput:
    """Seal one output. The key depends on the plaintext too, so that two plaintexts never share key and nonce (R16)."""
    padded = pad(plaintext, size_class)
    context = hash_abi("output-key-context", ["string", "bytes32"], [name, sha256(padded)])
    key = secret.derive("output-key", context)
    ciphertext = streaming.encrypt(
        key,
        padded,
        associated_data(secret.agreement_id, secret.task_id, name),
        salt=secret.derive("output-salt", context, streaming.SALT_BYTES),
        prefix=secret.derive("output-nonce-prefix", context, streaming.PREFIX_BYTES),
    )
    coefficients = tuple(secret.derive("output-coefficient", context + bytes([power])) for power in range(1, threshold))
    manifest = Manifest(
        encryption="tink-aes256-gcm-hkdf-1mb",
        lineage=hash_abi("output-lineage", ["bytes32", "string"], [secret.agreement_id, name]),
        files=(File(sha256=sha256(ciphertext), size=len(ciphertext), rows=0),),
        columns=(),
        keys=(commitment(key),),
    )
    return SealedOutput(manifest, ciphertext, len(padded), key, coefficients)


def open_output(
    manifest: Manifest, ciphertext: bytes, key: bytes, agreement_id: bytes, task_id: bytes, name: str
) -> bytes:
    """The plaintext of a sealed output, checked against its manifest (R11, R17)."""
    if manifest.encryption != "tink-aes256-gcm-hkdf-1mb":
        raise Refused("output.encryption", "an output is sealed in another way", found=manifest.encryption)
    if sha256(ciphertext) != manifest.files[0].sha256 or commitment(key) != manifest.keys[0]:
        raise Refused("output.digest", "an output's ciphertext or key is not the one its manifest names")
    return unpad(streaming.decrypt(key, ciphertext, associated_data(agreement_id, task_id, name)))
