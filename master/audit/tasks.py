"""What becomes of old entries."""

from datetime import timedelta

from slapos.master.audit import refusals, service
from slapos.master.tasks.task import Done, Task, Turn


def _forget(turn: Turn) -> Done:
    before = turn.clock.now() - timedelta(days=turn.settings.audit_days)
    count = service.forget(turn.session, before)
    return Done(count=count, resume="on" if count == service.PIECE else "")


def _write_refusals(turn: Turn) -> Done:
    count = refusals.write_counted(turn.session, turn.clock)
    return Done(count=count, resume="on" if count == refusals.PIECE else "")


TASKS = (
    Task(
        name="forget_audit_log",
        summary="forget what is in the audit log for longer than audit_days",
        run=_forget,
        every=timedelta(days=1),
        in_local=False,
    ),
    Task(
        name="write_refusals",
        summary="write into the audit log how often somebody was refused",
        run=_write_refusals,
        every=timedelta(minutes=10),
        in_local=False,
    ),
)
