"""What is written is read again; what is changed is not."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enclave_app.protocol import canonical, release, shamir, streaming
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.output import TaskSecret, open_output, pad, seal_output, unpad
from enclave_app.protocol.signing import SigningKey, recover

lean = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
words = st.binary(min_size=32, max_size=32)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-canonical.MAX_SAFE_INTEGER, canonical.MAX_SAFE_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


@lean
@given(json_values)
def test_canonical_json(value: object) -> None:
    data = canonical.dump(value)
    assert canonical.load(data) == value
    assert data.isascii()
    assert canonical.dump(canonical.load(data)) == data


@lean
@given(words, st.data())
def test_any_threshold_of_shares_recovers_and_one_less_does_not(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    threshold = data.draw(st.integers(2, count))
    coefficients = data.draw(st.lists(words, min_size=threshold - 1, max_size=threshold - 1))
    made = dict(enumerate(shamir.split(secret, threshold, count, coefficients), start=1))
    for chosen in combinations(made, threshold):
        assert shamir.combine({x: made[x] for x in chosen}) == secret
    # With one share less, every secret is possible: some last share completes the others to a chosen other secret.
    fewer = dict(list(made.items())[: threshold - 1])
    other = data.draw(words.filter(lambda w: w != secret))
    assert _completed(fewer, other, x=count) == other


def _completed(fewer: dict[int, bytes], secret: bytes, x: int) -> bytes:
    """The secret of `fewer` with one more share at x, chosen byte by byte to make it `secret`."""
    guesses = [shamir.combine({**fewer, x: bytes([guess]) * 32}) for guess in range(256)]
    share = bytes(next(g for g in range(256) if guesses[g][i] == secret[i]) for i in range(32))
    return shamir.combine({**fewer, x: share})


@settings(lean, max_examples=25)
@given(words, st.binary(max_size=300), st.binary(max_size=20), words, st.binary(min_size=7, max_size=7))
def test_streaming(key: bytes, plaintext: bytes, associated: bytes, salt: bytes, prefix: bytes) -> None:
    ciphertext = streaming.encrypt(key, plaintext, associated, salt=salt, prefix=prefix)
    assert len(ciphertext) == streaming.encrypted_length(len(plaintext))
    assert streaming.decrypt(key, ciphertext, associated) == plaintext


SALT = bytes(32)
LONG = bytes(
    streaming.encrypt(bytes(32), bytes(streaming.SEGMENT + 100), b"", salt=SALT, prefix=bytes(streaming.PREFIX_BYTES))
)
BORDERS = [0, 1, 33, streaming.HEADER, streaming.SEGMENT, len(LONG) - 1]


@settings(lean, max_examples=25)
@given(st.sampled_from(BORDERS) | st.integers(0, len(LONG) - 1), st.integers(1, 255))
def test_one_changed_byte_of_a_stream_is_refused(position: int, change: int) -> None:
    changed = bytearray(LONG)
    changed[position] ^= change
    with pytest.raises(Refused) as caught:
        streaming.decrypt(bytes(32), changed, b"")
    assert caught.value.code in ("stream.tampered", "stream.header")


@settings(lean, max_examples=25)
@given(st.sampled_from(BORDERS) | st.integers(0, len(LONG) - 1))
def test_a_cut_stream_is_refused(length: int) -> None:
    with pytest.raises(Refused):
        streaming.decrypt(bytes(32), LONG[:length], b"")


@lean
@given(st.binary(max_size=100), st.integers(1, 200))
def test_padding(plaintext: bytes, size_class: int) -> None:
    padded = pad(plaintext, size_class)
    assert len(padded) % size_class == 0
    assert len(padded) < len(plaintext) + 9 + size_class
    assert unpad(padded) == plaintext


@lean
@given(
    st.integers(0, 255),
    st.dictionaries(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)), words, max_size=5),
)
def test_packed_answers(x: int, shares: dict[tuple[int, int], bytes]) -> None:
    assert release.unpack_answer(release.pack_answer(x, shares)) == (x, shares)


@settings(lean, max_examples=20)
@given(words, st.binary(max_size=100), st.binary(max_size=64))
def test_hpke(seed: bytes, plaintext: bytes, info: bytes) -> None:
    key = SealingKey(seed)
    message = key.public.seal(plaintext, info)
    assert key.open(message, info) == plaintext
    with pytest.raises(Refused):
        key.open(message, info + b"\0")


@settings(lean, max_examples=20)
@given(words.filter(any), words)
def test_signatures(secret: bytes, digest: bytes) -> None:
    try:
        key = SigningKey(secret)
    except Refused:
        return
    assert recover(digest, key.sign(digest)) == key.address


@settings(lean, max_examples=25)
@given(st.lists(words, min_size=1, max_size=4), st.binary(max_size=100), st.integers(1, 100), st.integers(1, 5))
def test_sealed_outputs_are_a_pure_function(keys: list[bytes], plaintext: bytes, size: int, threshold: int) -> None:
    agreement, task = bytes([1]) * 32, bytes([2]) * 32
    first, again = (seal_output(TaskSecret(keys, agreement, task), "out", plaintext, size, threshold) for _ in range(2))
    assert first == again
    assert len(first.coefficients) == threshold - 1
    opened = open_output(first.manifest, bytes(first.ciphertext), first.key, agreement, task, "out")
    assert opened == plaintext
