"""What the tests of isolation share."""

from collections.abc import Iterator

import pytest

from tests.integration.node.isolate.groups import remove_groups
from tests.integration.node.world import World


@pytest.fixture
def limited(world: World) -> Iterator[World]:
    """A world that leaves no cgroup behind."""
    yield world
    remove_groups(world)
