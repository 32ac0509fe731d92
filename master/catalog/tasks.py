"""What the master does with the catalogue by itself."""

from datetime import timedelta

from slapos.master.catalog import upkeep
from slapos.master.tasks.task import Done, Task, Turn

#: How many installations are looked at, and nodes forgotten, in one transaction.
PIECE = 500


def remove_unused_installations(turn: Turn) -> Done:
    """Have releases removed that nothing uses."""
    after = int(turn.resume or 0)
    count, last = upkeep.give_up_unused(turn.session, turn.clock.now(), after, PIECE)
    return Done(count=count, resume="" if last is None else str(last))


def tidy_supplies(turn: Turn) -> Done:
    """Have supplies name only nodes and customers that there are."""
    count = upkeep.disable_without_customer(turn.session)
    return Done(count=count + upkeep.forget_gone_nodes(turn.session, PIECE))


TASKS = (
    Task(
        name="remove_unused_installations",
        summary="remove releases from nodes where no supply allows and no instance uses them",
        run=remove_unused_installations,
        every=timedelta(days=1),
        in_local=False,  # there, only people say so
    ),
    Task(
        name="tidy_supplies",
        summary="take nodes that are gone out of supplies, disable those without their customer",
        run=tidy_supplies,
        every=timedelta(days=1),
        in_local=False,
    ),
)
