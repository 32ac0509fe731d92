"""A second full master, in a thread, with a customer, a node and a catalogue: where things go."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.identity.caller import Role
from slapos.master.nodes import service as nodes
from slapos.master.nodes.service import NodeFormat, PartitionFormat
from slapos.master.provisioning import reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import InstanceNode, SoftwareInstance
from slapos.master.settings import Settings
from slapos.protocol.states import InstanceState
from tests.fakes import NOON, FakeClock
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.people import People
from tests.integration.master.web_server import served


class OtherMaster:
    """What a test does at the other master: look, and be its node."""

    def __init__(self, people: People, url: str) -> None:
        self.people, self.url = people, url
        self.project = people.project("theirs", people.person("boss@example.com"))
        people.person("customer-1@example.com", (self.project, Role.CUSTOMER))
        self.token = people.token(people.signed_in("customer-1@example.com"), "order", "read")
        with people.session() as session:
            project_id = people.find_project(session, self.project).id
            node = nodes.create(session, people.clock, project_id, "rack")
            self.node = node.reference
            session.flush()
            partitions = [PartitionFormat(reference=f"slappart{n}") for n in range(3)]
            told = NodeFormat(reference=self.node, partitions=partitions)
            provisioning.format_node(session, people.clock, told)
            add_supply(session, add_product(session, project_id=project_id), [self.node])

    def instances(self) -> dict[str, dict[str, Any]]:
        """Return what there is of each instance, by the titles of their trees."""
        names = ("shared", "requested_state", "parameters", "filters", "is_placed")
        with self.people.session() as session:
            found = session.scalars(select(SoftwareInstance)).all()
            return {each.tree.title: {n: getattr(each, n) for n in names} for each in found}

    def report(self, title: str, state: InstanceState) -> None:
        """Have the node say that an instance is as wanted."""
        with self.people.session() as session:
            instance = self._find(session, title)
            reports.report_state(session, self.people.clock, instance, state)

    def fail(self, title: str, message: str) -> None:
        with self.people.session() as session:
            reports.report_error(session, self.people.clock, self._find(session, title), message)

    def publish(self, title: str, connection: dict[str, Any]) -> None:
        with self.people.session() as session:
            found = self._find(session, title)
            provisioning.publish(session, self.people.clock, found, connection)

    def host_for_all(self, title: str) -> None:
        """Have an instance host shared ones."""
        with self.people.session() as session:
            host = self._find(session, title)
            project = host.tree.project_id
            node = InstanceNode(
                reference="SHARED-1",
                project_id=project,
                title="all",
                instance=host,
                created_at=NOON,
            )
            session.add(node)

    def _find(self, session: Session, title: str) -> SoftwareInstance:
        found = session.scalars(select(SoftwareInstance)).all()
        return next(each for each in found if each.tree.title == title)


@contextmanager
def other_master(settings: Settings, clock: FakeClock) -> Iterator[OtherMaster]:
    """Give another master that is reached over HTTP."""
    people = People(settings, clock)
    try:
        with served(people.app) as port:
            yield OtherMaster(people, f"http://127.0.0.1:{port}/")
    finally:
        people.close()
