"""A provider for tests of services in the full profile: nodes, a catalogue, orders, tasks."""

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from slapos.master.identity.model import Person, Tenant
from slapos.master.nodes.model import (
    ComputeNode,
    ComputePartition,
    ComputerNetwork,
    NodeExchange,
)
from slapos.master.nodes.service import NodeFormat, PartitionFormat
from slapos.master.provisioning import reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.model import InstanceNode, SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import Settings
from slapos.master.tasks.model import TaskMark
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.task import Turn
from slapos.protocol.states import InstanceState
from tests.fakes import NOON, FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL


class Provider:
    """A project with nodes, and customers 1 and 2 who order in it."""

    def __init__(self, session: Session, clock: FakeClock) -> None:
        self.session, self.clock = session, clock
        self.policy = FullPolicy(FakeIdentifiers())
        session.add(Person(id=2, reference="P-2", name="two", created_at=NOON))
        session.flush()

    def node(self, reference: str, partitions: int = 2, **fields: Any) -> ComputeNode:
        node = ComputeNode(
            **{"reference": reference, "title": reference, "project_id": 1, "created_at": NOON}
            | fields
        )
        node.exchange = NodeExchange()
        node.partitions = [
            ComputePartition(reference=f"slappart{number}") for number in range(partitions)
        ]
        self.session.add(node)
        self.session.flush()
        return node

    def network(self, reference: str) -> ComputerNetwork:
        network = ComputerNetwork(
            reference=reference, title=reference, project_id=1, created_at=NOON
        )
        self.session.add(network)
        self.session.flush()
        return network

    def order(self, title: str = "web", owner: int = 1, **fields: Any) -> SoftwareInstance:
        defaults: dict[str, Any] = {
            "title": title,
            "software_url": URL,
            "tenant": Tenant(1, owner),
        }
        order = InstanceOrder(**(defaults | fields))
        return provisioning.request_instance(self.session, self.clock, self.policy, order)

    def supply(self, *nodes: str, **fields: Any) -> None:
        """Publish a product, and supply it on nodes."""
        self.product = add_product(self.session)
        add_supply(self.session, self.product, nodes, **fields)

    def supply_more(self, *nodes: str) -> None:
        """Supply the product on other nodes."""
        add_supply(self.session, self.product, nodes, title="more", shared_in_same_tree=True)

    def format(self, node: ComputeNode, partitions: int) -> None:
        """Have a node say that it has so many partitions."""
        told = NodeFormat(
            reference=node.reference,
            partitions=[PartitionFormat(reference=f"slappart{n}") for n in range(partitions)],
        )
        provisioning.format_node(self.session, self.clock, told)

    def remove(self, instance: SoftwareInstance) -> None:
        """Have its owner destroy a root, and its node confirm it."""
        self.order(
            instance.title,
            owner=instance.tree.owner_id,
            software_url=instance.software_url,
            state=InstanceState.DESTROYED,
        )
        reports.report_state(self.session, self.clock, instance, InstanceState.DESTROYED)

    def run(self, name: str, keys: list[str] | None = None, resume: str = "") -> int:
        """Do a task for keys, or for everything; return how much it did."""
        turn = Turn(
            session=self.session,
            clock=self.clock,
            identifiers=self.policy.identifiers,
            settings=Settings(database_url=""),
            policy=self.policy,
            keys=keys,
            resume=resume,
        )
        done = TASKS[name].run(turn)
        self.session.flush()
        return done.count

    def work_off(self, name: str) -> int:
        """Do a task for all that it has been sensed for; return how much it did."""
        count = 0
        for _ in range(100):
            marks = select(TaskMark.key).where(TaskMark.name == name)
            keys = sorted(set(self.session.scalars(marks)))
            if not keys:
                break
            self.session.execute(delete(TaskMark).where(TaskMark.name == name))
            count += self.run(name, keys)
        return count


def make_instance_node(session: Session, host: SoftwareInstance) -> None:
    """Have an instance host shared ones, if it does not yet."""
    present = select(InstanceNode).where(InstanceNode.instance_id == host.id)
    if session.scalar(present) is None:
        name = f"SHARED-{host.id}"
        session.add(
            InstanceNode(reference=name, project_id=1, title=name, instance=host, created_at=NOON)
        )
        session.flush()


def where(instance: SoftwareInstance) -> str:
    place = instance.host or instance
    assert place.node is not None, instance.waiting_reason
    assert place.partition is not None
    return f"{place.node.reference} {place.partition.reference}"
