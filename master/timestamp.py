"""The timestamp of what a node has to do, as it travels."""

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
