"""Tink's streaming AEAD AES256-GCM-HKDF-1MB, on `cryptography`'s in-place calls.

Source: https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming. Header: 40 ‖ salt (32) ‖ nonce prefix (7).
Segment key = HKDF-SHA256(key, salt, info = associated data, 32 bytes). Segment i is AES-256-GCM with nonce prefix ‖ i (4,
big-endian) ‖ 1 if it is the last, else 0; ciphertext segments are 1 MiB, the first one shorter by the header.

Tink draws salt and prefix at random; here the caller passes them, because R16 derives them.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import Refused

SEGMENT = 1 << 20
TAG = 16
SALT_BYTES = 32
PREFIX_BYTES = 7
HEADER = 1 + SALT_BYTES + PREFIX_BYTES


def encrypted_length(plaintext_length: int) -> int:
    first = SEGMENT - HEADER - TAG
    segments = 1 + max(0, -(-(plaintext_length - first) // (SEGMENT - TAG)))
    return HEADER + plaintext_length + segments * TAG


def encrypt(key: bytes, plaintext: bytes | memoryview, associated: bytes, *, salt: bytes, prefix: bytes) -> bytearray:
    """The whole Tink ciphertext, header first. Reusing (key, salt, prefix) for another plaintext breaks AES-GCM."""
    if len(key) != 32 or len(salt) != SALT_BYTES or len(prefix) != PREFIX_BYTES:
        raise Refused("stream.key", "a streaming key, salt or prefix has the wrong length")
    cipher = AESGCM(_segment_key(key, salt, associated))
    data = memoryview(plaintext)
    out = bytearray(encrypted_length(len(data)))
    out[:HEADER] = bytes([HEADER]) + salt + prefix
    view, read, written, index = memoryview(out), 0, HEADER, 0
    while True:
        take = SEGMENT - TAG - (HEADER if index == 0 else 0)
        chunk = data[read : read + take]
        read += len(chunk)
        last = read == len(data)
        cipher.encrypt_into(_nonce(prefix, index, last), chunk, None, view[written : written + len(chunk) + TAG])
        written += len(chunk) + TAG
        index += 1
        if last:
            return out


def decrypt(key: bytes, ciphertext: bytes | bytearray | memoryview, associated: bytes) -> bytearray:
    """The plaintext; any change, cut or addition is refused."""
    data = memoryview(ciphertext)
    if len(key) != 32:
        raise Refused("stream.key", "a streaming key has the wrong length")
    if len(data) < HEADER + TAG or data[0] != HEADER:
        raise Refused("stream.header", "not an AES256-GCM-HKDF-1MB ciphertext")
    salt, prefix = bytes(data[1 : 1 + SALT_BYTES]), bytes(data[1 + SALT_BYTES : HEADER])
    cipher = AESGCM(_segment_key(key, salt, associated))
    body = data[HEADER:]
    segments = 1 + max(0, -(-(len(body) - (SEGMENT - HEADER)) // SEGMENT))
    rest = len(body) if segments == 1 else (len(body) - (SEGMENT - HEADER) - 1) % SEGMENT + 1
    if rest < TAG:
        raise Refused("stream.truncated", "a ciphertext is cut short", found=f"{rest} bytes in the last segment")
    out = bytearray(len(body) - segments * TAG)
    view, read, written = memoryview(out), 0, 0
    for index in range(segments):
        take = min(SEGMENT - (HEADER if index == 0 else 0), len(body) - read)
        last = index == segments - 1
        try:
            cipher.decrypt_into(
                _nonce(prefix, index, last), body[read : read + take], None, view[written : written + take - TAG]
            )
        except InvalidTag:
            raise Refused(
                "stream.tampered", "a ciphertext was changed, or belongs elsewhere", found=f"segment {index}"
            ) from None
        read, written = read + take, written + take - TAG
    return out


def _segment_key(key: bytes, salt: bytes, associated: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, associated).derive(key)


def _nonce(prefix: bytes, index: int, last: bool) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes([last])
