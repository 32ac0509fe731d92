"""What came of a promise, and the document it is kept and passed on as (slap-node.md §5.4)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from slapos.protocol.errors import MalformedDocument

Kind = Literal["Test Result", "Anomaly Result"]
Mode = Literal["test", "anomaly"]
KINDS: dict[Mode, Kind] = {"test": "Test Result", "anomaly": "Anomaly Result"}

DATE_FORMAT = "%Y-%m-%dT%H:%M:%S+0000"
#: The longest message kept, in characters: its end.
MESSAGE_LENGTH = 5000


@dataclass(frozen=True, kw_only=True)
class PromiseResult:
    """What a promise found: `date` is in UTC, `execution_time` in seconds.

    `since` is when it began to hold, or to fail, without a break; None where nobody kept that.
    """

    title: str
    failed: bool
    message: str
    date: datetime
    execution_time: float
    kind: Kind
    since: datetime | None = None


def shortened(message: str) -> str:
    """Return the end of a message, marked as such, when it is longer than may be kept."""
    if len(message) <= MESSAGE_LENGTH:
        return message
    return "..." + message[-MESSAGE_LENGTH:]


def to_document(result: PromiseResult, *, name: str, path: str) -> dict[str, Any]:
    """Return the result of the promise file `path` (its file name is `name`) as JSON has it."""
    document = {
        "title": result.title,
        "name": name,
        "path": path,
        "execution-time": result.execution_time,
        "result": {
            "type": result.kind,
            "failed": result.failed,
            "date": _written(result.date),
            "message": shortened(result.message),
        },
    }
    if result.since is not None:
        document["since"] = _written(result.since)
    return document


def from_document(document: Any) -> PromiseResult:
    """Return the result in a document. Raises MalformedDocument."""
    try:
        inner = document["result"]
        if inner["type"] not in KINDS.values():
            raise MalformedDocument(f"{inner['type']!r} is no kind of promise result")
        return PromiseResult(
            title=_text(document["title"]),
            failed=bool(inner["failed"]),
            message=shortened(_text(inner["message"] or "")),
            date=_read(inner["date"]),
            execution_time=float(document["execution-time"]),
            kind=cast(Kind, inner["type"]),
            since=_read(document["since"]) if "since" in document else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedDocument(f"this is no promise result: {error!r}") from error


def _written(date: datetime) -> str:
    return date.astimezone(UTC).strftime(DATE_FORMAT)


def _read(text: str) -> datetime:
    # Not strptime, which takes as long as all the rest of reading a result.
    date = datetime.fromisoformat(text)
    if date.tzinfo is None:
        raise ValueError(f"the date {text!r} has no zone")
    return date.astimezone(UTC)


def _text(value: Any) -> str:
    """Return a text that can be sent and written: a file name may have bytes that are no UTF-8."""
    return str(value).encode(errors="backslashreplace").decode()
