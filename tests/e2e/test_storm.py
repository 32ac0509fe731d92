"""A hundred times `kill -9` at random moments of a run of orders: all comes right by itself."""

import os

import pytest

from tests.e2e.deployment import MASTER, NODE, deployed
from tests.e2e.storm import Storm

pytestmark = pytest.mark.e2e

#: `python -m bench storm` has more, and more seeds.
KILLS = 100
SEED = 20261122


def test_nothing_is_lost_doubled_or_restarted_without_need_in_a_storm() -> None:
    seed = int(os.environ.get("SLAPOS_TEST_SEED", SEED))
    with deployed(slapos={"poll_interval": "1"}) as deployment:
        storm = Storm(deployment, seed)
        storm.begin()
        storm.blow(KILLS)
        storm.calm()
        assert sum(storm.killed.values()) == KILLS, storm.killed
        assert len(storm.killed) == 6, storm.killed
        assert min(storm.killed.values()) >= KILLS / 20, storm.killed
        for which in (NODE, MASTER):
            assert "Traceback" not in deployment.log(which)
