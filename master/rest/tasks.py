"""What becomes of kept answers."""

from datetime import timedelta

from sqlalchemy import delete, select

from slapos.master.rest.idempotency import KEPT_FOR
from slapos.master.rest.kept_answer import KeptAnswer
from slapos.master.tasks.task import Done, Task, Turn

#: Answers that are forgotten in one transaction.
PIECE = 1000


def _forget(turn: Turn) -> Done:
    before = turn.clock.now() - KEPT_FOR
    old = select(KeptAnswer.digest).where(KeptAnswer.made_at < before).limit(PIECE)
    digests = turn.session.scalars(old).all()
    if digests:
        turn.session.execute(
            delete(KeptAnswer).where(KeptAnswer.digest.in_(digests)),
            execution_options={"synchronize_session": False},
        )
    return Done(count=len(digests), resume="on" if len(digests) == PIECE else "")


TASKS = (
    Task(
        name="forget_kept_answers",
        summary="forget the answers that were kept for who asks twice",
        run=_forget,
        every=timedelta(hours=1),
    ),
)
