"""A full master with two projects and their people, and clients that ask as one of them."""

from dataclasses import dataclass, field

from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.http import Assembly
from slapos.master.identity.caller import ANONYMOUS, SYSTEM, Caller, CallerKind, Role, serve
from slapos.master.identity.model import Membership, Person, Project
from slapos.master.nodes.model import (
    ComputeNode,
    ComputePartition,
    NodeExchange,
    PartitionAddress,
)
from slapos.master.numbering import next_number
from slapos.master.provisioning.model import SoftwareInstance
from slapos.system.clock import Clock

#: The header by which tests say who asks.
HEADER = "X-Test-Caller"
#: Up to this, numbers of references are the tests' own.
TAKEN = 40


def by_header(session: Session, _clock: Clock) -> Caller:
    """Say who asks by a header that holds a reference: P-2, COMP-3, SOFTINST-4."""
    reference = request.headers.get(HEADER)
    return ANONYMOUS if reference is None else caller_of_reference(session, reference)


def caller_of_reference(session: Session, reference: str) -> Caller:
    """Return the caller that a reference names."""
    person = session.scalar(select(Person).where(Person.reference == reference))
    if person is not None:
        return Caller(
            kind=CallerKind.PERSON,
            name=reference,
            id=person.id,
            memberships=frozenset((m.project_id, Role(m.role)) for m in person.memberships),
        )
    node = session.scalar(select(ComputeNode).where(ComputeNode.reference == reference))
    if node is not None:
        kind, project_id = CallerKind.NODE, node.project_id
        return Caller(kind=kind, name=reference, id=node.id, project_id=project_id)
    instance = session.scalar(
        select(SoftwareInstance).where(SoftwareInstance.reference == reference)
    )
    assert instance is not None, reference
    return Caller(
        kind=CallerKind.INSTANCE,
        name=reference,
        id=instance.id,
        project_id=instance.tree.project_id,
        tree_id=instance.tree_id,
    )


@dataclass
class World:
    """Projects PROJ-1 and PROJ-2, each with a customer, a manager and a node of partitions.

    P-11 and P-12 are customers, P-21 and P-22 production managers, P-33 is customer in both;
    COMP-1 and COMP-2 are the nodes.
    """

    app: Flask
    partitions: int = 3
    _clients: dict[str, FlaskClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.session() as session:
            now = self.parts.clock.now()
            while next_number(session) < TAKEN:
                pass
            for number in (1, 2):
                if number != 1:
                    session.add(
                        Project(
                            id=number,
                            reference=f"PROJ-{number}",
                            title=f"project {number}",
                            owner_id=1,
                            created_at=now,
                        )
                    )
                self.person(session, 10 + number, (number, Role.CUSTOMER))
                self.person(session, 20 + number, (number, Role.PRODUCTION_MANAGER))
                self.node(session, number)
            self.person(session, 33, (1, Role.CUSTOMER), (2, Role.CUSTOMER))
            session.commit()

    @property
    def parts(self) -> Assembly:
        """What the application is made of."""
        parts: Assembly = self.app.extensions["slapos"]
        return parts

    def session(self) -> Session:
        """Return a writing session that may all."""
        session = self.parts.database.writing()
        serve(session, SYSTEM)
        return session

    def person(self, session: Session, number: int, *roles: tuple[int | None, Role]) -> None:
        """Make a person with roles."""
        now = self.parts.clock.now()
        session.add(
            Person(
                id=number,
                reference=f"P-{number}",
                email=f"person-{number}@example.com",
                name=f"person {number}",
                created_at=now,
                memberships=[
                    Membership(project_id=project, role=role, created_at=now)
                    for project, role in roles
                ],
            )
        )
        session.flush()

    def node(self, session: Session, number: int, project: int | None = None) -> None:
        """Make a node with free partitions, in the project of its number or another one."""
        node = ComputeNode(
            reference=f"COMP-{number}",
            title=f"node {number}",
            project_id=project or number,
            created_at=self.parts.clock.now(),
        )
        node.exchange = NodeExchange()
        node.partitions = [
            ComputePartition(
                reference=f"slappart{each}",
                addresses=[
                    PartitionAddress(position=0, interface="lo", address=f"10.{number}.0.{each}")
                ],
            )
            for each in range(self.partitions)
        ]
        session.add(node)
        session.flush()

    def place(self, title: str, node: str, partition: str) -> str:
        """Give a waiting instance a place, and return its reference."""
        with self.session() as session:
            instance = session.scalar(
                select(SoftwareInstance).where(SoftwareInstance.title == title)
            )
            found = session.scalar(
                select(ComputePartition)
                .join(ComputeNode)
                .where(ComputeNode.reference == node, ComputePartition.reference == partition)
            )
            assert instance is not None
            assert found is not None
            found.occupy()
            instance.node, instance.partition = found.node, found
            instance.stop_waiting()
            session.commit()
            return instance.reference

    def as_(self, reference: str) -> FlaskClient:
        """Return a client that asks as somebody."""
        if reference not in self._clients:
            client = self.app.test_client()
            client.environ_base[f"HTTP_{HEADER.upper().replace('-', '_')}"] = reference
            self._clients[reference] = client
        return self._clients[reference]
