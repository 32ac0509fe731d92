"""Noticing nodes that are lost, once each; nothing is done when many vanish together.

Whoever places the instances of a lost node elsewhere is the task REALLOCATE, sensed with the node's
reference; it asks `is_lost` again, as the node may be back.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from slapos.master.audit.model import Act
from slapos.master.audit.recording import record
from slapos.master.identity.rights import Action, require, visible
from slapos.master.identity.subject import Kind, Subject
from slapos.master.monitoring.model import WATCH, NodeLoss, NodeWatch
from slapos.master.nodes.contact import patience_with
from slapos.master.nodes.model import AllocationScope, ComputeNode, NodeExchange
from slapos.master.nodes.service import ALLOCATE_INSTANCES, may_take_more
from slapos.master.tasks.task import sense
from slapos.system.clock import Clock

REALLOCATE = "reallocate_lost_nodes"

#: Nobody has looked for longer than this: then the masters were gone, and not the nodes.
GAP = timedelta(seconds=45)
#: What was heard so far in the future was heard by a clock that was wrong.
FUTURE = timedelta(minutes=1)
#: More nodes than this and this part of all, within this time, vanish for a reason of their own.
FEW = 5
PART = 0.2
WINDOW = timedelta(minutes=10)

HELD = select(func.count()).select_from(NodeLoss).where(NodeLoss.released_at.is_(None))
BACK = (
    delete(NodeLoss)
    .where(
        NodeLoss.node_id.in_(
            select(NodeLoss.node_id)
            .join(NodeExchange, NodeExchange.node_id == NodeLoss.node_id)
            .join(ComputeNode, ComputeNode.id == NodeLoss.node_id)
            .where(
                or_(
                    NodeExchange.contacted_at != NodeLoss.heard_at,
                    ComputeNode.invalidated_at.is_not(None),
                )
            )
        )
    )
    .returning(NodeLoss.node_id)
)
#: So many that are back are looked at one by one, more in one go over all who wait.
FEW_BACK = 20
#: Nodes that are in use and have been heard of; behind a remote one is a master, which is asked.
FLEET = (
    select(NodeExchange.node_id, NodeExchange.contacted_at)
    .join(ComputeNode, ComputeNode.id == NodeExchange.node_id)
    .where(
        ComputeNode.invalidated_at.is_(None),
        ~ComputeNode.is_remote,
        NodeExchange.contacted_at.is_not(None),
    )
)
LOST = exists().where(NodeLoss.node_id == NodeExchange.node_id)
#: How many given-up nodes are listed at once.
PIECE = 100
GIVEN_UP = (
    select(ComputeNode.reference)
    .join(NodeLoss, NodeLoss.node_id == ComputeNode.id)
    .where(NodeLoss.released_at.is_not(None), ComputeNode.reference > bindparam("behind"))
    .order_by(ComputeNode.reference)
    .limit(PIECE)
)

_PLAINLY = {"synchronize_session": False}
log = logging.getLogger(__name__)


def is_meltdown(vanished: int, fleet: int) -> bool:
    """Return whether so many of a fleet are gone that it is rather the link, or we."""
    return vanished > FEW and vanished > PART * fleet


def look(session: Session, now: datetime, lost_after: timedelta) -> int:
    """Note which nodes are lost and which are back; have what is on lost ones given up.

    Those that wait for a place are looked at when nodes are back: there may be one.

    Return how many were lost since the last look.
    """
    watch = _begin_look(session, now)
    _look_for_places(session, session.scalars(BACK, execution_options=_PLAINLY).all())
    silent = _silent(now, watch.listening_since, lost_after)
    found = session.execute(silent).all()
    if found:
        rows = [{"node_id": node, "heard_at": heard, "lost_at": now} for node, heard in found]
        session.execute(insert(NodeLoss), rows)
    held = session.scalar(HELD) or 0
    if held and _have_vanished_together(session, now):
        if watch.braked_since is None:
            log.error("%s nodes vanished together: nothing on them is placed elsewhere", held)
            watch.braked_since = now
    else:
        watch.braked_since = None
        _give_up(session, now)
    return len(found)


def release(session: Session, clock: Clock) -> int:
    """Give up what is on the nodes that are held back: an operator says that they are gone.

    Return how many nodes that were.
    """
    subject = Subject(Kind.TASK, WATCH)
    require(session, Action.CHANGE, subject)
    count = _give_up(session, clock.now())
    record(session, clock, Act.CHANGE, subject, {"released_nodes": count})
    return count


def is_lost(session: Session, node_id: int) -> bool:
    """Return whether a node is given up: it is lost, and not held back."""
    released = NodeLoss.released_at.is_not(None)
    return bool(session.scalar(select(exists().where(NodeLoss.node_id == node_id, released))))


def braked_since(session: Session) -> datetime | None:
    """Return since when nothing is done about nodes that vanished together."""
    watch = session.get(NodeWatch, 1)
    return None if watch is None else watch.braked_since


def losses(session: Session) -> Select[NodeLoss]:
    """Return a SELECT of the losses of nodes that the caller may see."""
    statement = select(NodeLoss).join(NodeLoss.node)
    return visible(
        session, statement, Kind.NODE, project=ComputeNode.project_id, node=ComputeNode.id
    )


def _look_for_places(session: Session, back: Sequence[int]) -> None:
    if len(back) > FEW_BACK:
        sense(session, ALLOCATE_INSTANCES)
        return
    for node_id in back:
        node = session.get_one(ComputeNode, node_id)
        if node.invalidated_at is None and node.allocation_scope == AllocationScope.OPEN:
            may_take_more(session, node)


def _begin_look(session: Session, now: datetime) -> NodeWatch:
    watch = session.get(NodeWatch, 1)
    if watch is None:
        watch = NodeWatch(id=1, looked_at=now, listening_since=now)
        session.add(watch)
    elif not timedelta(0) <= now - watch.looked_at <= GAP:
        watch.listening_since = now
    watch.looked_at = now
    session.flush()
    return watch


def _give_up(session: Session, now: datetime) -> int:
    held = session.execute(
        select(NodeLoss.node_id, ComputeNode.reference)
        .join(ComputeNode, ComputeNode.id == NodeLoss.node_id)
        .where(NodeLoss.released_at.is_(None))
    ).all()
    for _node_id, reference in held:
        sense(session, REALLOCATE, reference)
    session.execute(
        update(NodeLoss).where(NodeLoss.released_at.is_(None)).values(released_at=now),
        execution_options=_PLAINLY,
    )
    return len(held)


def _silent(
    now: datetime, listening_since: datetime, lost_after: timedelta
) -> Select[int, datetime | None]:
    """Return a SELECT of those that were silent for too long, and are not noted as lost."""
    too_long = [
        and_(NodeExchange.waits.is_(waits), _is_before(now - patience, now))
        for waits in (True, False)
        if now - listening_since > (patience := patience_with(lost_after, waits=waits))
    ]
    return FLEET.where(or_(false(), *too_long), ~LOST)


def _is_before(moment: datetime, now: datetime) -> ColumnElement[bool]:
    """Return that a node was heard before a moment, or in a future that was none."""
    heard_at = NodeExchange.contacted_at
    return or_(heard_at < moment, heard_at > now + FUTURE)


def _have_vanished_together(session: Session, now: datetime) -> bool:
    lately = or_(NodeLoss.released_at.is_(None), NodeLoss.lost_at > now - WINDOW)
    vanished = session.scalar(select(func.count()).select_from(NodeLoss).where(lately)) or 0
    there = session.scalar(select(func.count()).select_from(FLEET.where(~LOST).subquery())) or 0
    return is_meltdown(vanished, there + vanished)
