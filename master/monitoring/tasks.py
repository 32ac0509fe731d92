"""What is watched by itself."""

from datetime import timedelta

from slapos.master.monitoring import losses, promises
from slapos.master.monitoring.model import WATCH
from slapos.master.tasks.task import Done, Task, Turn


def watch_nodes(turn: Turn) -> Done:
    """Look which nodes are lost, and which are back."""
    lost_after = timedelta(seconds=turn.settings.node_lost_after)
    return Done(count=losses.look(turn.session, turn.clock.now(), lost_after))


def forget_promise_changes(turn: Turn) -> Done:
    """Forget how promises did long ago."""
    count = promises.forget_old(turn.session, turn.clock.now() - promises.REMEMBERED)
    return Done(count=count, resume="more" if count == promises.PIECE else "")


TASKS = (
    Task(
        name=WATCH,
        summary="notice nodes that are silent for too long, and have what is on them given up",
        run=watch_nodes,
        every=timedelta(seconds=15),
        in_local=False,
    ),
    Task(
        name="forget_promise_changes",
        summary="forget when promises failed or held again, after 90 days",
        run=forget_promise_changes,
        every=timedelta(days=1),
    ),
)
