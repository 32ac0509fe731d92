"""Counting what a node is told: each transaction that changes it makes the node's version grow.

Whoever has kept what it made for a version may go on using it as long as the version is the same;
the version is in the database, so that holds for any number of processes.
"""

from typing import Any

from sqlalchemy import event, update
from sqlalchemy.orm import Session, sessionmaker

from slapos.master.nodes.model import ComputeNode

_TOUCHED = "slapos_touched_nodes"


def count_versions(sessions: sessionmaker[Session]) -> None:
    """Have the sessions of this maker count."""
    event.listen(sessions, "after_flush", _collect)
    event.listen(sessions, "before_commit", _count)
    event.listen(sessions, "after_rollback", _forget)


def touch(session: Session, node_id: int) -> None:
    """Count a change of what a node is told that is not a change of an object of its own."""
    session.info.setdefault(_TOUCHED, set()).add(node_id)


def _collect(session: Session, _context: Any) -> None:
    changed = [*session.new, *session.deleted]
    changed += [item for item in session.dirty if session.is_modified(item)]
    for item in changed:
        node_id = item.seen_by()
        if node_id is not None:
            touch(session, node_id)


def _count(session: Session) -> None:
    session.flush()
    touched = session.info.pop(_TOUCHED, set())
    for node_id in sorted(touched):  # always in one order, so that two cannot wait for each other
        session.connection().execute(
            update(ComputeNode.__table__)  # type: ignore[arg-type]
            .where(ComputeNode.id == node_id)
            .values(version=ComputeNode.version + 1)
        )


def _forget(session: Session) -> None:
    session.info.pop(_TOUCHED, None)
