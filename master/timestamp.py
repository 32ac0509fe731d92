"""Times as they travel: the timestamp of what a node has to do, and times in ISO 8601."""

from datetime import UTC, datetime

from slapos.protocol.errors import InvalidRequest


def to_timestamp(moment: datetime) -> str:
    """Return a time as it travels: seconds since 1970, as text, to be compared only."""
    return f"{moment.timestamp():.6f}"


def from_timestamp(text: str) -> datetime:
    """Read what `to_timestamp` wrote."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{text!r} is no timestamp") from error


def read_moment(text: str) -> datetime:
    """Read a time in ISO 8601 that says in which time zone it is."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it does not say in which time zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{text[:60]!r} is no time in ISO 8601: {error}") from error
