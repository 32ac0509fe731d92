"""A machine for the tests of a module, once as an ordinary user and, where we are root, as root."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.machine import Machine

WHO = [
    "ordinary user",
    pytest.param(
        "root",
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can run partitions as users"),
    ),
]


@pytest.fixture(scope="module", params=WHO)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine.make(as_root=request.param == "root")
    failed_before = request.session.testsfailed
    try:
        made.start()
        yield made
    finally:
        if request.session.testsfailed > failed_before:
            print(made.logs())
        made.remove()
