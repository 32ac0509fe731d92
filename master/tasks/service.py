"""How tasks are doing, and having one done now. Nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from slapos.master.identity.rights import Action, not_there, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.settings import Profile
from slapos.master.tasks.model import AT_ONCE, TaskMark, TaskState
from slapos.master.tasks.registry import tasks_of
from slapos.master.tasks.schedule import due_at
from slapos.master.tasks.task import Task, sense

WAITING = select(TaskMark.name, func.count(), func.min(TaskMark.not_before)).group_by(TaskMark.name)


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """How a task is doing.

    `began_at`, `seconds` and `done` are of its last run; `total` is all that it has done; `waiting`
    is how many marks it has; `next_at` when it is due, None when only an event makes it so.
    `failures` are those in a row; `error` and `failed_at` of the last one, however long ago.
    """

    name: str
    summary: str
    every_seconds: float | None
    began_at: datetime | None = None
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    waiting: int = 0
    next_at: datetime | None = None
    failures: int = 0
    failed_at: datetime | None = None
    error: str = ""


def statuses(session: Session, now: datetime, profile: Profile) -> Sequence[TaskStatus]:
    """Return how the tasks are doing that the caller may see, by name."""
    require(session, Action.SEE, subject("*"))
    states = {state.name: state for state in session.scalars(select(TaskState))}
    marked = {name: (count, first) for name, count, first in session.execute(WAITING)}
    return [
        _status(task, states.get(name), marked.get(name, (0, None)), now)
        for name, task in sorted(tasks_of(profile).items())
    ]


def request_run(session: Session, name: str, profile: Profile) -> None:
    """Have a task look at everything, at once; raises NotFound."""
    require(session, Action.CHANGE, subject(name))
    if name not in tasks_of(profile):
        raise not_there(subject(name))
    sense(session, name)


def subject(name: str) -> Subject:
    """Return what rights on a task go by: tasks belong to no project."""
    return Subject(Kind.TASK, name)


def _status(
    task: Task, state: TaskState | None, marked: tuple[int, datetime | None], now: datetime
) -> TaskStatus:
    count, first = marked
    every = None if task.every is None else task.every / timedelta(seconds=1)
    begin = TaskStatus(name=task.name, summary=task.summary, every_seconds=every, waiting=count)
    if state is None:  # no master that knows it has been started on this database
        return begin
    due = due_at(task, state.next_at, now if first == AT_ONCE else first, now)
    return TaskStatus(
        **vars(begin)
        | {
            "began_at": state.began_at,
            "seconds": state.milliseconds / 1000,
            "done": state.done,
            "total": state.total,
            "next_at": due,
            "failures": state.failures,
            "failed_at": state.failed_at,
            "error": state.error,
        }
    )
