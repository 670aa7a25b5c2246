"""The order of workers: the same for all who see the same, and fair."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from oracle.worker.rendezvous import MOST, order, place

WORDS = st.binary(min_size=32, max_size=32)
CONTENDERS = st.lists(st.binary(min_size=20, max_size=20), min_size=1, max_size=40, unique=True)


@given(WORDS, WORDS, CONTENDERS, st.randoms(use_true_random=False))
def test_everyone_finds_the_same_order_whatever_order_the_registry_was_read_in(
    task: bytes, block: bytes, contenders: list[bytes], random: Random
) -> None:
    shuffled = list(contenders)
    random.shuffle(shuffled)
    assert order(task, block, contenders) == order(task, block, [*shuffled, shuffled[0]])


@given(WORDS, WORDS, CONTENDERS)
def test_each_contender_has_a_place_of_its_own_up_to_the_last(
    task: bytes, block: bytes, contenders: list[bytes]
) -> None:
    places = sorted(place(task, block, contenders, each) for each in contenders)
    assert places == [min(number, MOST) for number in range(len(contenders))]


@given(WORDS, WORDS, CONTENDERS, st.binary(min_size=20, max_size=20))
def test_one_more_contender_changes_the_order_of_no_others(
    task: bytes, block: bytes, contenders: list[bytes], newcomer: bytes
) -> None:
    after = order(task, block, [*contenders, newcomer])
    assert tuple(each for each in after if each in contenders) == order(task, block, contenders)


@given(WORDS, WORDS, CONTENDERS)
def test_who_is_not_among_them_comes_after_all(task: bytes, block: bytes, contenders: list[bytes]) -> None:
    assert place(task, block, contenders, b"nobody") == min(len(contenders), MOST)


def test_each_of_five_comes_first_equally_often_and_so_does_each_come_last() -> None:
    five = [bytes([number]) * 20 for number in range(5)]
    orders = [order(number.to_bytes(32, "big"), b"\x07" * 32, five) for number in range(5000)]
    for at in (0, 4):
        counts = Counter(found[at] for found in orders)
        # 1,000 expected each; six standard deviations of a binomial are 170.
        assert all(830 < counts[each] < 1170 for each in five)


@given(WORDS, st.lists(WORDS, min_size=20, max_size=20, unique=True))
def test_the_block_decides_too_so_that_a_requester_cannot_choose_by_a_nonce(task: bytes, blocks: list[bytes]) -> None:
    ten = [bytes([number]) * 20 for number in range(10)]
    assert len({order(task, block, ten)[0] for block in blocks}) > 1
