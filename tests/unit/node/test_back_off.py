"""Waiting longer each time, and not in step with others."""

from slapos.node.report.back_off import BackOff
from tests.fakes import FakeIdentifiers


class Chance(FakeIdentifiers):
    """As told."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self._fraction = fraction

    def fraction(self) -> float:
        return self._fraction


def test_each_wait_is_twice_as_long_until_the_longest() -> None:
    back_off = BackOff(Chance(1.0), first=1.0, longest=5.0)
    assert [back_off.failed() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_success_begins_anew() -> None:
    back_off = BackOff(Chance(1.0))
    waits = [back_off.failed(), back_off.failed()]
    back_off.succeeded()
    assert [*waits, back_off.failed()] == [1.0, 2.0, 1.0]


def test_half_of_each_wait_is_chance() -> None:
    waits = [BackOff(Chance(fraction)).failed() for fraction in (0.0, 0.5)]
    assert waits == [0.5, 0.75]


def test_after_a_month_of_failures_it_still_counts() -> None:
    back_off = BackOff(Chance(0.0))
    assert {back_off.failed() for _ in range(5000)} <= {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0}
