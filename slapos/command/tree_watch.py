"""Waiting until an instance tree is as wanted: asking, and judging what is seen."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import quote

from slapos.protocol.errors import MasterFailed, MasterUnreachable, NotFound, NotReady
from slapos.protocol.hateoas_client import HateoasClient
from slapos.protocol.json_reader import load_json
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.prerequisite import WAITING
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus
from slapos.system.clock import Clock

#: Seconds between two questions: at first, and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
#: Seconds between two requests, where the master tells nothing else.
REQUEST_PAUSE = 5.0
#: How long, in seconds, every instance that is not yet healthy must have failed, or have waited for
#: another one, before waiting ends: its node tries again.
PATIENCE = 30.0

_ORDER = (
    Phase.ALLOCATING,
    Phase.BUILDING,
    Phase.INSTANTIATING,
    Phase.FAILED,
    Phase.DESTROYING,
    Phase.PROMISING,
    Phase.HEALTHY,
)


class TreeReader(Protocol):
    """Where the status of a tree comes from. `pause` is the longest between two questions."""

    pause: float

    def read(self) -> TreeStatus:
        """Ask once; raises NotFound when the tree is gone."""
        ...


class MasterTree:
    """The tree as the master tells it in detail; slapproxy and ERP5 cannot (NotFound)."""

    pause = LONGEST_PAUSE

    def __init__(self, client: SlapClient, title: str) -> None:
        self._client = client
        self._path = f"v1/instance-trees/{quote(title, safe='')}"

    def read(self) -> TreeStatus:
        """Ask once; raises NotFound when the master does not tell, or has no such tree."""
        response = self._client.http.request(
            "GET", self._path, headers={"Accept": "application/json"}
        )
        if "json" not in response.headers.get("Content-Type", ""):
            raise NotFound(f"{self._client.http.base_url} does not tell how a service is doing")
        try:
            return TreeStatus.from_json(load_json(response.content))
        except ValueError as error:
            raise MasterFailed(f"the master's answer makes no sense: {error}") from error


class RequestedTree:
    """What repeating the request tells: allocated or not, and published values or none.

    For masters that tell no more. An instance that has published something counts as healthy.
    """

    pause = REQUEST_PAUSE

    def __init__(
        self,
        title: str,
        software_url: str,
        state: InstanceState,
        request: Callable[[], RequestedInstance],
    ) -> None:
        self._title = title
        self._software_url = software_url
        self._state = state
        self._request = request

    def read(self) -> TreeStatus:
        """Request once more."""
        try:
            answer = self._request()
        except NotReady:
            return self._status(Phase.ALLOCATING, None)
        done = bool(answer.connection) or self._state is InstanceState.STOPPED
        return self._status(Phase.HEALTHY if done else Phase.INSTANTIATING, answer)

    def _status(self, phase: Phase, answer: RequestedInstance | None) -> TreeStatus:
        instance = InstanceStatus(
            guid=answer.guid if answer else "",
            title=self._title,
            software_url=self._software_url,
            software_type="",
            requested_state=self._state,
            phase=phase,
            node=answer.node if answer else None,
            partition=answer.partition if answer else None,
            message="" if phase is Phase.HEALTHY else "nothing published yet",
            connection=answer.connection if answer else {},
        )
        return TreeStatus(title=self._title, instances=(instance,))


class LeavingTree:
    """A tree that is to go, as hateoas tells: still known to the master, or gone."""

    pause = REQUEST_PAUSE

    def __init__(self, hateoas: HateoasClient, title: str) -> None:
        self._hateoas = hateoas
        self._title = title

    def read(self) -> TreeStatus:
        """Look it up; raises NotFound when it is gone."""
        service = self._hateoas.service(self._title)
        instance = InstanceStatus(
            guid="",
            title=self._title,
            software_url=service.software_url,
            software_type=service.software_type,
            requested_state=InstanceState.DESTROYED,
            phase=Phase.DESTROYING,
            message="its node has not removed it yet (slapos node report)",
        )
        return TreeStatus(title=self._title, instances=(instance,))


class Verdict(StrEnum):
    """How waiting ended."""

    HEALTHY = "healthy"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    GONE = "gone"


@dataclass(kw_only=True)
class Waited:
    """How waiting ended, what was last seen, and the seconds that the tree was in each phase."""

    verdict: Verdict
    tree: TreeStatus | None
    seconds: float
    timings: dict[str, float] = field(default_factory=dict)


class View(Protocol):
    """Who shows what is seen while waiting. `elapsed` is in seconds."""

    def show(self, tree: TreeStatus, elapsed: float) -> None:
        """Take note of the tree as it is now."""
        ...

    def trouble(self, message: str, elapsed: float) -> None:
        """Take note that the master could not be asked."""
        ...


def wait_for(
    tree: TreeReader,
    view: View,
    clock: Clock,
    *,
    timeout: float,
    until_gone: bool = False,
) -> Waited:
    """Ask until the tree is healthy (or gone), has failed for good, or `timeout` seconds are over.

    A master that does not answer is asked again. Raises NotFound when the tree is gone and was not
    to go.
    """
    watch = _Watch(clock)
    pause = FIRST_PAUSE
    verdict: Verdict | None = None
    while verdict is None:
        try:
            watch.take(tree.read())
            view.show(watch.seen(), watch.elapsed())
        except (MasterUnreachable, MasterFailed) as error:
            view.trouble(str(error), watch.elapsed())
        except NotFound:
            if not until_gone:
                raise
            verdict = Verdict.GONE
            break
        verdict = watch.verdict(timeout, until_gone=until_gone)
        if verdict is None:
            clock.sleep(min(pause, max(timeout - watch.elapsed(), 0)))
            pause = min(pause * 1.5, tree.pause)
    return watch.ended(verdict)


class _Watch:
    """What was seen of a tree so far, and for how long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = self._mark = clock.monotonic()
        self._tree: TreeStatus | None = None
        self._timings: dict[str, float] = {}
        self._failed_since: float | None = None

    def elapsed(self) -> float:
        return self._clock.monotonic() - self._start

    def seen(self) -> TreeStatus:
        assert self._tree is not None
        return self._tree

    def take(self, tree: TreeStatus) -> None:
        self._count()
        self._tree = tree
        unwell = [each for each in tree.instances if each.phase is not Phase.HEALTHY]
        if unwell and all(each.phase is Phase.FAILED or each.reason == WAITING for each in unwell):
            self._failed_since = self._failed_since or self._clock.monotonic()
        else:
            self._failed_since = None

    def verdict(self, timeout: float, *, until_gone: bool) -> Verdict | None:
        now = self._clock.monotonic()
        if self._tree is not None and self._tree.healthy and not until_gone:
            return Verdict.HEALTHY
        if self._failed_since is not None and now - self._failed_since >= PATIENCE:
            return Verdict.FAILED
        return Verdict.TIMED_OUT if now - self._start >= timeout else None

    def ended(self, verdict: Verdict) -> Waited:
        self._count()
        timings = {phase: round(seconds, 3) for phase, seconds in self._timings.items()}
        return Waited(
            verdict=verdict, tree=self._tree, seconds=round(self.elapsed(), 3), timings=timings
        )

    def _count(self) -> None:
        """Add the time since the last look to the phase that the tree was in then."""
        if self._tree is None:
            return
        now, phase = self._clock.monotonic(), phase_of(self._tree)
        if phase is not Phase.HEALTHY:
            self._timings[phase] = self._timings.get(phase, 0.0) + now - self._mark
        self._mark = now


def phase_of(tree: TreeStatus) -> Phase:
    """Return the phase of the instance that is least far."""
    return min((instance.phase for instance in tree.instances), key=_ORDER.index)
