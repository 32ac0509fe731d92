"""A lane: work of one kind, a bounded number of things at a time, each when it is due."""

import heapq
import itertools
from dataclasses import dataclass

#: Of a clock that never jumps, in seconds.
Moment = float
NEVER = float("inf")


@dataclass(slots=True)
class _Thing:
    """Something to work on: when it is due (NEVER for not at all), and whether it is worked on."""

    due: Moment = NEVER
    running: bool = False


class Lane:
    """Says what to begin next: what has been due for longest, one worker a thing.

    What becomes due while it is worked on is worked on again right after. Each call costs the
    logarithm of the number of things.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._running = 0
        self._things: dict[str, _Thing] = {}
        #: (due, number, key), with entries that are no longer true: they are left out when met.
        self._heap: list[tuple[Moment, int, str]] = []
        self._numbers = itertools.count()

    def want(self, key: str, at: Moment) -> None:
        """Have a thing worked on at a moment, or before if it is due before."""
        thing = self._things.setdefault(key, _Thing())
        if at < thing.due:
            self._set(key, thing, at)

    def put_off(self, key: str, at: Moment) -> None:
        """Have a thing worked on at a moment, and not before."""
        self._set(key, self._things.setdefault(key, _Thing()), at)

    def _set(self, key: str, thing: _Thing, at: Moment) -> None:
        thing.due = at
        if not thing.running and at < NEVER:
            heapq.heappush(self._heap, (at, next(self._numbers), key))

    def begin(self, now: Moment) -> list[str]:
        """Return what to begin now; it counts as being worked on until `end`."""
        found = []
        while self._running < self._workers and self._first() <= now:
            key = heapq.heappop(self._heap)[2]
            thing = self._things[key]
            thing.due, thing.running = NEVER, True
            self._running += 1
            found.append(key)
        return found

    def end(self, key: str, again: Moment = NEVER) -> None:
        """Take in that the work on a thing has ended, and when it is due again by itself."""
        thing = self._things[key]
        thing.running = False
        self._running -= 1
        self._set(key, thing, min(thing.due, again))
        if thing.due == NEVER:
            del self._things[key]

    def forget(self, key: str) -> None:
        """Work on a thing no more; what is being done is done to its end."""
        thing = self._things.get(key)
        if thing is not None and thing.running:
            thing.due = NEVER
        elif thing is not None:
            del self._things[key]

    def has(self, key: str) -> bool:
        """Return whether a thing is worked on, or due at some time."""
        return key in self._things

    @property
    def next_due(self) -> Moment:
        """Return when to look again; NEVER when nothing waits, or no worker is free."""
        return self._first() if self._running < self._workers else NEVER

    @property
    def is_idle(self) -> bool:
        """Whether nothing is worked on."""
        return self._running == 0

    def _first(self) -> Moment:
        while self._heap:
            due, _, key = self._heap[0]
            thing = self._things.get(key)
            if thing is not None and not thing.running and thing.due == due:
                return due
            heapq.heappop(self._heap)
        return NEVER
