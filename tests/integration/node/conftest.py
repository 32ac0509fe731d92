"""What the tests of the node share."""

from collections.abc import Iterator

import pytest

from tests.integration.node.world import World, new_world


@pytest.fixture
def world() -> Iterator[World]:
    with new_world() as made:
        yield made
