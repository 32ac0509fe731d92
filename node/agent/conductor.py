"""The one thread that decides: takes what happened, asks the plan, has the work begun."""

import logging
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from slapos.node.agent.lane import NEVER
from slapos.node.agent.plan import Ended, Job, Kind, Plan
from slapos.node.agent.saying import Saying
from slapos.protocol.messages import NodeInformation
from slapos.system.clock import Clock
from slapos.system.service_manager import ServiceManager

logger = logging.getLogger(__name__)

#: Seconds after which it looks at the time again, whatever happens.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Restarted:
    """A service of a partition had ended and was started again."""

    partition: str


@dataclass(frozen=True)
class End:
    """The agent has to end: by a signal, or because a part of it failed (`reason`)."""

    reason: str = ""


Event = NodeInformation | Ended | Restarted | End


class Submit(Protocol):
    """What takes a job to be done; its end comes as an event."""

    def submit(self, task: Job) -> None:
        """Have it done."""
        ...


class Conductor:
    """Runs the plan: in one thread, so that no two decisions meet."""

    def __init__(
        self,
        plan: Plan,
        pools: Mapping[Kind, Submit],
        clock: Clock,
        manager: ServiceManager,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when work was done by which the master may want something else."""
        self._plan = plan
        self._pools = pools
        self._clock = clock
        self._manager = manager
        self._changed = changed
        self._saying = Saying()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def tell(self, event: Event) -> None:
        """Take an event, from any thread or signal handler."""
        self._events.put(event)

    def run(self) -> str:
        """Work until told to end; return the reason, empty for a wish."""
        alive_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            if self._manager.interval is not None and now >= alive_at:
                self._manager.alive()
                alive_at = now + self._manager.interval
            for job in self._plan.begin(now):
                logger.debug("%s of %s begins", job.kind, job.key)
                self._pools[job.kind].submit(job)
            pause = min(self._plan.next_due - now, LONGEST_PAUSE)
            if self._manager.interval is not None:
                pause = min(pause, alive_at - now)
            for event in self._next(max(pause, 0.0)):
                if isinstance(event, End):
                    return event.reason
                self._take(event)

    def _next(self, pause: float) -> list[Event]:
        """Wait for events, and return all that there are."""
        events = []
        try:
            events.append(self._events.get(timeout=pause))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def _take(self, event: NodeInformation | Ended | Restarted) -> None:
        now = self._clock.monotonic()
        match event:
            case NodeInformation():
                self._plan.take_information(event, now)
            case Restarted():
                self._plan.take_restart(event.partition, now)
            case Ended():
                self._plan.take_end(event, now)
                self._saying.take(event)
                is_work = event.job.kind in (Kind.INSTANCE, Kind.BUILD)
                if is_work and event.outcome is not None and event.outcome.changed:
                    self._changed()

    def wait_until_idle(self, patience: float) -> bool:
        """Begin nothing, and wait for the work that is being done; return whether all has ended."""
        deadline = self._clock.monotonic() + patience
        while not self._plan.is_idle and (left := deadline - self._clock.monotonic()) > 0:
            for event in self._next(left):
                if isinstance(event, Ended):
                    self._plan.take_end(event, NEVER)
        return self._plan.is_idle
