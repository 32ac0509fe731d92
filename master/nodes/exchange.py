"""Counting what a node is told: each transaction that changes it makes the node's version grow.

Whoever has kept what it made for a version may go on using it as long as the version is the same;
the version is in the database, so that holds for any number of processes. It is counted at the very
end of a transaction, in one order: so that two transactions cannot wait for each other here.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, event, update
from sqlalchemy.orm import Session, sessionmaker

from slapos.master.database import Base
from slapos.master.nodes.model import NodeExchange

# On the table, as no session holds what they change: it is read anew each time.
_EXCHANGES = Base.metadata.tables[NodeExchange.__tablename__]
_OF_NODE = _EXCHANGES.c.node_id == bindparam("node")
COUNT = update(_EXCHANGES).where(_OF_NODE).values(version=_EXCHANGES.c.version + 1)
HEAR = update(_EXCHANGES).where(_OF_NODE).values(contacted_at=bindparam("now"))

_TOLD = "slapos_told_nodes"
_HEARD = "slapos_heard_nodes"


def count_exchanges(sessions: sessionmaker[Session]) -> None:
    """Have the sessions of this maker count."""
    event.listen(sessions, "after_flush", _collect)
    event.listen(sessions, "before_commit", _count)
    event.listen(sessions, "after_rollback", _forget)


def touch(session: Session, node_id: int) -> None:
    """Count a change of what a node is told that is not a change of an object of its own."""
    session.info.setdefault(_TOLD, set()).add(node_id)


def heard_from(session: Session, node_id: int, now: datetime) -> None:
    """Remember that a node has just said something."""
    session.info.setdefault(_HEARD, {})[node_id] = now


def _collect(session: Session, _context: Any) -> None:
    changed = [*session.new, *session.deleted]
    changed += [item for item in session.dirty if session.is_modified(item)]
    for item in changed:
        node_id = item.seen_by()
        if node_id is not None:
            touch(session, node_id)


def _count(session: Session) -> None:
    session.flush()
    told: set[int] = session.info.pop(_TOLD, set())
    heard: dict[int, datetime] = session.info.pop(_HEARD, {})
    for node_id in sorted(told | heard.keys()):
        if node_id in told:
            session.execute(COUNT, {"node": node_id})
        if node_id in heard:
            session.execute(HEAR, {"node": node_id, "now": heard[node_id]})


def _forget(session: Session) -> None:
    session.info.pop(_TOLD, None)
    session.info.pop(_HEARD, None)
