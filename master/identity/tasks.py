"""What identity does by itself: it forgets what does not count any more."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select

from slapos.master.identity.attempts import FORGOTTEN
from slapos.master.identity.authentication import IDLE
from slapos.master.identity.credentials import Attempts, OneTimeLink, OpenidAttempt, SignIn
from slapos.master.tasks.task import Done, Task, Turn

PIECE = 1000
#: Invitations and tokens that have ended stay: people see in their lists that they have.


def _forget(turn: Turn) -> Done:
    now = turn.clock.now()
    over: tuple[tuple[Any, Any], ...] = (
        (SignIn.id, (SignIn.expires_at <= now) | (SignIn.used_at < now - 2 * IDLE)),
        (OneTimeLink.id, OneTimeLink.expires_at <= now),
        (OpenidAttempt.hash, OpenidAttempt.expires_at <= now),
        (Attempts.key, Attempts.last_at < now - 2 * FORGOTTEN),
    )
    count, is_full = 0, False
    for key, condition in over:
        found = turn.session.scalars(select(key).where(condition).limit(PIECE)).all()
        if found:
            turn.session.execute(
                delete(key.class_).where(key.in_(found)),
                execution_options={"synchronize_session": False},
            )
        count, is_full = count + len(found), is_full or len(found) == PIECE
    return Done(count=count, resume="on" if is_full else "")


TASKS = (
    Task(
        name="forget_sign_ins",
        summary="forget sessions, links and failed attempts to sign in that are over",
        run=_forget,
        every=timedelta(hours=1),
        in_local=False,
    ),
)
