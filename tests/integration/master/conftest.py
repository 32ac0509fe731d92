"""What tests of the master may ask for."""

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from slapos.master.settings import Settings
from tests.fakes import FakeClock
from tests.integration.master.factories import Master
from tests.integration.master.people import People


@pytest.fixture
def master(session: Session, clock: FakeClock) -> Master:
    """A master with one writing session, and a clock that stands still."""
    return Master(session, clock)


@pytest.fixture
def people(settings: Settings, clock: FakeClock) -> Iterator[People]:
    """A full master in which nobody is yet."""
    people = People(settings, clock)
    yield people
    people.close()
