"""What the master does about remote nodes by itself."""

from datetime import timedelta
from functools import partial

from sqlalchemy import bindparam, select

from slapos.master.nodes.exchange import ASK_OTHER_MASTERS
from slapos.master.nodes.model import RemoteNode
from slapos.master.remote import talks
from slapos.master.remote.asking import Reach
from slapos.master.tasks.task import Done, Task, Turn, sense

#: How many remote nodes are looked at in one transaction.
PIECE = 100
SOME = (
    select(RemoteNode.node_id)
    .where(RemoteNode.node_id > bindparam("behind"))
    .order_by(RemoteNode.node_id)
    .limit(PIECE)
)


def ask_other_masters(turn: Turn, reach: Reach | None = None) -> Done:
    """Order what is on the remote nodes of the turn's keys, and take back what was published."""
    if turn.keys is None:
        found = turn.session.scalars(SOME, {"behind": int(turn.resume or 0)}).all()
        for node_id in found:
            sense(turn.session, ASK_OTHER_MASTERS, str(node_id))
        return Done(resume=str(found[-1]) if len(found) == PIECE else "")
    # In one order, as each is locked until the end of the transaction.
    begun = [talks.begin(turn, node_id) for node_id in sorted(map(int, turn.keys))]
    held = [talk for talk in begun if talk is not None]
    if not held:
        return Done()
    chosen = reach or Reach(turn.settings.remote_networks)
    return Done(elsewhere=partial(talks.hold, held, chosen, turn.clock))


TASKS = (
    Task(
        name=ASK_OTHER_MASTERS,
        summary="order what is on remote nodes at the masters there, and take back what they say",
        run=ask_other_masters,
        every=timedelta(minutes=10),
        batch=talks.THREADS,
        patience=talks.LEASE,
        in_local=False,
    ),
)
