"""What the tests of supervision share."""

from collections.abc import Iterator

import pytest

from tests.integration.node.supervise.supervised import Partitions, running_supervisor


@pytest.fixture
def partitions() -> Iterator[Partitions]:
    with running_supervisor() as made:
        yield made
