"""When a node is there, late or lost; when so many are gone that nothing is done."""

from datetime import timedelta

import pytest

from slapos.master.monitoring.losses import is_meltdown
from slapos.master.nodes.contact import contact_status
from tests.fakes import NOON

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("silence", "waits", "status"),
    [
        (0, True, "online"),
        (30, True, "online"),
        (31, True, "late"),
        (60, True, "late"),
        (61, True, "lost"),
        (61, False, "online"),
        (151, False, "late"),
        (301, False, "lost"),
        (-3600, True, "online"),
    ],
)
def test_status_goes_by_silence(silence: int, waits: bool, status: str) -> None:
    heard = NOON - timedelta(seconds=silence)
    assert contact_status(heard, NOON, MINUTE, waits=waits) == status


def test_a_node_that_was_never_heard_has_no_status() -> None:
    assert contact_status(None, NOON, MINUTE, waits=True) is None


@pytest.mark.parametrize(
    ("vanished", "fleet", "told"),
    [
        (1, 1, False),
        (5, 5, False),
        (6, 6, True),
        (6, 30, False),
        (7, 30, True),
        (1220, 6100, False),
        (1221, 6100, True),
    ],
)
def test_more_than_five_and_a_fifth_are_a_meltdown(vanished: int, fleet: int, told: bool) -> None:
    assert is_meltdown(vanished, fleet) is told
