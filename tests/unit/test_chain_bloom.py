"""A logs bloom: a log that is there is never missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oracle.chain.bloom import BYTES, Wanted, bits_of

ADDRESSES = st.binary(min_size=20, max_size=20)
TOPICS = st.binary(min_size=32, max_size=32)


def bloom(*values: bytes) -> bytes:
    held = 0
    for value in values:
        held |= bits_of(value)
    return held.to_bytes(BYTES, "big")


@given(address=ADDRESSES, topic=TOPICS, others=st.lists(TOPICS, max_size=20))
def test_a_log_that_is_there_is_never_missed(address: bytes, topic: bytes, others: list[bytes]) -> None:
    assert Wanted(["0x" + address.hex()], [topic]).may_be_in(bloom(address, topic, *others))


@given(address=ADDRESSES, topic=TOPICS)
def test_an_empty_block_holds_nothing(address: bytes, topic: bytes) -> None:
    assert not Wanted(["0x" + address.hex()], [topic]).may_be_in(bytes(BYTES))


def test_both_an_address_and_a_topic_have_to_be_there() -> None:
    address, topic = bytes([1]) * 20, bytes([2]) * 32
    wanted = Wanted(["0x" + address.hex()], [topic])
    assert not wanted.may_be_in(bloom(address))
    assert not wanted.may_be_in(bloom(topic))
