"""The processes of this node, watched: supervisord itself, and services that ended on their own."""

import logging
import os
import threading
from collections.abc import Callable

from slapos.node.doors import Doors
from slapos.node.monitor.metrics import RESTARTS
from slapos.node.supervise.events import ProcessEvents
from slapos.node.supervise.restarts import Restarts
from slapos.protocol.errors import SlapOSError

logger = logging.getLogger(__name__)

#: Seconds between two looks at all processes, in case something was not told.
LOOK_INTERVAL = 60.0
#: Seconds between two looks at whether supervisord is there: it tells all but its own end.
ALIVE_INTERVAL = 2.0
#: So many services that are started at once are named.
SHOWN = 10


class Services:
    """Keeps supervisord running, and starts services that ended: soon at first, then ever later."""

    def __init__(self, doors: Doors, restarted: Callable[[str], None]) -> None:
        """`restarted` is called with the partition of a service that was started again."""
        self._doors = doors
        self._restarted = restarted
        self._restarts = Restarts()
        self._ended = threading.Event()
        self._events: ProcessEvents | None = None
        self._failing = False

    def run(self) -> None:
        """Watch until `end`; for a thread of its own."""
        with ProcessEvents(self._doors.settings.layout.node_socket) as events:
            self._events = events
            look_at, seen = 0.0, None
            while not self._ended.is_set():
                now = self._doors.clock.monotonic()
                try:
                    # A new one, which somebody else may have started, runs nothing by itself.
                    if now >= look_at or self._supervisord() != seen:
                        self._look(now)
                        look_at, seen = now + LOOK_INTERVAL, self._supervisord()
                    self._start_due(now)
                    self._failing = False
                except (SlapOSError, OSError) as error:
                    self._fail(error)
                    look_at = 0.0
                for event in events.wait(self._wait()):
                    self._restarts.take(event, self._doors.clock.monotonic())

    def end(self) -> None:
        """Watch no more; what runs runs on."""
        self._ended.set()
        if self._events is not None:
            self._events.wake()

    def _wait(self) -> float:
        due = self._restarts.next_due
        now = self._doors.clock.monotonic()
        return ALIVE_INTERVAL if due is None else min(max(due - now, 0.0), ALIVE_INTERVAL)

    def _look(self, now: float) -> None:
        if not self._doors.settings.forbid_supervisord_automatic_launch:
            self._doors.supervisor.ensure_running()
        self._restarts.look(self._doors.supervisor.processes(), now)

    def _start_due(self, now: float) -> None:
        started = self._restarts.due(now)
        self._doors.supervisor.start(started)
        for group, name in started:
            self._doors.metrics.count(RESTARTS)
            if len(started) <= SHOWN:
                times = self._restarts.attempts(group, name)
                again = f", for the {times}. time in a row" if times > 1 else ""
                logger.warning("%s:%s was not running, it is started%s", group, name, again)
        if len(started) > SHOWN:
            logger.warning("%s services were not running, they are started", len(started))
        for group in {group for group, _ in started}:
            self._restarted(group)

    def _supervisord(self) -> int | None:
        """Return the process id of supervisord, None when it is not there; without asking it."""
        try:
            pid = int(self._doors.settings.layout.supervisor_pid_file.read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def _fail(self, error: SlapOSError | OSError) -> None:
        if not self._failing:
            logger.error("the services of this node cannot be watched: %s", error)
        self._failing = True
