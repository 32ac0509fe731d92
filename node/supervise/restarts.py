"""When a service that ended on its own is started again: soon at first, then ever later."""

from collections.abc import Iterable
from dataclasses import dataclass

from slapos.node.layout import WATCHED
from slapos.node.supervise.events import ProcessEvent
from slapos.node.supervise.supervisor import ENDED, RUNNING, Process

#: Seconds before a service that ended is started again: the first time, and at most.
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: A service that ran for so many seconds is sound: when it ends, it starts with the first pause.
STEADY = 60.0

#: Group and name.
Key = tuple[str, str]


@dataclass(slots=True)
class _Trouble:
    """A service that ended: how often it was started since, when to start it, since when it runs.

    Times are the caller's `now`, of a clock that does not jump.
    """

    attempts: int = 0
    due: float | None = None
    since: float | None = None

    def put_off(self, now: float) -> None:
        self.due = now + min(SHORTEST_PAUSE * 2.0 ** min(self.attempts, 10), LONGEST_PAUSE)


class Restarts:
    """What is to be started again, and when.

    Services (etc/service) are; a program of etc/run that has ended stays so, and so does what a
    person stopped. Nothing is kept of a process that has never ended.
    """

    def __init__(self) -> None:
        self._troubles: dict[Key, _Trouble] = {}

    def take(self, event: ProcessEvent, now: float) -> None:
        """Take what supervisord tells, `now` in seconds of a clock that does not jump."""
        key = event.group, event.name
        trouble = self._troubles.get(key)
        if event.event in ENDED:
            if not event.name.endswith(WATCHED):
                self._troubles.pop(key, None)
                return
            trouble = trouble or self._troubles.setdefault(key, _Trouble())
            if trouble.since is not None and now - trouble.since >= STEADY:
                trouble.attempts = 0
            trouble.since = None
            trouble.put_off(now)
        elif event.event in RUNNING:
            if trouble is not None:
                trouble.since, trouble.due = now, None
        else:  # it was stopped: by a person, or because it is not wanted (any more)
            self._troubles.pop(key, None)

    def look(self, processes: Iterable[Process], now: float) -> None:
        """Compare with all that supervisord has, in case something was not told."""
        seen = {(process.group, process.name): process for process in processes}
        for key in [key for key in self._troubles if key not in seen]:
            del self._troubles[key]
        for key, process in seen.items():
            trouble = self._troubles.get(key)
            if process.is_down:
                trouble = trouble or self._troubles.setdefault(key, _Trouble(due=now))
                trouble.since = None
                if trouble.due is None:
                    trouble.put_off(now)
            elif trouble is not None and not process.is_running:
                del self._troubles[key]
            elif trouble is not None and trouble.since is None:
                trouble.since, trouble.due = now, None

    def due(self, now: float) -> list[Key]:
        """Return group and name of what is to be started now.

        What does not come up is due again after its next pause, whether or not it is told.
        """
        found = []
        for key, trouble in self._troubles.items():
            if trouble.due is not None and trouble.due <= now:
                trouble.attempts += 1
                trouble.put_off(now)
                found.append(key)
        return found

    @property
    def next_due(self) -> float | None:
        """Return when something is due next, None while nothing waits."""
        return min((t.due for t in self._troubles.values() if t.due is not None), default=None)

    def attempts(self, group: str, name: str) -> int:
        """Return how often a process was started again since it last was sound."""
        trouble = self._troubles.get((group, name))
        return trouble.attempts if trouble is not None else 0

    def forget(self, group: str) -> None:
        """Start nothing of a group: it is to be stopped, or is gone."""
        for key in [key for key in self._troubles if key[0] == group]:
            del self._troubles[key]
