"""Whether a node is there, by when it was heard of last; none of it looks at a clock."""

from datetime import datetime, timedelta
from enum import StrEnum

#: How many times as long a node may be silent that does not wait on the change feed.
RARE = 5


class ContactStatus(StrEnum):
    """Whether a node is there."""

    ONLINE = "online"
    #: Silent for more than half of what makes it lost.
    LATE = "late"
    LOST = "lost"


def patience_with(lost_after: timedelta, *, waits: bool) -> timedelta:
    """Return how long a node may be silent: one that waits on the feed is heard all the time."""
    return lost_after if waits else RARE * lost_after


def contact_status(
    contacted_at: datetime | None, now: datetime, lost_after: timedelta, *, waits: bool
) -> ContactStatus | None:
    """Return whether a node is there, None for one that was never heard of."""
    if contacted_at is None:
        return None
    silence, patience = now - contacted_at, patience_with(lost_after, waits=waits)
    if silence > patience:
        return ContactStatus.LOST
    return ContactStatus.LATE if 2 * silence > patience else ContactStatus.ONLINE
