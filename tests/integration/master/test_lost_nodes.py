"""Nodes that are silent: noticed once, given up once, and not when many vanish together."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from slapos.master.app import create_app
from slapos.master.identity.caller import Role
from slapos.master.monitoring.losses import REALLOCATE, is_lost
from slapos.master.monitoring.tasks import TASKS
from slapos.master.nodes.exchange import heard_from
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.model import TaskMark
from slapos.master.tasks.task import Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.full import World, by_header

(WATCH,) = (task for task in TASKS if task.name == "watch_nodes")


class Watched:
    """A master that looks every 15 seconds, and what it makes of nodes that wait on the feed."""

    def __init__(self, world: World, clock: FakeClock) -> None:
        self.world, self.clock = world, clock
        with world.session() as session:
            world.person(session, 40, (None, Role.ADMINISTRATOR))
            session.commit()
        self.silent: set[str] = set()

    def add(self, count: int) -> list[str]:
        """Add nodes, and return all there are."""
        with self.world.session() as session:
            for number in range(3, 3 + count):
                self.world.node(session, number, project=1)
            session.commit()
            return list(session.scalars(select(ComputeNode.reference)))

    def hear(self, waits: bool = True) -> None:
        """Have all nodes heard but those that are silent."""
        with self.world.session() as session:
            heard = select(ComputeNode.id).where(ComputeNode.reference.not_in(self.silent))
            session.execute(
                update(NodeExchange)
                .where(NodeExchange.node_id.in_(heard))
                .values(contacted_at=self.clock.now(), waits=waits)
            )
            session.commit()

    def look(self) -> None:
        parts = self.world.parts
        with self.world.session() as session:
            WATCH.run(
                Turn(
                    session=session,
                    clock=self.clock,
                    identifiers=parts.identifiers,
                    settings=parts.settings,
                    policy=parts.policy,
                )
            )
            session.commit()

    def watch(self, seconds: float, waits: bool = True) -> None:
        """Let time pass, with a look every 15 seconds."""
        for _ in range(int(seconds // 15)):
            self.clock.advance(15)
            self.hear(waits)
            self.look()

    def given_up(self) -> list[str]:
        """Return the nodes that are to be reallocated, and forget that they are."""
        with self.world.session() as session:
            marks = session.scalars(select(TaskMark).where(TaskMark.name == REALLOCATE)).all()
            for mark in marks:
                session.delete(mark)
            session.commit()
            return sorted(mark.key for mark in marks)


@pytest.fixture
def watched(settings: Settings, clock: FakeClock) -> Iterator[Watched]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    watched = Watched(World(app), clock)
    watched.watch(120)
    yield watched
    app.extensions["slapos"].database.close()


def lost(session: Session, reference: str) -> bool:
    node = session.scalar(select(ComputeNode).where(ComputeNode.reference == reference))
    return node is not None and is_lost(session, node.id)


def test_a_silent_node_is_given_up_once(watched: Watched) -> None:
    watched.silent = {"COMP-2"}
    watched.watch(60)
    assert watched.given_up() == []
    watched.watch(15)
    assert watched.given_up() == ["COMP-2"]
    watched.watch(600)
    assert watched.given_up() == []
    with watched.world.session() as session:
        assert lost(session, "COMP-2")
        assert not lost(session, "COMP-1")


def test_a_node_that_is_back_may_be_lost_again(watched: Watched) -> None:
    watched.silent = {"COMP-2"}
    watched.watch(90)
    assert watched.given_up() == ["COMP-2"]
    watched.silent = set()
    watched.watch(15)
    with watched.world.session() as session:
        assert not lost(session, "COMP-2")
    watched.silent = {"COMP-2"}
    watched.watch(90)
    assert watched.given_up() == ["COMP-2"]


def test_who_waits_for_a_place_is_looked_at_when_a_node_is_heard_again(watched: Watched) -> None:
    watched.silent = {"COMP-2"}
    watched.watch(90)
    watched.silent = {"COMP-1", "COMP-2"}
    with watched.world.session() as session:
        found = {n.reference: n.id for n in session.scalars(select(ComputeNode))}
        heard_from(session, found["COMP-1"], watched.clock.now())
        session.commit()
        assert sensed(session, WATCH.name) == []  # it was there: nothing more is written
        heard_from(session, found["COMP-2"], watched.clock.now())
        session.commit()
        assert sensed(session, WATCH.name) == [""]
    watched.look()
    with watched.world.session() as session:
        assert not lost(session, "COMP-2")
        assert sensed(session, ALLOCATE_INSTANCES) == [f"node:{found['COMP-2']}"]


def test_a_closed_node_that_is_back_has_nobody_looked_at(watched: Watched) -> None:
    asked = {"allocation_scope": "close/noallocation"}
    answer = watched.world.as_("P-22").patch("/v1/nodes/COMP-2", json=asked)
    assert answer.status_code < 300, answer.text
    watched.silent = {"COMP-2"}
    watched.watch(90)
    watched.silent = set()
    watched.watch(15)
    with watched.world.session() as session:
        assert sensed(session, ALLOCATE_INSTANCES) == []
    asked = {"allocation_scope": "open"}
    assert watched.world.as_("P-22").patch("/v1/nodes/COMP-2", json=asked).status_code < 300
    with watched.world.session() as session:  # reopened, it may take some at once
        assert len(sensed(session, ALLOCATE_INSTANCES)) == 1


def sensed(session: Session, name: str) -> list[str]:
    return sorted(set(session.scalars(select(TaskMark.key).where(TaskMark.name == name))))


def test_one_that_only_asks_now_and_then_has_longer(watched: Watched) -> None:
    watched.watch(15, waits=False)
    watched.silent = {"COMP-2"}
    watched.watch(300)
    assert watched.given_up() == []
    watched.watch(15)
    assert watched.given_up() == ["COMP-2"]


def test_time_without_a_master_counts_for_nobody(watched: Watched) -> None:
    watched.silent = {"COMP-1", "COMP-2"}
    watched.clock.advance(86400)
    watched.look()
    watched.watch(45)
    watched.silent = {"COMP-2"}
    watched.watch(30)
    assert watched.given_up() == ["COMP-2"]


@pytest.mark.parametrize("step", [timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_steps_loses_nobody_who_is_heard(watched: Watched, step: timedelta) -> None:
    watched.clock.advance(step.total_seconds())
    watched.look()
    watched.watch(120)
    assert watched.given_up() == []
    watched.silent = {"COMP-2"}
    watched.watch(75)
    assert watched.given_up() == ["COMP-2"]


def test_one_that_was_heard_by_a_clock_that_was_ahead_is_lost_too(watched: Watched) -> None:
    watched.silent = {"COMP-2"}
    watched.clock.advance(-86400)
    watched.look()
    watched.watch(90)
    assert watched.given_up() == ["COMP-2"]


def test_many_that_vanish_together_are_held_back(watched: Watched) -> None:
    references = watched.add(18)
    watched.watch(15)
    gone = set(references[:6])
    watched.silent = set(gone)
    watched.watch(1800)
    assert watched.given_up() == []
    admin = watched.world.as_("P-40")
    shown = admin.get("/v1/node-losses").get_json()
    assert {each["node"] for each in shown["losses"]} == gone
    assert {each["released_at"] for each in shown["losses"]} == {None}
    assert shown["braked_since"] is not None

    # Two are back: the others are lost for good.
    watched.silent -= set(references[:2])
    watched.watch(15)
    assert watched.given_up() == sorted(references[2:6])
    assert admin.get("/v1/node-losses").get_json()["braked_since"] is None


def test_an_operator_says_that_those_who_vanished_together_are_gone(watched: Watched) -> None:
    references = watched.add(8)
    watched.watch(15)
    watched.silent = set(references)
    watched.watch(120)
    assert watched.given_up() == []
    assert watched.world.as_("P-21").post("/v1/node-losses/release").status_code == 404
    answer = watched.world.as_("P-40").post("/v1/node-losses/release")
    assert answer.get_json() == {"nodes": 10}
    assert watched.given_up() == sorted(references)


def test_nodes_show_their_status_and_losses_only_to_their_project(watched: Watched) -> None:
    watched.silent = {"COMP-2"}
    watched.watch(45)
    manager = watched.world.as_("P-22")
    assert manager.get("/v1/nodes/COMP-2").get_json()["status"] == "late"
    watched.watch(30)
    listed = manager.get("/v1/nodes").get_json()["nodes"]
    assert [(each["reference"], each["status"]) for each in listed] == [("COMP-2", "lost")]
    losses = manager.get("/v1/node-losses").get_json()["losses"]
    assert [each["node"] for each in losses] == ["COMP-2"]
    assert watched.world.as_("P-21").get("/v1/node-losses").get_json()["losses"] == []


def test_a_report_is_a_contact_of_one_that_may_not_wait(watched: Watched) -> None:
    answer = watched.world.as_("COMP-1").post("/v1/nodes/COMP-1/reports", json={"reports": []})
    assert answer.status_code == 200, answer.text
    with watched.world.session() as session:
        node = session.scalar(select(ComputeNode).where(ComputeNode.reference == "COMP-1"))
        assert node is not None
        assert node.exchange.waits is False
        assert node.contacted_at == watched.clock.now()
