"""What the master does with nodes by itself."""

from datetime import timedelta

from slapos.master.nodes import operate, service
from slapos.master.tasks.task import Done, Task, Turn

#: How many nodes are looked at in one transaction.
PIECE = 100


def _invalidate_closed(turn: Turn) -> Done:
    references, resume = turn.keys, ""
    if references is None:
        sought = {"behind": turn.resume, "limit": PIECE}
        references = turn.session.scalars(operate.CLOSED, sought).all()
        resume = references[-1] if len(references) == PIECE else ""
    gone = [
        operate.invalidate_if_empty(turn.session, each, turn.clock.now())
        for each in sorted(references)
    ]
    return Done(count=sum(gone), resume=resume)


TASKS = (
    Task(
        name=service.INVALIDATE_CLOSED_NODES,
        summary="take nodes that are closed for ever out of use, once nothing is on them",
        run=_invalidate_closed,
        every=timedelta(days=1),
    ),
)
