"""What the master does with instances by itself."""

from datetime import timedelta

from slapos.master.monitoring import losses
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning import orphans, queue, reallocation, waiting
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.queue import Look
from slapos.master.tasks.task import Done, Task, Turn, sense


def allocate_instances(turn: Turn) -> Done:
    """Look for places for those that wait: for what may have changed for, or for all."""
    if not isinstance(turn.policy, FullPolicy):
        return Done()  # with the local profile nobody waits
    look = Look(turn.session, turn.clock, turn.policy)
    if turn.keys is None:
        return _allocate_all(turn, look)
    for key in turn.keys:
        if look.is_long:
            sense(turn.session, ALLOCATE_INSTANCES, key)
        else:
            _allocate_for(turn, look, key)
    return Done(count=look.placed)


def _allocate_for(turn: Turn, look: Look, key: str) -> None:
    """Look at those that a key means: `<kind>:<which>`, and where to go on as `:<id>`."""
    kind, _, rest = key.partition(":")
    which, _, since = rest.partition(":")
    first = int(since or 0)
    match kind:
        case waiting.NODE:
            groups = queue.groups_for_node(turn.session, int(which), first)
        case waiting.PROJECT:
            groups = queue.groups_of_project(turn.session, int(which), first)
        case waiting.GROUP:
            groups = queue.group_of(turn.session, which)
        case _:
            return
    left = look.at_groups(groups)
    if left is not None:
        more = "" if kind == waiting.GROUP else f":{left}"
        sense(turn.session, ALLOCATE_INSTANCES, f"{kind}:{which}{more}")


def _allocate_all(turn: Turn, look: Look) -> Done:
    groups = queue.some_groups(turn.session, turn.resume)
    if look.at_groups(groups) is not None:
        for key in groups:
            sense(turn.session, ALLOCATE_INSTANCES, f"{waiting.GROUP}:{key}")
    resume = max(groups) if len(groups) == queue.LOOKED_AT else ""
    return Done(count=look.placed, resume=resume)


def collect_orphans(turn: Turn) -> Done:
    """Have those destroyed that nobody has asked for since longer than the grace."""
    until = turn.clock.now() - timedelta(days=turn.settings.orphan_grace)
    count = orphans.collect(turn.session, turn.clock, until)
    return Done(count=count, resume="more" if count == orphans.PIECE else "")


def reallocate_lost_nodes(turn: Turn) -> Done:
    """Place elsewhere what was on lost nodes, where its order allows that."""
    if not isinstance(turn.policy, FullPolicy):
        return Done()
    keys = turn.keys
    if keys is None:
        keys = turn.session.scalars(losses.GIVEN_UP, {"behind": turn.resume}).all()
    count = 0
    for reference in keys:
        moved, is_all = reallocation.empty(turn.session, turn.clock, turn.policy, reference)
        count += moved
        if not is_all:
            sense(turn.session, losses.REALLOCATE, reference)
    resume = keys[-1] if turn.keys is None and len(keys) == losses.PIECE else ""
    return Done(count=count, resume=resume)


TASKS = (
    Task(
        name="collect_orphans",
        summary="have instances destroyed that nobody has asked for since longer than the grace",
        run=collect_orphans,
        every=timedelta(minutes=10),
    ),
    Task(
        name=losses.REALLOCATE,
        summary="place elsewhere what was on lost nodes, where its order allows that",
        run=reallocate_lost_nodes,
        every=timedelta(hours=1),
        batch=1,
    ),
    Task(
        name=ALLOCATE_INSTANCES,
        summary="look for places for the instances that wait for one",
        run=allocate_instances,
        every=timedelta(minutes=10),
    ),
)
