"""What the agent decides, without threads, disk or clock."""

from dataclasses import dataclass, field
from itertools import pairwise

from slapos.node.agent.lane import NEVER
from slapos.node.agent.plan import (
    LONGEST_WAIT,
    LOOK_INTERVAL,
    NODE,
    PROMISE_INTERVAL,
    PROMISE_WAITS,
    Ended,
    Job,
    Kind,
    Plan,
)
from slapos.node.outcome import Outcome, Result
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstallationState, InstanceState

URL, LOCAL = "http://example.com/software.cfg", "/srv/release/software.cfg"


def partition(
    reference: str = "p0",
    state: InstanceState = InstanceState.STARTED,
    timestamp: str = "1",
    url: str | None = URL,
) -> PartitionInformation:
    return PartitionInformation(
        node="node",
        reference=reference,
        state=state,
        software_url=url,
        parameters={"timestamp": timestamp},
    )


def release(
    url: str = URL, state: InstallationState = InstallationState.AVAILABLE
) -> ReleaseAssignment:
    return ReleaseAssignment(url=url, node="node", state=state)


def told(*partitions: PartitionInformation, releases: tuple[str, ...] = ()) -> NodeInformation:
    return NodeInformation(
        reference="node", partitions=partitions, releases=tuple(map(release, releases))
    )


@dataclass
class Story:
    """A plan, and the time."""

    workers: int = 4
    now: float = 1000.0
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        workers = dict.fromkeys(Kind, self.workers)
        self.plan = Plan(workers, lambda: 0.5, is_local=lambda url: url.startswith("/"))

    def tell(self, information: NodeInformation) -> None:
        self.plan.take_information(information, self.now)

    def begin(self, kind: Kind | None = None) -> list[Job]:
        """The jobs that begin now; those of another kind are ended at once, well."""
        jobs = self.plan.begin(self.now)
        for job in jobs:
            if kind is not None and job.kind is not kind:
                self.end(job)
        return [job for job in jobs if kind is None or job.kind is kind]

    def end(
        self,
        job: Job,
        result: Result = Result.DONE,
        *,
        changed: bool = False,
        again_in: float = NEVER,
        built: str = "",
        gone: bool = False,
    ) -> None:
        outcome = Outcome(subject=job.key, result=result, changed=changed)
        ended = Ended(job=job, outcome=outcome, again_in=again_in, built=built, gone=gone)
        self.plan.take_end(ended, self.now)

    def after(self, seconds: float, kind: Kind) -> list[str]:
        """What has begun of a kind after some seconds."""
        self.now += seconds
        return [job.key for job in self.begin(kind)]

    def wait_for(self, kind: Kind, limit: float) -> float | None:
        """After how many seconds the next job of a kind begins, None when not within a limit."""
        begun = self.now
        while self.now < begun + limit:
            if self.begin(kind):
                return self.now - begun
            self.now = min(max(self.plan.next_due, self.now + 0.01), begun + limit)
        return None


def settled(*partitions: PartitionInformation) -> Story:
    """A node on which all is as wanted, and checked."""
    story = Story(workers=1000)
    story.tell(told(*partitions))
    for job in story.begin(Kind.INSTANCE):
        story.end(job)
    return story


def test_only_what_changed_is_looked_at() -> None:
    many = [partition(f"p{number}") for number in range(100)]
    story = settled(*many)
    story.tell(told(*many))
    assert story.after(0.0, Kind.INSTANCE) == []
    many[7] = partition("p7", timestamp="2")
    story.tell(told(*many))
    assert story.after(0.0, Kind.INSTANCE) == ["p7"]


def test_a_change_while_it_is_worked_on_is_taken_up_right_after() -> None:
    story = Story()
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.tell(told(partition(timestamp="2")))
    assert story.begin(Kind.INSTANCE) == []
    story.end(job, changed=True)
    [again] = story.begin(Kind.INSTANCE)
    assert again.partition is not None
    assert again.partition.timestamp == "2"


def test_a_change_does_not_wait_for_the_end_of_a_back_off() -> None:
    story = Story()
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.end(job, Result.WAITING, changed=True, again_in=30.0)
    assert story.after(1.0, Kind.INSTANCE) == []
    story.tell(told(partition(timestamp="2")))
    [again] = story.begin(Kind.INSTANCE)
    assert not again.ripe


def test_a_failure_is_ripe_once_its_wait_is_over_by_the_agents_own_clock() -> None:
    story = Story()
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.end(job, Result.FAILED, changed=True, again_in=40.0)
    assert story.after(39.0, Kind.INSTANCE) == []
    story.now += 1.0
    [again] = story.begin(Kind.INSTANCE)
    assert again.ripe


def test_a_clock_that_was_set_back_makes_no_wait_longer() -> None:
    """A look in between finds a record that is to wait for an hour: the agent knows better."""
    story = Story()
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.end(job, Result.FAILED, changed=True, again_in=40.0)
    story.tell(told(partition(timestamp="1.0")))
    [look] = story.begin(Kind.INSTANCE)
    story.end(look, Result.FAILED, again_in=3600.0)
    assert story.wait_for(Kind.INSTANCE, 100.0) == 40.0


def test_a_failure_that_left_no_record_backs_off_all_the_same() -> None:
    story = Story()
    story.tell(told(partition()))
    waits = []
    for _ in range(8):
        waited = story.wait_for(Kind.INSTANCE, 1000.0)
        assert waited is not None
        waits.append(waited)
        partition_job = Job(kind=Kind.INSTANCE, key="p0", partition=partition(), ripe=True)
        story.end(partition_job, Result.FAILED, changed=True, again_in=0.0)
    assert waits[1] > 0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


def test_what_another_program_works_on_is_tried_soon_again() -> None:
    story = Story()
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.plan.take_end(Ended(job=job, outcome=None), story.now)
    waited = story.wait_for(Kind.INSTANCE, 10.0)
    assert waited is not None
    assert 0.5 < waited < 2.0


def test_everything_is_looked_at_now_and_then() -> None:
    story = settled(partition())
    waited = story.wait_for(Kind.INSTANCE, 2 * LOOK_INTERVAL)
    assert waited is not None
    assert waited <= 1.2 * LOOK_INTERVAL


def test_a_free_partition_costs_nothing() -> None:
    story = settled(partition(url=None, state=InstanceState.DESTROYED))
    assert story.wait_for(Kind.INSTANCE, 10 * LOOK_INTERVAL) is None


def test_an_instance_waits_for_the_end_of_its_build_and_not_for_a_poll() -> None:
    story = Story()
    story.tell(told(partition("p0"), partition("p1", url=LOCAL), releases=(URL,)))
    jobs = {(job.kind, job.key): job for job in story.begin()}
    for key in ("p0", "p1"):
        story.end(jobs[Kind.INSTANCE, key], Result.WAITING)
    story.now += 3.0
    story.end(jobs[Kind.BUILD, URL], changed=True, built="17")
    assert story.after(0.0, Kind.INSTANCE) == ["p0"]


def test_a_build_takes_no_worker_from_the_instances() -> None:
    story = Story(workers=1)
    story.tell(told(partition(url=LOCAL), releases=(URL,)))
    assert {job.kind for job in story.begin()} >= {Kind.BUILD, Kind.INSTANCE}


def test_the_files_of_a_local_release_are_looked_at_every_few_seconds() -> None:
    story = Story()
    story.tell(told(releases=(LOCAL, URL)))
    for job in story.begin(Kind.BUILD):
        story.end(job, built="1")
    assert story.after(3.0, Kind.BUILD) == [LOCAL]


def test_a_release_that_is_removed_is_left_alone() -> None:
    story = Story()
    gone = release(state=InstallationState.DESTROYED)
    story.tell(NodeInformation(reference="node", releases=(gone,)))
    [job] = story.begin(Kind.BUILD)
    story.end(job, changed=True)
    assert story.wait_for(Kind.BUILD, 10 * LOOK_INTERVAL) is None


def test_a_removal_that_could_not_be_told_is_tried_again() -> None:
    story = Story()
    gone = release(state=InstallationState.DESTROYED)
    story.tell(NodeInformation(reference="node", releases=(gone,)))
    [job] = story.begin(Kind.BUILD)
    story.end(job, Result.FAILED)
    assert story.wait_for(Kind.BUILD, LONGEST_WAIT) is not None


def started(story: Story) -> None:
    """Have p0 started."""
    story.tell(told(partition()))
    [job] = story.begin(Kind.INSTANCE)
    story.end(job, changed=True)


def test_promises_are_checked_when_services_were_started_and_ever_later_while_they_fail() -> None:
    story = Story()
    started(story)
    waits = []
    for _ in range(len(PROMISE_WAITS) + 1):
        jobs = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
        while not jobs:
            story.now = story.plan.next_due
            jobs = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
        waits.append(story.now)
        story.end(jobs[0], Result.PROMISE_FAILED)
    gaps = [round(b - a, 3) for a, b in pairwise(waits)]
    assert gaps == list(PROMISE_WAITS)


def test_promises_that_hold_are_checked_when_they_say_but_not_each_second() -> None:
    story = Story()
    for again_in, expected in ((1.0, PROMISE_INTERVAL), (300.0, 300.0), (NEVER, 3600.0)):
        started(story)
        story.plan.take_restart("p0", story.now)
        [job] = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
        story.end(job, again_in=again_in)
        assert story.wait_for(Kind.PROMISE, 2 * expected) == expected
        story = Story()


def test_after_a_start_of_the_agent_promises_are_checked_spread_over_time() -> None:
    chances = iter([number / 100 for number in range(100)] * 10)
    plan = Plan(dict.fromkeys(Kind, 1000), lambda: next(chances), is_local=lambda _: False)
    plan.take_information(told(*(partition(f"p{number}") for number in range(50))), 0.0)
    for job in plan.begin(0.0):
        plan.take_end(Ended(job=job, outcome=Outcome(subject=job.key)), 0.0)
    moments = []
    now = 0.0
    while now < PROMISE_INTERVAL:
        now = plan.next_due
        moments += [now for job in plan.begin(now) if job.kind is Kind.PROMISE]
    assert len({round(moment) for moment in moments}) > 20


def test_a_service_that_was_started_again_has_its_promises_checked_anew() -> None:
    story = Story()
    started(story)
    story.begin(Kind.INSTANCE)
    story.plan.take_restart("p0", story.now + 1)
    story.now += 1
    [job] = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
    assert job.anew


def test_what_is_not_started_or_not_applied_has_no_promises() -> None:
    story = Story()
    story.tell(told(partition(state=InstanceState.STOPPED), partition("p1")))
    for job in story.begin(Kind.INSTANCE):
        result = Result.FAILED if job.key == "p1" else Result.DONE
        story.end(job, result, changed=True, again_in=9999.0 if job.key == "p1" else NEVER)
    for reference in ("p0", "p1"):
        story.plan.take_restart(reference, story.now)
    assert story.wait_for(Kind.PROMISE, 200.0) is None


def test_a_check_that_ends_after_the_instance_was_stopped_is_the_last() -> None:
    story = Story()
    started(story)
    [check] = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
    story.tell(told(partition(state=InstanceState.STOPPED, timestamp="2")))
    [job] = [job for job in story.plan.begin(story.now) if job.kind is Kind.INSTANCE]
    story.end(job, changed=True)
    story.end(check)
    assert story.wait_for(Kind.PROMISE, 200.0) is None


def test_what_is_destroyed_is_not_destroyed_again_while_the_master_still_wants_it() -> None:
    story = Story()
    gone = partition(state=InstanceState.DESTROYED)
    story.tell(told(gone))
    [job] = story.begin(Kind.INSTANCE)
    story.end(job, changed=True, gone=True)
    story.tell(told(gone))
    assert story.wait_for(Kind.INSTANCE, 10 * LOOK_INTERVAL) is None
    story.tell(told(partition(timestamp="2")))
    assert story.after(0.0, Kind.INSTANCE) == ["p0"]


def test_a_partition_that_the_master_no_longer_names_is_forgotten() -> None:
    story = Story()
    started(story)
    [check] = [job for job in story.plan.begin(story.now) if job.kind is Kind.PROMISE]
    story.tell(told())
    story.end(check)
    story.begin(Kind.USAGE)
    assert story.wait_for(Kind.PROMISE, 200.0) is None


def test_usage_is_reported_each_interval_and_sooner_after_a_failure() -> None:
    story = Story()
    story.tell(told(partition()))
    waited = [story.wait_for(Kind.USAGE, 100.0)]
    for result in (Result.FAILED, Result.DONE):
        story.end(Job(kind=Kind.USAGE, key=NODE), result)
        waited.append(story.wait_for(Kind.USAGE, 4000.0))
    assert waited == [30.0, 2.0, 3600.0]
