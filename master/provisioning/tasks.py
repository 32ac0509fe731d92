"""What the master does with instances by itself."""

from datetime import timedelta

from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning import queue, waiting
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


TASKS = (
    Task(
        name=ALLOCATE_INSTANCES,
        summary="look for places for the instances that wait for one",
        run=allocate_instances,
        every=timedelta(minutes=10),
    ),
)
