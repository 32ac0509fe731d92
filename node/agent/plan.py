"""What the agent does next: a plan, from what is wanted, what came of the work, and the time.

Nothing here waits, reads a file or asks the clock: the conductor hands in what happened and when,
and has the jobs done that are due. What the master says is compared in memory, so that only what
changed is looked at; whether there is something to be done is then decided from the disk.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from slapos.node.agent.lane import NEVER, Lane, Moment
from slapos.node.outcome import Outcome, Result
from slapos.node.record import jittered
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstallationState, InstanceState

#: Seconds after which everything is looked at again, in case somebody changed it by hand.
LOOK_INTERVAL = 300.0
#: Seconds between two looks at the files of a local release.
LOCAL_INTERVAL = 2.0
#: Seconds between checks of promises that fail: so many, then more each time.
PROMISE_WAITS = (0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)
#: So many checks after a start may fail before that is more than a service still starting.
EARLY_CHECKS = 5
#: Seconds between checks of promises that hold: their own, but these at least and at most.
PROMISE_INTERVAL, LONGEST_PROMISE_INTERVAL = 60.0, 3600.0
#: Seconds after which something is tried again that another program is at work on.
BUSY_WAIT = 1.0
#: Seconds before the first and between later attempts at what failed and left no record of that.
SHORTEST_WAIT, LONGEST_WAIT = 2.0, 60.0
#: The one thing of a lane that is about the whole node.
NODE = "node"


class Kind(StrEnum):
    """What kind of work it is; each has workers of its own."""

    INSTANCE = "instance"
    BUILD = "build"
    PROMISE = "promise"
    USAGE = "usage"
    FIREWALL = "firewall"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work to begin: on which partition or release (`key`), or on the whole node.

    `ripe` is whether the wait after a failure is over by the agent's own clock. `anew` is whether
    promises are checked as after a start, `early` whether services may still be starting.
    """

    kind: Kind
    key: str
    partition: PartitionInformation | None = None
    release: ReleaseAssignment | None = None
    information: NodeInformation | None = None
    ripe: bool = False
    anew: bool = False
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came of a job.

    `outcome` is None when another program is at work on the same thing. `again_in` is after how
    many seconds it is due by itself. `built` tells one build of a release from the next, `gone` is
    whether a partition is destroyed.
    """

    job: Job
    outcome: Outcome | None
    again_in: float = NEVER
    built: str = ""
    gone: bool = False


@dataclass(slots=True)
class _Partition:
    """A partition in use: what is wanted of it, and what this agent knows of it."""

    wanted: PartitionInformation
    failures: int = 0
    ripe_at: Moment = NEVER
    gone: bool = False
    has_promises: bool = False
    broken_checks: int = 0
    has_started: bool = True
    check_anew: bool = False


@dataclass(slots=True)
class _Release:
    """A release, and the partitions that are made of it."""

    assignment: ReleaseAssignment | None = None
    built: str | None = None
    failures: int = 0
    ripe_at: Moment = NEVER
    users: set[str] = field(default_factory=set)


class Plan:
    """What there is to do, and when."""

    def __init__(
        self,
        workers: Mapping[Kind, int],
        chance: Callable[[], float],
        *,
        is_local: Callable[[str], bool],
        usage_interval: float = 3600.0,
    ) -> None:
        """`chance` gives numbers in [0, 1). `is_local` tells releases whose files may change."""
        self._chance = chance
        self._is_local = is_local
        self._usage_interval = usage_interval
        self._lanes = {kind: Lane(workers.get(kind, 1)) for kind in Kind}
        self._partitions: dict[str, _Partition] = {}
        self._releases: dict[str, _Release] = {}
        self._information: NodeInformation | None = None
        self._failures = {Kind.USAGE: 0, Kind.FIREWALL: 0}

    # What happened.

    def take_information(self, information: NodeInformation, now: Moment) -> None:
        """Take in what the master says: what changed is due now."""
        self._information = information
        named = set()
        for wanted in information.partitions:
            named.add(wanted.reference)
            known = self._partitions.get(wanted.reference)
            if known is None or known.wanted != wanted:
                self._want_partition(wanted, known, now)
        for reference in self._partitions.keys() - named:
            self._forget_partition(reference)
        assigned = {assignment.url: assignment for assignment in information.releases}
        for url, assignment in assigned.items():
            release = self._releases.setdefault(url, _Release())
            if release.assignment != assignment:
                release.assignment = assignment
                self._lanes[Kind.BUILD].want(url, now)
        for url in [url for url in self._releases if url not in assigned]:
            self._releases[url].assignment = None
            self._lanes[Kind.BUILD].forget(url)
            self._drop_release(url)
        self._lanes[Kind.FIREWALL].want(NODE, now)
        if not self._lanes[Kind.USAGE].has(NODE):
            wait = min(PROMISE_INTERVAL, self._usage_interval)
            self._lanes[Kind.USAGE].want(NODE, now + self._chance() * wait)

    def _want_partition(
        self, wanted: PartitionInformation, known: _Partition | None, now: Moment
    ) -> None:
        reference = wanted.reference
        if known is None:
            known = self._partitions[reference] = _Partition(wanted)
        elif known.wanted.software_url != wanted.software_url:
            self._leave_release(known)
        known.wanted, known.gone = wanted, False
        if wanted.software_url:
            self._releases.setdefault(wanted.software_url, _Release()).users.add(reference)
        self._lanes[Kind.INSTANCE].want(reference, now)

    def _forget_partition(self, reference: str) -> None:
        for kind in (Kind.INSTANCE, Kind.PROMISE):
            self._lanes[kind].forget(reference)
        self._leave_release(self._partitions.pop(reference))

    def _leave_release(self, partition: _Partition) -> None:
        url = partition.wanted.software_url
        if url and url in self._releases:
            self._releases[url].users.discard(partition.wanted.reference)
            self._drop_release(url)

    def _drop_release(self, url: str) -> None:
        release = self._releases[url]
        if release.assignment is None and not release.users:
            del self._releases[url]

    def take_restart(self, reference: str, now: Moment) -> None:
        """Take in that a service ended and was started again: its promises are checked anew."""
        partition = self._partitions.get(reference)
        if partition is not None and partition.has_promises:
            partition.check_anew, partition.broken_checks = True, 0
            partition.has_started = False
            self._lanes[Kind.PROMISE].want(reference, now)

    def take_end(self, ended: Ended, now: Moment) -> None:
        """Take in what came of a job."""
        match ended.job.kind:
            case Kind.INSTANCE:
                self._end_instance(ended, now)
            case Kind.BUILD:
                self._end_build(ended, now)
            case Kind.PROMISE:
                self._end_check(ended, now)
            case Kind.USAGE:
                self._end_of_node(ended, now, self._usage_interval)
            case Kind.FIREWALL:
                self._end_of_node(ended, now, LOOK_INTERVAL)

    def _end_instance(self, ended: Ended, now: Moment) -> None:
        lane, key = self._lanes[Kind.INSTANCE], ended.job.key
        partition = self._partitions.get(key)
        if partition is None:
            lane.end(key)
            return
        outcome = ended.outcome
        if outcome is None:
            lane.end(key, now + jittered(BUSY_WAIT, self._chance()))
            return
        partition.failures = partition.failures + 1 if outcome.result is Result.FAILED else 0
        wait = _wait(ended, partition.failures)
        if wait == NEVER:
            partition.ripe_at = NEVER
        elif outcome.changed or ended.job.ripe:
            partition.ripe_at = now + wait
        else:
            partition.ripe_at = min(partition.ripe_at, now + wait)
        partition.gone = ended.gone and partition.wanted == ended.job.partition
        again = min(partition.ripe_at, now + jittered(LOOK_INTERVAL, self._chance()))
        lane.end(key, NEVER if partition.gone or partition.wanted.is_free else again)
        self._plan_checks(partition, outcome, now)

    def _plan_checks(self, partition: _Partition, outcome: Outcome, now: Moment) -> None:
        """Have promises checked of what is started and applied, of nothing else."""
        lane, key = self._lanes[Kind.PROMISE], partition.wanted.reference
        runs = partition.wanted.state is InstanceState.STARTED and not partition.wanted.is_free
        partition.has_promises = runs and outcome.result is Result.DONE
        if not partition.has_promises:
            lane.forget(key)
        elif outcome.changed:
            partition.broken_checks, partition.has_started = 0, False
            lane.want(key, now)
        elif not lane.has(key):
            # After a start of the agent: not those of hundreds of partitions at once.
            lane.want(key, now + self._chance() * PROMISE_INTERVAL)

    def _end_check(self, ended: Ended, now: Moment) -> None:
        lane, key = self._lanes[Kind.PROMISE], ended.job.key
        partition = self._partitions.get(key)
        if partition is None or not partition.has_promises:
            lane.end(key)
            return
        if ended.outcome is None or ended.outcome.result is Result.DONE:
            partition.broken_checks, partition.has_started = 0, True
            # Not before its turn, when nothing would be found; turns are spread over time already.
            wait = min(max(ended.again_in, PROMISE_INTERVAL), LONGEST_PROMISE_INTERVAL)
        else:
            wait = PROMISE_WAITS[min(partition.broken_checks, len(PROMISE_WAITS) - 1)]
            wait = jittered(wait, self._chance())
            partition.broken_checks += 1
        lane.end(key, now + wait)

    def _end_build(self, ended: Ended, now: Moment) -> None:
        lane, key = self._lanes[Kind.BUILD], ended.job.key
        release = self._releases.get(key)
        if release is None or release.assignment is None:
            lane.end(key)
            return
        outcome = ended.outcome
        if outcome is None:
            lane.end(key, now + jittered(BUSY_WAIT, self._chance()))
            return
        release.failures = release.failures + 1 if outcome.result is Result.FAILED else 0
        wait = _wait(ended, release.failures)
        if wait == NEVER or outcome.changed or ended.job.ripe:
            release.ripe_at = now + wait
        else:
            release.ripe_at = min(release.ripe_at, now + wait)
        look = LOOK_INTERVAL
        if release.assignment.state is InstallationState.DESTROYED:
            look = NEVER
        elif self._is_local(key):
            look = LOCAL_INTERVAL
        lane.end(key, min(release.ripe_at, now + jittered(look, self._chance())))
        if outcome.changed or (release.built is not None and release.built != ended.built):
            self._wake(release.users, now)
        release.built = ended.built

    def _wake(self, references: Iterable[str], now: Moment) -> None:
        for reference in references:
            self._lanes[Kind.INSTANCE].want(reference, now)

    def _end_of_node(self, ended: Ended, now: Moment, interval: float) -> None:
        kind = ended.job.kind
        failed = ended.outcome is None or ended.outcome.result is not Result.DONE
        self._failures[kind] = self._failures[kind] + 1 if failed else 0
        wait = backed_off(self._failures[kind]) if failed else interval
        self._lanes[kind].end(NODE, now + jittered(wait, self._chance()))

    # What to do.

    def begin(self, now: Moment) -> list[Job]:
        """Return the jobs to begin now; each counts as begun until its end is taken in."""
        return [
            self._job(kind, key, now)
            for kind, lane in self._lanes.items()
            for key in lane.begin(now)
        ]

    def _job(self, kind: Kind, key: str, now: Moment) -> Job:
        match kind:
            case Kind.INSTANCE:
                partition = self._partitions[key]
                return Job(
                    kind=kind,
                    key=key,
                    partition=partition.wanted,
                    ripe=partition.ripe_at <= now,
                )
            case Kind.BUILD:
                release = self._releases[key]
                return Job(
                    kind=kind, key=key, release=release.assignment, ripe=release.ripe_at <= now
                )
            case Kind.PROMISE:
                partition = self._partitions[key]
                anew, partition.check_anew = partition.check_anew, False
                early = not partition.has_started and partition.broken_checks < EARLY_CHECKS
                return Job(kind=kind, key=key, partition=partition.wanted, anew=anew, early=early)
            case Kind.USAGE | Kind.FIREWALL:
                return Job(kind=kind, key=key, information=self._information)

    @property
    def next_due(self) -> Moment:
        """Return when something is due next, NEVER when nothing is before something happens."""
        return min(lane.next_due for lane in self._lanes.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        return all(lane.is_idle for lane in self._lanes.values())


def _wait(ended: Ended, failures: int) -> float:
    """Return after how many seconds something is due by itself.

    What failed and could leave no record, on a full disk perhaps, is tried again all the same.
    """
    if failures and not 0.0 < ended.again_in < NEVER:
        return backed_off(failures)
    return max(ended.again_in, SHORTEST_WAIT)


def backed_off(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, 1 or more."""
    return min(SHORTEST_WAIT * 2.0 ** min(failures - 1, 10), LONGEST_WAIT)
