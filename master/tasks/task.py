"""What a task is, and how a room says that one is due: `sense`, in the transaction of the change.

A room declares its tasks in its `tasks.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from slapos.master.settings import Settings
from slapos.master.tasks.model import AT_ONCE, TaskMark
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

if TYPE_CHECKING:  # it knows what senses tasks
    from slapos.master.provisioning.policy import Policy

#: What a session's `info` says: that it has sensed a task, and who of this process waits for that.
SENSED = "slapos_sensed"
RUNNER = "slapos_task_runner"
#: The channel on which a process without a runner tells the others, on PostgreSQL.
CHANNEL = "slapos_tasks"
NOTIFY = select(func.pg_notify(CHANNEL, ""))

#: Takes in, in a transaction of its own, what was found out elsewhere; returns how much it did.
Apply = Callable[[Session], int]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a task has for one transaction, which is committed after it and may be repeated.

    `keys` are what it was sensed for, at most `Task.batch` of them, each once; None: everything.
    Then `resume` is what its last turn said of where to go on, "" at the beginning.
    """

    session: Session
    clock: Clock
    identifiers: Identifiers
    settings: Settings
    policy: "Policy"
    keys: Sequence[str] | None = None
    resume: str = ""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a turn.

    `count` is how much was done, for people. `resume` is where the next turn goes on with
    everything; "" when it has come to the end. `elsewhere` is what takes the network, for a turn
    with keys: it is called after the commit, without a transaction, and what it returns is called
    in a new one. The keys count as done after that. It may happen again, also at the same time
    elsewhere if it takes longer than `Task.patience`: so what is applied has to check that nothing
    has changed meanwhile.
    """

    count: int = 0
    resume: str = ""
    elsewhere: Callable[[], Apply] | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that the master does by itself, in one process at a time.

    It is done when it is sensed, and for everything each `every` (None: never), as a safety net.
    `run` changes what is to be changed, does not commit, and may be repeated at any time: killed on
    the way, it has done nothing, and is done again. What it does for everything comes in pieces, by
    `Done.resume`, none longer than a second or so: each holds the lock of what it changes (SQLite:
    of everything).
    """

    name: str
    summary: str
    run: Callable[[Turn], Done]
    every: timedelta | None = None
    batch: int = 100
    patience: timedelta = timedelta(minutes=2)
    #: Whether the local profile does it too.
    in_local: bool = True


def sense(session: Session, name: str, key: str = "", *, at: datetime | None = None) -> None:
    """Have a task done for `key` (for everything without), at some time or at once.

    It is done after this transaction is committed, and not if it is undone.
    """
    row = {"name": name, "key": key, "not_before": at or AT_ONCE, "attempts": 0}
    session.execute(insert(TaskMark), row)
    session.info[SENSED] = True
    if RUNNER not in session.info and session.get_bind().dialect.name == "postgresql":
        session.execute(NOTIFY)
