"""A machine for the tests of a module, once as an ordinary user and, where we are root, as root."""

import os
from collections.abc import Generator, Iterator
from typing import Any

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
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """Show the machine's logs with a test that failed."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and machine is not None:
        report.sections.append(("logs of the machine", machine.logs()))
    return report
