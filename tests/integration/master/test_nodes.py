"""Nodes: made, shown, changed, removed; by whom."""

import pytest
from sqlalchemy.orm import Session

from slapos.master.identity.model import LOCAL_TENANT
from slapos.master.nodes import service
from slapos.protocol.errors import InvalidRequest
from tests.fakes import FakeClock


def test_a_new_node_has_a_reference_of_its_own(session: Session, clock: FakeClock) -> None:
    one, other = (
        service.create(session, clock, LOCAL_TENANT.project_id, title) for title in ("one", "other")
    )
    assert one.reference.startswith("COMP-")
    assert one.reference != other.reference
    assert service.find_node(session, one.reference) is one
    assert (one.title, one.allocation_scope, one.contacted_at) == ("one", "open", None)


def test_a_new_node_has_a_title(session: Session, clock: FakeClock) -> None:
    with pytest.raises(InvalidRequest, match="title of a node is empty"):
        service.create(session, clock, LOCAL_TENANT.project_id, "")
