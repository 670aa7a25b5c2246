"""Rate limits: what a bucket gives, whose tokens are used, and that nobody starves others."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oracle.keybroker.config import RateLimits
from oracle.keybroker.limits import TABLE, Bucket, Limiter, Table, TooMany, network_of

STEPS = st.lists(st.tuples(st.floats(0, 10), st.sampled_from(["a", "b", "c"])), max_size=60)
RATES = st.tuples(st.floats(0.1, 20), st.integers(1, 20))


def limiter(now: list[float], **limits: float) -> Limiter:
    return Limiter(RateLimits.model_validate(limits), lambda: now[0])


@given(rate=RATES, steps=STEPS)
def test_a_bucket_gives_its_burst_and_its_rate_and_no_more(
    rate: tuple[float, int], steps: list[tuple[float, str]]
) -> None:
    per_second, burst = rate
    bucket, now, given_out = Bucket(per_second, burst, 0.0), 0.0, 0
    for pause, _ in steps:
        now += pause
        if not bucket.wait(now):
            bucket.take()
            given_out += 1
        assert given_out <= burst + per_second * now + 1e-6


@given(rate=RATES, steps=STEPS)
def test_who_waits_as_long_as_it_is_told_is_taken(rate: tuple[float, int], steps: list[tuple[float, str]]) -> None:
    now = [0.0]
    own = limiter(now, per_client=rate[0], per_client_burst=rate[1], overall=1000, overall_burst=1000)
    for _, client in steps:
        try:
            own.check(client)
        except TooMany as refusal:
            now[0] += refusal.seconds
            own.check(client)


@example(greedy=["greedy", "greedy too", "greedy three"] * 20)
@given(greedy=st.lists(st.sampled_from(["greedy", "greedy too", "greedy three"]), max_size=100))
def test_a_network_that_asks_little_is_not_starved_by_some_that_ask_much(greedy: list[str]) -> None:
    now = [0.0]
    own = limiter(now, per_client=10, per_client_burst=10, overall=24, overall_burst=24)
    for second in range(5):
        for client in greedy:
            with suppress(TooMany):
                own.check(client)
        own.check("modest")
        now[0] = second + 1.0


def test_an_ipv6_network_of_64_bits_is_one_client() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:0:0:1") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert len(network_of("x" * 1000)) == 64


def test_owners_give_a_token_each_or_none() -> None:
    own = limiter([0.0], per_owner=1, per_owner_burst=2)
    own.owners(["one"], "release")
    own.owners(["one", "two", "two"], "release")
    with pytest.raises(TooMany) as caught:
        own.owners(["one", "two"], "release")
    assert (caught.value.code, caught.value.by) == ("broker.rate", "owner")
    own.owners(["two"], "release")  # the refused one took nothing of it
    own.owners(["one"], "output")


def test_platforms_have_limits_of_their_own() -> None:
    own = limiter([0.0], per_platform=1, per_platform_burst=1)
    own.platform(bytes(32))
    with pytest.raises(TooMany):
        own.platform(bytes(32))
    own.platform(bytes([1]) * 32)


def test_tables_are_bounded() -> None:
    table = Table(1, 1)
    for number in range(TABLE + 10):
        table.bucket(str(number), 0.0)
    assert len(table) == TABLE


def test_new_limits_count_at_once() -> None:
    own = limiter([0.0], per_client=1, per_client_burst=1)
    own.check("a")
    own.set(RateLimits(per_client=1, per_client_burst=3))
    for _ in range(3):
        own.check("a")
    with pytest.raises(TooMany):
        own.check("a")
