"""Logs: a line for each thing that is said, as text or as JSON, and none that a client has forged.

What comes from outside cannot end a line or steer a terminal: control characters are escaped.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import TextIO

from flask import g, has_request_context

#: The name of the log of requests.
ACCESS = "slapos.master.access"
#: The attribute of a record with what is said in fields of their own.
FIELDS = "slapos_fields"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(log_format: str, stream: TextIO | None = None) -> None:
    """Have everything that is logged written to a stream (stderr), as `text` or `json`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def say(log: logging.Logger, message: str, **fields: object) -> None:
    """Log a message with fields, at the level INFO."""
    log.info(message, extra={FIELDS: fields})


def escaped(text: str) -> str:
    """Return a text without control characters: each as Python would write it."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class JsonLines(logging.Formatter):
    """One JSON object on each line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        told = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class TextLines(logging.Formatter):
    """A line of text; the rest of an exception is set off from what begins a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        words = [at, record.levelname, record.name, escaped(record.getMessage())]
        words += [f"{name}={escaped(str(value))}" for name, value in _fields(record).items()]
        line = " ".join(words)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"    | {escaped(each)}" for each in trace)])
        return line


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = dict(getattr(record, FIELDS, {}))
    if has_request_context() and "request_id" not in fields and "request_id" in g:
        fields["request_id"] = g.request_id
    return fields
