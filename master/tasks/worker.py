"""Doing what is due of a task, in transactions that each take out the marks they were for.

Whoever does a task holds the lock of its row until the transaction ends: so no other process does
it at the same time, and what a killed one had not committed is as if it had never begun.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TypeVar

from sqlalchemy import Row, bindparam, delete, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from slapos.master.database import Database, is_passing
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.provisioning.policy import Policy
from slapos.master.settings import Settings
from slapos.master.tasks.model import TaskMark, TaskState
from slapos.master.tasks.schedule import looks_at, wait_after
from slapos.master.tasks.task import Done, Task, Turn
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

Result = TypeVar("Result")

#: How often a transaction that others get in the way of is begun before that is a failure.
ATTEMPTS = 8
#: The wait before the second attempt, in seconds; twice that before the third, and so on.
BACK_OFF = 0.01
#: Transactions for the keys of one task before others have their turn.
TURNS = 20

STATE = select(TaskState).where(TaskState.name == bindparam("name")).with_for_update()
CLAIM = STATE.with_for_update(skip_locked=True)
_DUE = (TaskMark.name == bindparam("task"), TaskMark.not_before <= bindparam("now"))
KEYED = (
    select(TaskMark.id, TaskMark.key, TaskMark.attempts)
    .where(*_DUE, TaskMark.key != "")
    .order_by(TaskMark.not_before, TaskMark.id)
    .limit(bindparam("limit"))
)
_LISTED = TaskMark.id.in_(bindparam("ids", expanding=True))
TAKE_OUT = delete(TaskMark).where(_LISTED)
PUT_OFF = update(TaskMark).where(_LISTED)
TAKE_OUT_WHOLE = delete(TaskMark).where(*_DUE, TaskMark.key == "")
PUT_OFF_WHOLE = update(TaskMark).where(*_DUE, TaskMark.key == "")
PLAINLY = {"synchronize_session": False}

_Marks = Sequence[Row[int, str, int]]
log = logging.getLogger(__name__)


class Outcome(Enum):
    """What became of looking what is due of a task."""

    NOTHING = auto()
    #: Somebody else is at it.
    HELD = auto()
    WORKED = auto()


@dataclass(frozen=True, kw_only=True)
class Doors:
    """What tasks are given, beside a session."""

    database: Database
    clock: Clock
    identifiers: Identifiers
    settings: Settings
    policy: Policy


class TaskFailed(Exception):
    """What a task raised is its cause; `marks` are those that the turn was for.

    With `apart`, each of several marks may be tried by itself: nothing of the turn was committed.
    """

    def __init__(self, marks: _Marks = (), *, apart: bool = True) -> None:
        super().__init__()
        self.marks = marks
        self.apart = apart and len(marks) > 1


def make_rows(doors: Doors, tasks: Mapping[str, Task]) -> None:
    """Have a row for each task; a new one looks at everything some time within its period."""

    def make(session: Session) -> None:
        known = set(session.scalars(select(TaskState.name)))
        for task in tasks.values():
            if task.name not in known:
                next_at = None
                if task.every is not None:
                    next_at = doors.clock.now() + task.every * doors.identifiers.fraction()
                session.add(TaskState(name=task.name, next_at=next_at))

    _commit(doors, make)


def work_off(doors: Doors, task: Task, is_stopped: Callable[[], bool]) -> Outcome:
    """Do what is due of a task: for keys in a number of transactions, for everything in one."""
    found = [_do_keys(doors, task, is_stopped)]
    if not is_stopped():
        found.append(_do_everything(doors, task))
    return next((each for each in (Outcome.WORKED, Outcome.HELD) if each in found), Outcome.NOTHING)


def _do_keys(doors: Doors, task: Task, is_stopped: Callable[[], bool]) -> Outcome:
    outcome, limit = Outcome.NOTHING, task.batch
    for _ in range(TURNS):
        if is_stopped():
            break
        try:
            count = _one_turn(doors, task, limit)
        except TaskFailed as failed:
            if failed.apart:
                limit = 1  # each by itself, so that a bad key keeps none of the others waiting
            else:
                _put_off(doors, task, failed)
            outcome = Outcome.WORKED
            continue
        if count is None:
            return Outcome.HELD if outcome is Outcome.NOTHING else outcome
        if count:
            outcome = Outcome.WORKED
        if count < limit:
            break
    return outcome


def _one_turn(doors: Doors, task: Task, limit: int) -> int | None:
    """Do a task for some of its keys; return how many marks it was for, None if it is held."""
    began = doors.clock.monotonic()
    found = _commit(doors, partial(_turn_with_keys, doors, task, limit))
    if found is None:
        return None
    marks, done = found
    if done is not None and done.elsewhere is not None:
        try:
            apply = done.elsewhere()
        except Exception as error:
            raise TaskFailed(marks, apart=False) from error
        _commit(doors, partial(_apply, doors, task, marks, apply, began))
    return len(marks)


def _turn_with_keys(
    doors: Doors, task: Task, limit: int, session: Session
) -> tuple[_Marks, Done | None] | None:
    began = doors.clock.monotonic()
    state = session.scalar(CLAIM, {"name": task.name})
    if state is None:
        return None
    now = doors.clock.now()
    marks = session.execute(KEYED, {"task": task.name, "now": now, "limit": limit}).all()
    if not marks:
        return marks, None
    ids = [mark.id for mark in marks]
    keys = list(dict.fromkeys(mark.key for mark in marks))
    done = _run(task, _turn(doors, session, keys), marks)
    if done.elsewhere is None:
        session.execute(TAKE_OUT, {"ids": ids}, execution_options=PLAINLY)
    else:
        put_off = PUT_OFF.values(not_before=now + task.patience)
        session.execute(put_off, {"ids": ids}, execution_options=PLAINLY)
    state.begin(now)
    state.went_well(done.count, doors.clock.monotonic() - began)
    return marks, done


def _apply(
    doors: Doors,
    task: Task,
    marks: _Marks,
    apply: Callable[[Session], int],
    began: float,
    session: Session,
) -> None:
    """Take in what was found out elsewhere, and take out the marks that it was for."""
    try:
        count = apply(session)
        session.flush()
    except Exception as error:
        raise TaskFailed(marks, apart=False) from error
    ids = {"ids": [mark.id for mark in marks]}
    session.execute(TAKE_OUT, ids, execution_options=PLAINLY)
    state = session.scalars(STATE, {"name": task.name}).one()
    state.went_well(count, doors.clock.monotonic() - began)


def _do_everything(doors: Doors, task: Task) -> Outcome:
    try:
        return _commit(doors, partial(_turn_for_everything, doors, task))
    except TaskFailed as failed:
        _put_off(doors, task, failed)
        return Outcome.WORKED


def _turn_for_everything(doors: Doors, task: Task, session: Session) -> Outcome:
    state = session.scalar(CLAIM, {"name": task.name})
    if state is None:
        return Outcome.HELD
    began, now = doors.clock.monotonic(), doors.clock.now()
    next_at = looks_at(task, state.next_at, now)
    is_due = next_at is not None and next_at <= now
    if not state.resume:
        # Before the first look, so that what is marked from now on calls for another run.
        due = {"task": task.name, "now": now}
        taken = session.execute(TAKE_OUT_WHOLE, due, execution_options=PLAINLY)
        assert isinstance(taken, CursorResult)
        is_due = is_due or taken.rowcount > 0
    if not is_due:
        return Outcome.NOTHING
    if not state.resume:
        state.begin(now)
    done = _run(task, _turn(doors, session, None, state.resume))
    state.went_well(done.count, doors.clock.monotonic() - began)
    state.resume = done.resume
    if done.resume:
        state.next_at = now
    else:
        state.next_at = None if task.every is None else now + task.every
    return Outcome.WORKED


def _turn(doors: Doors, session: Session, keys: Sequence[str] | None, resume: str = "") -> Turn:
    return Turn(
        session=session,
        clock=doors.clock,
        identifiers=doors.identifiers,
        settings=doors.settings,
        policy=doors.policy,
        keys=keys,
        resume=resume,
    )


def _run(task: Task, turn: Turn, marks: _Marks = ()) -> Done:
    try:
        done = task.run(turn)
        turn.session.flush()
    except Exception as error:
        raise TaskFailed(marks) from error
    return done


def _put_off(doors: Doors, task: Task, failed: TaskFailed) -> None:
    """Store that a task failed, and have it wait: for these marks, or for everything."""
    error = failed.__cause__
    log.error("the task %s failed", task.name, exc_info=error)

    def store(session: Session) -> None:
        now = doors.clock.now()
        state = session.scalars(STATE, {"name": task.name}).one()
        state.went_wrong(now, error)
        for mark in failed.marks:
            later = now + wait_after(mark.attempts + 1)
            put_off = PUT_OFF.values(not_before=later, attempts=mark.attempts + 1)
            session.execute(put_off, {"ids": [mark.id]}, execution_options=PLAINLY)
        if not failed.marks:
            state.next_at = now + wait_after(state.failures)
            session.execute(
                PUT_OFF_WHOLE.values(not_before=state.next_at),
                {"task": task.name, "now": now},
                execution_options=PLAINLY,
            )

    _commit(doors, store)


def _commit(doors: Doors, work: Callable[[Session], Result]) -> Result:
    """Do some work in a transaction, and again when another one got in its way."""
    for attempt in range(1, ATTEMPTS):
        try:
            return _once(doors, work)
        except (TaskFailed, StaleDataError, DBAPIError) as error:
            if not _is_disturbed(error.__cause__ if isinstance(error, TaskFailed) else error):
                raise
        doors.clock.sleep(BACK_OFF * 2**attempt * (0.5 + doors.identifiers.fraction()))
    return _once(doors, work)


def _once(doors: Doors, work: Callable[[Session], Result]) -> Result:
    with doors.database.writing() as session:
        serve(session, SYSTEM)
        result = work(session)
        session.commit()
        return result


def _is_disturbed(error: BaseException | None) -> bool:
    return isinstance(error, StaleDataError) or (
        isinstance(error, DBAPIError) and is_passing(error)
    )
