"""Buckets of tokens."""

import pytest

from slapos.master.settings import Rate
from slapos.master.traffic import limits
from slapos.master.traffic.limits import UNLIMITED, Buckets, neighbourhood, share_of
from slapos.protocol.errors import TooManyRequests
from tests.fakes import FakeClock


def taken(buckets: Buckets, name: str, count: int) -> int:
    done = 0
    for _ in range(count):
        try:
            buckets.take(name)
        except TooManyRequests:
            continue
        done += 1
    return done


def test_a_bucket_gives_what_is_in_it_and_fills_again() -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(10, 20), clock)
    assert taken(buckets, "a", 30) == 20
    clock.advance(1)
    assert taken(buckets, "a", 30) == 10
    clock.advance(100)
    assert taken(buckets, "a", 30) == 20


def test_one_is_told_to_come_when_there_is_something() -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(0.1, 1), clock)
    buckets.take("a")
    with pytest.raises(TooManyRequests) as refused:
        buckets.take("a")
    clock.advance(refused.value.seconds)
    buckets.take("a")


def test_buckets_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUCKETS", 2)
    buckets = Buckets(Rate(1, 1), FakeClock())
    for name in ("a", "b", "a", "c"):
        taken(buckets, name, 1)
    assert taken(buckets, "a", 1) == 0
    assert taken(buckets, "b", 1) == 1  # it was not used longest


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("unix", "unix"),
    ],
)
def test_an_address_counts_by_whom_it_was_given_to(address: str, counted: str) -> None:
    assert neighbourhood(address) == counted


def test_web_processes_share_a_rate() -> None:
    assert share_of(Rate(100, 1000), 4) == Rate(25, 250)
    assert share_of(Rate(1, 2), 4).burst == 1
    assert share_of(None, 4) == UNLIMITED
