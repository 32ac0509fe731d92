"""Threads of a web process that do what is due; when nothing is, they only wait."""

import logging
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from slapos.master.tasks.model import TaskMark, TaskState
from slapos.master.tasks.schedule import due_at
from slapos.master.tasks.task import RUNNER, SENSED, Task
from slapos.master.tasks.worker import Doors, Outcome, make_rows, work_off

#: Seconds between two looks into the database: for what another process has marked.
POLL = 5.0
#: Seconds until another look when somebody else is at what is due.
HELD = 0.25
#: Seconds before another look when the database failed, or a task was stopped by that.
PAUSE = 1.0

LOOK = select(
    TaskState.name,
    TaskState.next_at,
    select(func.min(TaskMark.not_before))
    .where(TaskMark.name == TaskState.name)
    .scalar_subquery()
    .label("marked_for"),
)

log = logging.getLogger(__name__)


class Runner:
    """Looks what is due, and does it, until it is stopped."""

    def __init__(self, doors: Doors, tasks: Mapping[str, Task]) -> None:
        self._doors, self._tasks = doors, tasks
        self._changed = threading.Condition()
        self._wakes = 0
        self._stopped = False
        self._making_rows = threading.Lock()
        self._has_rows = False
        #: What the threads of this process are at: only to spare them asking the database.
        self._at: set[str] = set()
        # Of SQLite's writers one writes at a time.
        count = 1 if doors.database.engine.dialect.name == "sqlite" else 2
        self._threads = [
            threading.Thread(target=self._work, name=f"task-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Begin; from now on what a transaction of this process senses is done at once."""
        sessions = self._doors.database.writing
        sessions.configure(info={**sessions.kw.get("info", {}), RUNNER: self})
        event.listen(sessions, "after_commit", self._heed)
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look now; callable from any thread."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Have the threads end after the transactions that they are at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def is_working(self) -> bool:
        """Whether a thread is there, be it that it only waits."""
        return any(thread.is_alive() for thread in self._threads)

    def _heed(self, session: Session) -> None:
        if not session.in_nested_transaction() and session.info.pop(SENSED, False):
            self.wake()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _work(self) -> None:
        while not self._stopped:
            seen = self._wakes
            try:
                self._have_rows()
                wait = self.round()
            except SQLAlchemyError as error:
                log.warning("tasks wait, as the database fails: %s", error)
                wait = PAUSE
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._wakes != seen, wait)  # noqa: B023

    def _have_rows(self) -> None:
        with self._making_rows:
            if not self._has_rows:
                make_rows(self._doors, self._tasks)
                self._has_rows = True

    def round(self) -> float:
        """Do what is due, each task for a while; return after how many seconds to look again."""
        now = self._doors.clock.now()
        wait, worked = POLL, False
        for task, due in self._look(now):
            if due > now:
                wait = min(wait, (due - now) / timedelta(seconds=1))
            elif not self._stopped:
                outcome = self._do(task)
                worked = worked or outcome is Outcome.WORKED
                if outcome is Outcome.HELD:
                    wait = min(wait, HELD)
        return 0.0 if worked else wait

    def _look(self, now: datetime) -> list[tuple[Task, datetime]]:
        with self._doors.database.looking.connect() as connection:
            rows = connection.execute(LOOK).all()
        known = [(self._tasks[row.name], row) for row in rows if row.name in self._tasks]
        found = [(task, due_at(task, row.next_at, row.marked_for, now)) for task, row in known]
        return sorted(
            ((task, due) for task, due in found if due is not None), key=lambda each: each[1]
        )

    def _do(self, task: Task) -> Outcome:
        with self._changed:
            if task.name in self._at:
                return Outcome.HELD
            self._at.add(task.name)
        try:
            return work_off(self._doors, task, self._is_stopped)
        finally:
            with self._changed:
                self._at.discard(task.name)
