"""The log of a promise: `YYYY-MM-DD HH:MM:SS - LEVEL - <seconds>-<3 digits> - message`, local time.

The third field is the same for all lines of one run.
"""

import logging
import os
import sys
import time
from collections import deque
from datetime import datetime

from slapos.node.promise.history import FAILURE_LEVELS, LogLine, Run

StrPath = str | os.PathLike[str]
#: A log larger than this is set aside (as `.1`, the one before is dropped) before the next run.
ROTATED_SIZE = 5 * 1024 * 1024
#: How much one run may write: a promise that logs in a loop must not fill the disk.
RUN_SIZE = 1024 * 1024
#: What is remembered of one run: its last lines, and each one's end.
REMEMBERED_LINES = 20
REMEMBERED_CHARACTERS = 5000


def transaction_of(now: datetime) -> str:
    """Return the mark that the lines of a run begun at `now` share."""
    return f"{int(now.timestamp())}-{100 + now.microsecond % 900}"


def rotate(path: StrPath) -> None:
    """Set a log aside when it has grown large."""
    try:
        if os.stat(path).st_size > ROTATED_SIZE:
            os.replace(path, f"{path}.1")
    except FileNotFoundError:
        return


def format_line(date: float, level: str, transaction: str, message: str) -> str:
    """Return a line of the log; a message of several lines stays as it is."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(date))
    return f"{shown} - {level} - {transaction} - {message}\n"


def append(path: StrPath, line: str) -> None:
    """Write a line at the end of a log."""
    content = line.encode("utf-8", "backslashreplace")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


class RunLog(logging.Handler):
    """Takes what a promise logs in one run: writes it to `path`, and keeps the end of it."""

    def __init__(self, path: StrPath | None, transaction: str) -> None:
        super().__init__()
        self._path = path
        self._transaction = transaction
        self._size = 0
        self._lines: deque[LogLine] = deque(maxlen=REMEMBERED_LINES)
        self._failure: LogLine | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        try:
            message = self.format(record)
        except (TypeError, ValueError) as error:
            # The author's mistake in a format must not hide what was to be said.
            message = f"{record.msg!r} {record.args!r} ({error})"
        self.write(record.created, record.levelname, message)
        end = message[-REMEMBERED_CHARACTERS:]
        line = LogLine(record.created, record.levelname, end)
        self._lines.append(line)
        if self._failure is None and line.level in FAILURE_LEVELS:
            self._failure = line

    def write(self, date: float, level: str, message: str) -> None:
        """Write a line to the file only."""
        if self._path is None or self._size > RUN_SIZE:
            return
        self._size += len(message)
        if self._size > RUN_SIZE:
            message = "more was logged in this run than is kept"
        try:
            append(self._path, format_line(date, level, self._transaction, message))
        except OSError as error:  # a full disk must not keep the promise from saying its result
            self._size = RUN_SIZE + 1
            sys.stderr.write(f"the log cannot be written: {error}\n")

    def run(self, date: float) -> Run:
        """Return what was logged so far; an error is never forgotten for what came after it."""
        lines = list(self._lines)
        if self._failure is not None and not any(ln.level in FAILURE_LEVELS for ln in lines):
            lines[0] = self._failure
        return Run(date, tuple(lines))
