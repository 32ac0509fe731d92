"""What a node is told is kept until something of it changes, in whichever process."""

from collections.abc import Callable

import pytest
from sqlalchemy import event

from slapos.master.catalog import service as catalog
from slapos.master.database import Database
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.master.slap.node_view import NodeViews
from slapos.master.timestamp import from_timestamp, to_timestamp
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.protocol.states import BuildState, InstanceState
from tests.fakes import NOON, FakeClock
from tests.integration.master.factories import NODE, URL, Master

Change = Callable[[Master], object]

CHANGES: dict[str, Change] = {
    "a new instance": lambda master: master.request("new"),
    "other parameters": lambda master: master.request(parameters={"a": "b"}),
    "a new shared instance": lambda master: master.request("s", shared=True),
    "a bang": lambda master: provisioning.bang_node(master.session, master.clock, NODE),
    "a release": lambda master: catalog.supply(
        master.session, master.clock, node=NODE, url=URL, state="available"
    ),
    "a new partition": lambda master: master.format(5),
    "one partition less": lambda master: master.format(2),
    "a failure": lambda master: reports.report_error(
        master.session, master.clock, master.request(), "broken"
    ),
    "what is published": lambda master: provisioning.publish(
        master.session, master.clock, master.request(), {"a": "b"}
    ),
    "a title": lambda master: provisioning.rename(
        master.session, master.clock, master.request(), "other"
    ),
}


def change(database: Database, clock: FakeClock, what: Change) -> None:
    with database.writing.begin() as session:
        what(Master(session, clock))


def told(database: Database, views: NodeViews) -> bytes:
    with database.reading() as session:
        return views.document(session, NODE).content


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_is_told(database: Database, clock: FakeClock, what: str) -> None:
    change(database, clock, lambda master: master.format(3))
    change(database, clock, lambda master: master.request())
    views = NodeViews()
    before = told(database, views)
    change(database, clock, CHANGES[what])
    after = told(database, views)
    assert after != before
    assert after == told(database, NodeViews())


def test_what_is_undone_is_not_told(database: Database, clock: FakeClock) -> None:
    change(database, clock, lambda master: master.format(2))
    views = NodeViews()
    before = told(database, views)
    with database.writing() as session:
        Master(session, clock).request()
        session.rollback()
    assert told(database, views) is before


def test_an_unchanged_node_costs_one_query(database: Database, clock: FakeClock) -> None:
    change(database, clock, lambda master: master.format(20))
    change(database, clock, lambda master: master.request())
    views = NodeViews()
    before = told(database, views)
    statements: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            statements.append(statement)

    assert told(database, views) is before
    assert [text for text in statements if text.startswith("SELECT")] == statements[-1:]


def test_the_number_of_queries_does_not_grow_with_the_node(
    database: Database, clock: FakeClock
) -> None:
    counts = []
    for size in (5, 50):

        def grow(master: Master, size: int = size) -> None:
            master.format(size)
            for number in range(size):
                master.request(f"i{number}")
            master.request("s", shared=True)

        change(database, clock, grow)
        statements: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            if "pg_notify" not in statement:  # a thread of its own tells others
                statements.append(statement)  # noqa: B023 - it is taken off again below

        event.listen(database.engine, "before_cursor_execute", note)
        told(database, NodeViews())
        event.remove(database.engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_an_unknown_node_is_refused(database: Database) -> None:
    with database.reading() as session, pytest.raises(NotFound):
        NodeViews().document(session, "nobody")


def test_a_report_of_the_same_state_keeps_the_etag(database: Database, clock: FakeClock) -> None:
    def report(master: Master) -> None:
        instance = lookup.instance_on_partition(master.session, NODE, "slappart0")
        reports.report_state(master.session, clock, instance, InstanceState.STARTED)

    change(database, clock, lambda master: master.format(1))
    change(database, clock, lambda master: master.request())
    change(database, clock, report)
    views = NodeViews()
    with database.reading() as session:
        before = views.document(session, NODE).etag
    clock.advance(60)
    change(database, clock, report)
    with database.reading() as session:
        assert views.document(session, NODE).etag == before


def test_a_report_is_remembered_as_a_contact(database: Database, clock: FakeClock) -> None:
    def report(master: Master) -> None:
        catalog.supply(master.session, clock, node=NODE, url=URL, state="available")
        catalog.report(master.session, clock, node=NODE, url=URL, state=BuildState.BUILDING)

    change(database, clock, report)
    with database.reading() as session:
        assert nodes.find_node(session, NODE).contacted_at == clock.now()


def test_timestamps_come_back_as_they_went() -> None:
    clock = FakeClock()
    clock.advance(0.123456)
    assert from_timestamp(to_timestamp(clock.now())) == clock.now()
    assert to_timestamp(NOON) == "1772366400.000000"
    with pytest.raises(InvalidRequest, match="no timestamp"):
        from_timestamp("soon")
