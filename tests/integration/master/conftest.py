"""What tests of the master may ask for."""

import pytest
from sqlalchemy.orm import Session

from tests.fakes import FakeClock
from tests.integration.master.factories import Master


@pytest.fixture
def master(session: Session, clock: FakeClock) -> Master:
    """A master with one writing session, and a clock that stands still."""
    return Master(session, clock)
