"""What keeps tasks themselves in order."""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.engine import CursorResult

from slapos.master.tasks.model import AT_ONCE, TaskMark
from slapos.master.tasks.schedule import LONGEST_WAIT
from slapos.master.tasks.task import Done, Task, Turn


def mend_marks(turn: Turn) -> Done:
    """Have marks done that failed and wait for longer than any does: a clock was ahead."""
    latest = turn.clock.now() + LONGEST_WAIT
    mended = turn.session.execute(
        update(TaskMark)
        .where(TaskMark.attempts > 0, TaskMark.not_before > latest)
        .values(not_before=AT_ONCE),
        execution_options={"synchronize_session": False},
    )
    assert isinstance(mended, CursorResult)
    return Done(count=mended.rowcount)


TASKS = (
    Task(
        name="mend_marks",
        summary="have done what failed and waits for longer than it may, after a clock was wrong",
        run=mend_marks,
        every=timedelta(hours=1),
    ),
)
