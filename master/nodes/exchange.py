"""Counting what a node is told: each transaction that changes it makes the node's version grow.

Whoever has kept what it made for a version may go on using it as long as the version is the same;
the version is in the database, so that holds for any number of processes. It is counted at the very
end of a transaction, in one order: so that two transactions cannot wait for each other here.

A transaction that gives a node something to do also marks its change with a new word. That is the
token of the change feed: no number, as a database that is restored from yesterday counts again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Text, bindparam, cast, event, exists, func, update
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from slapos.master.database import Base, follow_made
from slapos.master.monitoring.model import WATCH, NodeLoss
from slapos.master.nodes.model import NodeExchange
from slapos.master.tasks.task import sense
from slapos.system.identifier import Identifiers

#: The channel on which the masters of one PostgreSQL tell each other the ids of changed nodes.
CHANNEL = "slapos_changes"
MARK_LENGTH = 16

# On the table, as no session holds what they change: it is read anew each time.
_EXCHANGES = Base.metadata.tables[NodeExchange.__tablename__]
_OF_NODE = _EXCHANGES.c.node_id == bindparam("node")
COUNT = update(_EXCHANGES).where(_OF_NODE).values(version=_EXCHANGES.c.version + 1)
_MARK = COUNT.values(change=bindparam("mark"))
MARK = _MARK.returning(_EXCHANGES.c.is_remote)
MARK_AND_NOTIFY = _MARK.returning(
    _EXCHANGES.c.is_remote, func.pg_notify(CHANNEL, cast(_EXCHANGES.c.node_id, Text))
)
#: It gives whether the node was lost: nothing more is done for the others.
HEAR = (
    update(_EXCHANGES)
    .where(_OF_NODE)
    .values(contacted_at=bindparam("now"), waits=False)
    .returning(exists().where(NodeLoss.node_id == bindparam("node")))
)

_PENDING = "slapos_exchange"
#: The task that orders what is on remote nodes at the masters behind them; its keys are ids of
#: nodes.
ASK_OTHER_MASTERS = "ask_other_masters"

Announce = Callable[[Collection[int]], None]


class Announcer:
    """Passes on which nodes have something to do, to those in this process that listen."""

    def __init__(self) -> None:
        self.listeners: list[Announce] = []

    def __call__(self, node_ids: Collection[int]) -> None:
        """Say that these nodes have something to do: it has just been committed."""
        for listener in self.listeners:
            listener(node_ids)


@dataclass
class _Pending:
    """What a transaction has to count at its end, by nodes."""

    told: set[int] = field(default_factory=set)
    acting: set[int] = field(default_factory=set)
    heard: dict[int, datetime] = field(default_factory=dict)


def count_exchanges(
    sessions: sessionmaker[Session], identifiers: Identifiers, announce: Announce | None = None
) -> None:
    """Have the sessions of this maker count.

    `announce` is called after a commit with the ids of the nodes that have something to do; it
    tells other processes, too. Without it the transactions themselves do, on PostgreSQL.
    """

    def count(session: Session) -> None:
        _count(session, identifiers, notifies=announce is None)

    def tell(session: Session) -> None:
        if not session.in_nested_transaction():
            acting = _pop(session).acting
            if acting and announce is not None:
                announce(acting)

    event.listen(sessions, "after_flush", _collect)
    follow_made(sessions, _touch_each)
    event.listen(sessions, "before_commit", count)
    event.listen(sessions, "after_commit", tell)
    event.listen(sessions, "after_soft_rollback", _forget)


def touch(session: Session, node_id: int) -> None:
    """Count a change of what a node has to do that is not a change of an object of its own."""
    pending = _pending(session)
    pending.told.add(node_id)
    pending.acting.add(node_id)


def tell_anew(session: Session, node_id: int) -> None:
    """Count a change of what a node is told that gives it nothing to do."""
    _pending(session).told.add(node_id)


def heard_from(session: Session, node_id: int, now: datetime) -> None:
    """Remember that a node has just said something."""
    _pending(session).heard[node_id] = now


def _pending(session: Session) -> _Pending:
    found: _Pending = session.info.setdefault(_PENDING, _Pending())
    return found


def _pop(session: Session) -> _Pending:
    found: _Pending = session.info.pop(_PENDING, _Pending())
    return found


def _touch_each(session: Session, things: Sequence[Base]) -> None:
    for item in things:
        node_id = item.seen_by()
        if node_id is not None:
            touch(session, node_id)


def _collect(session: Session, _context: Any) -> None:
    _touch_each(session, (*session.new, *session.deleted))
    for item in session.dirty:
        node_id = item.seen_by()
        if node_id is not None and session.is_modified(item):
            _pending(session).told.add(node_id)
            if item.is_acted_on():
                _pending(session).acting.add(node_id)


def _count(session: Session, identifiers: Identifiers, *, notifies: bool) -> None:
    session.flush()
    if session.in_nested_transaction():
        return  # a savepoint is kept: the transaction goes on
    pending = _pending(session)
    notifies = notifies and session.get_bind().dialect.name == "postgresql"
    for node_id in sorted(pending.told | pending.heard.keys()):
        if node_id in pending.acting:
            mark = {"node": node_id, "mark": identifiers.token(MARK_LENGTH)}
            marked = session.execute(MARK_AND_NOTIFY if notifies else MARK, mark)
            if marked.scalar():  # nobody waits for it: we tell the master behind it
                sense(session, ASK_OTHER_MASTERS, str(node_id))
        elif node_id in pending.told:
            session.execute(COUNT, {"node": node_id})
        if node_id in pending.heard:
            heard = {"node": node_id, "now": pending.heard[node_id]}
            if session.execute(HEAR, heard).scalar():
                sense(session, WATCH)


def _forget(session: Session, undone: SessionTransaction) -> None:
    if undone.nested:
        return  # what is left of the transaction counts; once too often does no harm
    _pop(session)
