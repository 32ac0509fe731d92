"""What a node said last of an instance, and what becomes of that when it says something again."""

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class Reported:
    """What was said last; `about` is the timestamp of the order that the node went by.

    `since` is since when it is so.
    """

    state: str | None
    error: str
    at: datetime | None
    about: datetime | None
    since: datetime | None

    def with_state(
        self, state: str, now: datetime, about: datetime, since: datetime | None
    ) -> "Reported":
        """Return what is known once the node has brought about a state; `since` is its word."""
        changed = self.state != state or self.error != ""
        return replace(self, state=state, error="")._settled(now, about, since, changed=changed)

    def with_error(
        self, message: str, now: datetime, about: datetime, since: datetime | None
    ) -> "Reported":
        """Return what is known once the node has failed."""
        message = message or "no reason was given"
        changed = self.error != message
        return replace(self, error=message)._settled(now, about, since, changed=changed)

    def _settled(
        self, now: datetime, about: datetime, since: datetime | None, *, changed: bool
    ) -> "Reported":
        began = self.since
        if since is not None:
            began = min(since, now)
        elif changed or began is None or self.about != about:
            began = now
        return replace(self, at=now, about=about, since=began)
