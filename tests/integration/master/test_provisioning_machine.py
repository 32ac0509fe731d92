"""Whatever comes in which turn, partitions and instances fit together (SQLite, in memory)."""

from collections import Counter
from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.orm import Session

from slapos.master.database import Base
from slapos.master.identity.caller import SYSTEM, session_info
from slapos.master.identity.model import Person, Project
from slapos.master.migrations.schema import metadata
from slapos.master.nodes.model import ComputePartition, PartitionState
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning import reports
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.protocol.errors import Conflict, NotReady
from slapos.protocol.states import InstanceState
from tests.fakes import NOON, FakeClock
from tests.integration.master.provider import Provider, make_instance_node

TITLES = st.sampled_from(["a", "b", "c"])
STATES = st.sampled_from(list(InstanceState))
OWNERS = st.sampled_from([1, 2])
NODES = ("COMP-1", "COMP-2")


class Provisioning(RuleBasedStateMachine):
    """Customers order and destroy, instances ask for others, nodes report and are formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://")
        event.listen(self.engine, "connect", lambda made, _: made.execute("PRAGMA foreign_keys=ON"))
        metadata.create_all(self.engine)
        assert metadata is Base.metadata
        self.session = Session(self.engine, info=session_info(SYSTEM))
        self.session.add(Person(id=1, reference="P-1", name="one", created_at=NOON))
        self.session.flush()
        self.session.add(
            Project(id=1, reference="PROJ-1", title="one", owner_id=1, created_at=NOON)
        )
        self.session.flush()
        self.provider = Provider(self.session, FakeClock())
        self.nodes = [
            self.provider.node("COMP-1", partitions=2),
            self.provider.node("COMP-2", partitions=2, capacity=1),
        ]
        self.provider.supply(*NODES, shared_in_same_tree=True)

    def teardown(self) -> None:
        self.session.close()
        self.engine.dispose()

    def instances(self) -> list[SoftwareInstance]:
        return list(
            self.session.scalars(select(SoftwareInstance).order_by(SoftwareInstance.id)).all()
        )

    @rule(title=TITLES, owner=OWNERS, state=STATES, shared=st.booleans())
    def order(self, title: str, owner: int, state: InstanceState, shared: bool) -> None:
        try:
            self.provider.order(title, owner=owner, state=state, shared=shared)
        except NotReady:
            assert state is InstanceState.DESTROYED
        except Conflict:  # a title is of one tree, whatever its kind
            assert any(
                each.is_root and each.title == title and each.shared != shared
                for each in self.instances()
            )

    @precondition(lambda self: self.instances())
    @rule(data=st.data(), title=TITLES, state=STATES, shared=st.booleans())
    def ask(self, data: st.DataObject, title: str, state: InstanceState, shared: bool) -> None:
        requester = data.draw(st.sampled_from(self.instances()))
        # It would ask for what has asked for it, or there is nothing to destroy.
        with suppress(Conflict, NotReady):
            self.provider.order(title, requester=requester, state=state, shared=shared)

    @precondition(lambda self: self.instances())
    @rule(data=st.data(), destroyed=st.booleans())
    def report(self, data: st.DataObject, destroyed: bool) -> None:
        instance = data.draw(st.sampled_from(self.instances()))
        if instance.partition is not None:
            wanted = InstanceState(instance.requested_state)
            state = InstanceState.DESTROYED if destroyed else wanted
            reports.report_state(self.session, self.provider.clock, instance, state)

    @precondition(lambda self: self.instances())
    @rule(data=st.data(), titles=st.sets(TITLES))
    def tell(self, data: st.DataObject, titles: set[str]) -> None:
        instance = data.draw(st.sampled_from(self.instances()))
        reports.report_related(self.session, self.provider.clock, instance, titles)

    @precondition(lambda self: any(not each.shared for each in self.instances()))
    @rule(data=st.data())
    def host(self, data: st.DataObject) -> None:
        hosts = [each for each in self.instances() if not each.shared]
        make_instance_node(self.session, data.draw(st.sampled_from(hosts)))

    @rule(number=st.integers(0, 1), partitions=st.integers(1, 4))
    def format(self, number: int, partitions: int) -> None:
        self.provider.format(self.nodes[number], partitions)

    @rule()
    def allocate(self) -> None:
        self.provider.work_off(ALLOCATE_INSTANCES)

    @rule()
    def a_day_passes(self) -> None:
        self.provider.clock.advance(86400)
        self.provider.run("collect_orphans")

    @invariant()
    def busy_is_what_holds_one_instance(self) -> None:
        self.session.flush()
        held = Counter(each.partition_id for each in self.instances() if each.partition_id)
        assert set(held.values()) <= {1}
        busy = self.session.scalars(
            select(ComputePartition.id).where(ComputePartition.state == PartitionState.BUSY)
        ).all()
        assert set(held) == set(busy)

    @invariant()
    def who_has_no_place_waits_and_says_why(self) -> None:
        for each in self.instances():
            if each.is_placed:
                assert each.waiting_code == each.waiting_reason == each.waiting_key == ""
                place = each.host or each
                assert each.node_id == place.node_id
            else:
                # What is to go and has others below it is there until they are gone.
                assert each.waiting_reason or each.is_to_go

    @invariant()
    def no_node_bears_more_than_it_may(self) -> None:
        for node in self.nodes:
            if node.capacity is not None:
                load = select(func.sum(SoftwareInstance.weight)).where(
                    SoftwareInstance.node_id == node.id
                )
                assert (self.session.scalar(load) or 0) <= node.capacity

    @invariant()
    def trees_are_connected_and_have_no_cycles(self) -> None:
        found = self.instances()
        roots = {each.tree_id for each in found if each.is_root}
        assert roots == set(self.session.scalars(select(InstanceTree.id)))
        assert sum(each.is_root for each in found) == len(roots)
        for each in found:
            above, seen = each, set()
            while above.requester is not None:
                assert above.id not in seen
                seen.add(above.id)
                assert above.requester.tree_id == each.tree_id
                above = above.requester

    @invariant()
    def nothing_runs_below_what_is_to_go(self) -> None:
        for each in self.instances():
            above = each.requester
            if above is not None and above.is_to_go:
                assert each.is_to_go


TestProvisioning = Provisioning.TestCase
TestProvisioning.settings = settings(max_examples=40, stateful_step_count=25)
