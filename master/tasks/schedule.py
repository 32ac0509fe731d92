"""When tasks are due; none of it looks at a clock or a database."""

from datetime import datetime, timedelta

from slapos.master.tasks.task import Task

#: The wait after a first failure, twice that after the second, and so on up to the longest.
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=1)


def wait_after(failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row."""
    doublings = min(max(failures, 1) - 1, 20)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def looks_at(task: Task, next_at: datetime | None, now: datetime) -> datetime | None:
    """Return when a task looks at everything next.

    A time that it cannot have been given was written by a clock that went wrong: it is now.
    """
    if next_at is None:
        return now if task.every is not None else None
    furthest = now + max(task.every or LONGEST_WAIT, LONGEST_WAIT)
    return now if next_at > furthest else next_at


def due_at(
    task: Task, next_at: datetime | None, marked_for: datetime | None, now: datetime
) -> datetime | None:
    """Return when a task is due: for everything, or for the first of its marks; None: never."""
    times = [each for each in (looks_at(task, next_at, now), marked_for) if each is not None]
    return min(times, default=None)
