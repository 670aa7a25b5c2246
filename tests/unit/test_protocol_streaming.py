"""The file format against Google's own Tink, both ways, around every segment border."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2

from enclave_app.protocol import streaming
from enclave_app.protocol.errors import Refused

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "streaming.json").read_text("utf-8"))["cases"]
FIRST = streaming.SEGMENT - streaming.HEADER - streaming.TAG
LATER = streaming.SEGMENT - streaming.TAG
LENGTHS = [0, 1, FIRST - 1, FIRST, FIRST + 1, FIRST + LATER, FIRST + LATER + 1]
KEY, SALT, PREFIX = bytes(range(32)), bytes(range(32, 64)), bytes(range(7))

streaming_aead.register()


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def plaintext_of(seed: str, length: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(length)


def tinks(key: bytes) -> streaming_aead.StreamingAead:
    """Tink's primitive over a raw key: a keyset of one, in its JSON form."""
    value = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=key)
    value.params.ciphertext_segment_size = streaming.SEGMENT
    value.params.derived_key_size = 32
    value.params.hkdf_hash_type = common_pb2.SHA256
    data = {
        "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        "value": base64.b64encode(value.SerializeToString()).decode(),
        "keyMaterialType": "SYMMETRIC",
    }
    entry = {"keyData": data, "status": "ENABLED", "keyId": 1, "outputPrefixType": "RAW"}
    keyset = json.dumps({"primaryKeyId": 1, "key": [entry]})
    return tink.json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)


class Kept(io.BytesIO):
    """Keeps what was written when Tink closes it."""

    def close(self) -> None:
        if not self.closed:
            self.kept = self.getvalue()
        super().close()


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["plaintextShake256"])
def test_vector(case: dict[str, Any]) -> None:
    plaintext = plaintext_of(case["plaintextShake256"], case["length"])
    associated = raw(case["associatedData"])
    ciphertext = streaming.encrypt(
        raw(case["key"]), plaintext, associated, salt=raw(case["salt"]), prefix=raw(case["prefix"])
    )
    assert len(ciphertext) == case["ciphertextLength"] == streaming.encrypted_length(case["length"])
    assert hashlib.sha256(ciphertext).digest() == raw(case["ciphertextSha256"])
    if case["ciphertext"] is not None:
        assert ciphertext == raw(case["ciphertext"])
    assert streaming.decrypt(raw(case["key"]), ciphertext, associated) == plaintext


@pytest.mark.parametrize("length", LENGTHS)
def test_tink_reads_what_we_write(length: int) -> None:
    plaintext = plaintext_of("ours", length)
    ciphertext = streaming.encrypt(KEY, plaintext, b"associated", salt=SALT, prefix=PREFIX)
    with tinks(KEY).new_decrypting_stream(io.BytesIO(bytes(ciphertext)), b"associated") as stream:
        assert stream.read() == plaintext


@pytest.mark.parametrize("length", LENGTHS)
def test_we_read_what_tink_writes(length: int) -> None:
    plaintext, sink = plaintext_of("theirs", length), Kept()
    with tinks(KEY).new_encrypting_stream(sink, b"associated") as stream:
        stream.write(plaintext)
    assert len(sink.kept) == streaming.encrypted_length(length)
    assert streaming.decrypt(KEY, sink.kept, b"associated") == plaintext


CIPHERTEXT = bytes(streaming.encrypt(KEY, bytes(FIRST + LATER + 10), b"associated", salt=SALT, prefix=PREFIX))
SECOND, THIRD = streaming.SEGMENT, 2 * streaming.SEGMENT


def flipped(position: int) -> bytes:
    data = bytearray(CIPHERTEXT)
    data[position] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("ciphertext", "code"),
    [
        (b"", "stream.header"),
        (CIPHERTEXT[: streaming.HEADER + streaming.TAG - 1], "stream.header"),
        (flipped(0), "stream.header"),
        (flipped(1), "stream.tampered"),
        (flipped(33), "stream.tampered"),
        (flipped(streaming.HEADER), "stream.tampered"),
        (flipped(SECOND), "stream.tampered"),
        (flipped(len(CIPHERTEXT) - 1), "stream.tampered"),
        (CIPHERTEXT + b"\0", "stream.tampered"),
        (CIPHERTEXT[:-1], "stream.tampered"),
        (CIPHERTEXT[:THIRD], "stream.tampered"),
        (CIPHERTEXT[: THIRD + streaming.TAG - 1], "stream.truncated"),
        (CIPHERTEXT[:SECOND] + CIPHERTEXT[THIRD:], "stream.tampered"),
        (CIPHERTEXT + CIPHERTEXT[SECOND:], "stream.tampered"),
    ],
)
def test_what_was_changed_cut_or_moved_is_refused(ciphertext: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        streaming.decrypt(KEY, ciphertext, b"associated")
    assert caught.value.code == code


def test_another_key_or_associated_data_is_refused() -> None:
    for key, associated in ((bytes(32), b"associated"), (KEY, b"other")):
        with pytest.raises(Refused) as caught:
            streaming.decrypt(key, CIPHERTEXT, associated)
        assert caught.value.code == "stream.tampered"


@pytest.mark.parametrize(("key", "salt", "prefix"), [(31, 32, 7), (32, 31, 7), (32, 32, 8)])
def test_lengths_of_key_salt_and_prefix_are_checked(key: int, salt: int, prefix: int) -> None:
    with pytest.raises(Refused) as caught:
        streaming.encrypt(bytes(key), b"", b"", salt=bytes(salt), prefix=bytes(prefix))
    assert caught.value.code == "stream.key"
