"""A week without the link, by a clock that is told: what the agent asks and does meanwhile."""

from collections import Counter
from pathlib import Path

from slapos.node.agent.feed import Feed
from slapos.node.agent.lane import NEVER
from slapos.node.agent.plan import LOOK_INTERVAL, PROMISE_INTERVAL, Ended, Kind, Plan
from slapos.node.outcome import Outcome
from slapos.node.settings import NodeSettings
from slapos.protocol.errors import MasterUnreachable
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.marshal import dumps
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock, FakeIdentifiers

WEEK = 7 * 86400.0
KNOWN = NodeInformation(
    reference="node",
    partitions=tuple(
        PartitionInformation(
            node="node",
            reference=f"p{number}",
            state=InstanceState.STARTED,
            software_url="http://example.com/software.cfg",
            parameters={"timestamp": "1"},
            instance_guid=f"guid-{number}",
            filter={},
        )
        for number in range(3)
    ),
)


class CutLink(SlapClient):
    """A master that is not there while the link is cut, and has no feed."""

    def __init__(self) -> None:
        super().__init__(HttpClient(HttpSettings(base_url="http://127.0.0.1:1/")))
        self.is_cut = False
        self.asked = 0

    def node_document(self, node: str, *, etag: str = "") -> tuple[str, str] | None:
        self.asked += 1
        if self.is_cut:
            raise MasterUnreachable("the link is cut")
        return dumps(KNOWN.to_marshalled()).decode(), ""


def test_a_week_without_the_master_is_one_question_a_minute(tmp_path: Path) -> None:
    clock, client, heard = FakeClock(), CutLink(), list[NodeInformation]()
    settings = NodeSettings(
        computer_id="node",
        master_url="",
        software_root=tmp_path / "soft",
        instance_root=tmp_path / "inst",
    )
    settings.layout.state.mkdir(parents=True)
    feed = Feed(client, settings, heard.append, clock, FakeIdentifiers())
    feed._has_feed = False  # it was found out before
    feed.ask()
    client.is_cut, client.asked = True, 0
    while clock.monotonic() < WEEK:
        clock.advance(feed.ask())
        feed._has_feed = False
    assert WEEK / 60 <= client.asked < WEEK / 60 + 10
    client.is_cut, client.asked = False, 0
    feed.ask()
    assert client.asked == 1
    assert len(heard) == 1  # what was said before the week is what is wanted after it


def test_meanwhile_promises_go_on_and_services_are_looked_after() -> None:
    plan = Plan({}, lambda: 0.5, is_local=lambda url: False)
    done: Counter[Kind] = Counter()
    anew = 0
    now = 0.0

    def work() -> None:
        nonlocal anew
        for job in plan.begin(now):
            done[job.kind] += 1
            anew += job.anew
            plan.take_end(Ended(job=job, outcome=Outcome(subject=job.key), again_in=NEVER), now)

    plan.take_information(KNOWN, now)
    work()
    died = 0
    while now < WEEK:
        if now > died * 86400 + 86400:  # a service dies each day, and is started again
            died += 1
            plan.take_restart("p1", now)
        work()
        now = max(plan.next_due, now + 0.01)
    partitions = len(KNOWN.partitions)
    assert (
        partitions * WEEK / 3600 / 2 <= done[Kind.PROMISE] <= partitions * WEEK / PROMISE_INTERVAL
    )
    assert anew == died == 6
    assert done[Kind.INSTANCE] <= partitions * (WEEK / LOOK_INTERVAL + 1)
    work()
    done.clear()
    plan.take_information(KNOWN, now)
    work()
    assert done[Kind.INSTANCE] == 0  # the same again is nothing to do
