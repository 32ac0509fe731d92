"""What becomes of old entries."""

from datetime import timedelta

from slapos.master.audit import service
from slapos.master.tasks.task import Done, Task, Turn


def _forget(turn: Turn) -> Done:
    before = turn.clock.now() - timedelta(days=turn.settings.audit_days)
    count = service.forget(turn.session, before)
    return Done(count=count, resume="on" if count == service.PIECE else "")


TASKS = (
    Task(
        name="forget_audit_log",
        summary="forget what is in the audit log for longer than audit_days",
        run=_forget,
        every=timedelta(days=1),
        in_local=False,
    ),
)
