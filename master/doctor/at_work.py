"""How a master's work goes: tasks, nodes, and who may look after it."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from slapos.master.identity import links
from slapos.master.nodes.contact import patience_with
from slapos.master.nodes.model import ComputeNode, ComputePartition, NodeExchange
from slapos.master.settings import Settings
from slapos.master.tasks import service as tasks
from slapos.system.clock import Clock
from slapos.system.finding import Finding, ok, warning

#: A task that is due for so long is done by nobody.
OVERDUE = timedelta(minutes=30)
#: Nodes that are named.
NAMED = 5


def check_tasks(session: Session, settings: Settings, clock: Clock) -> Iterator[Finding]:
    """See that what the master does by itself is done, and goes well."""
    now = clock.now()
    statuses = tasks.statuses(session, now, settings.profile)
    failing = [each for each in statuses if each.failures]
    for each in failing:
        last = each.error.strip().splitlines()[-1:] or ["it said nothing"]
        yield warning(
            f"the task {each.name} failed {each.failures} times in a row: {last[0]}",
            "its trace is in the master's log; `slapos master tasks` shows when it is tried again",
        )
    overdue = [each.name for each in statuses if each.next_at and each.next_at < now - OVERDUE]
    if overdue:
        yield warning(
            f"for half an hour nobody has done {', '.join(overdue)}",
            "slapos master start; where one runs, look into its log",
        )
    if not failing and not overdue:
        yield ok(f"{len(statuses)} tasks go well")


def check_nodes(session: Session, settings: Settings, clock: Clock) -> Iterator[Finding]:
    """See which nodes are silent."""
    now, lost_after = clock.now(), timedelta(seconds=settings.node_lost_after)
    is_silent = or_(
        NodeExchange.contacted_at < now - patience_with(lost_after, waits=False),
        and_(NodeExchange.waits, NodeExchange.contacted_at < now - lost_after),
    )
    of_nodes = select(ComputeNode.reference).join(NodeExchange)
    valid = of_nodes.where(ComputeNode.invalidated_at.is_(None))
    total = session.scalar(select(func.count()).select_from(valid.subquery())) or 0
    silent = valid.where(is_silent)
    count = session.scalar(select(func.count()).select_from(silent.subquery())) or 0
    if not count:
        yield ok(f"{total} nodes, none of which has gone silent")
        return
    named = session.scalars(silent.order_by(NodeExchange.contacted_at.desc()).limit(NAMED)).all()
    more = f" and {count - len(named)} more" if count > len(named) else ""
    yield warning(
        f"{count} of {total} nodes have gone silent: {', '.join(named)}{more}",
        "on the node: slapos node doctor; `slapos master node list` shows when each was heard last",
    )


def check_left(session: Session, _settings: Settings, _clock: Clock) -> Iterator[Finding]:
    """See whether nodes have found instances that are not known here, as after a restore."""
    is_left = ComputePartition.left_since.is_not(None)
    count = session.scalar(select(func.count()).select_from(ComputePartition).where(is_left)) or 0
    if not count:
        yield ok("no node has an instance that is not known here")
        return
    found = session.execute(
        select(ComputePartition.left_instance, ComputeNode.reference, ComputePartition.reference)
        .join(ComputeNode)
        .where(is_left)
        .order_by(ComputePartition.left_since)
        .limit(NAMED)
    ).all()
    named = ", ".join(f"{instance} in {node} {place}" for instance, node, place in found)
    more = f" and {count - len(found)} more" if count > len(found) else ""
    yield warning(
        f"{count} instances run that are not known here: {named}{more}",
        "have their customers order anew, and save on the nodes what is needed of them: each is "
        "ended and removed when its partition is given to another instance",
    )


def check_people(session: Session, settings: Settings, _clock: Clock) -> Iterator[Finding]:
    """See that somebody may administer the master, and reaches what is sent to him."""
    if links.has_administrator(session):
        yield ok("there is an administrator")
    else:
        yield warning(
            "there is no administrator yet", "slapos master init prints a link to become the first"
        )
