"""What supervisord tells the agent of its processes, as it happens.

supervisord sends each change of a process's state to a unix socket of the agent, as lines of JSON
in datagrams. This is best effort: what was lost shows when the agent looks at all processes.
"""

import json
import os
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Bytes of one datagram, far below what sockets take by default.
DATAGRAM = 32 * 1024
#: So many changes wait for an agent that reads slowly; the oldest go first.
MOST_WAITING = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessEvent:
    """A process changed its state to `event`, `at` seconds since 1970.

    `expected` is false for one that ended with a status that is not 0.
    """

    event: str
    group: str
    name: str
    from_state: str
    pid: int
    expected: bool
    at: float

    def to_line(self) -> bytes:
        """Return it as it is sent."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def read_events(datagram: bytes) -> list[ProcessEvent]:
    """Return the events of a datagram; lines that are none are left out."""
    found = []
    for line in datagram.splitlines():
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            found.append(_event(json.loads(line)))
    return found


def _event(fields: Mapping[str, Any]) -> ProcessEvent:
    return ProcessEvent(
        event=str(fields["event"]),
        group=str(fields["group"]),
        name=str(fields["name"]),
        from_state=str(fields["from_state"]),
        pid=int(fields["pid"]),
        expected=bool(fields["expected"]),
        at=float(fields["at"]),
    )


class Announcer:
    """supervisord's side: sends events, and neither waits nor fails."""

    def __init__(self, path: Path, most_waiting: int = MOST_WAITING) -> None:
        self._path = str(path)
        self._most_waiting = most_waiting
        self._waiting: list[bytes] = []

    def send(self, event: ProcessEvent) -> None:
        """Send an event, after those that still wait."""
        self._waiting.append(event.to_line())
        del self._waiting[: -self._most_waiting]
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the agent takes it; without an agent nothing waits."""
        if not self._waiting:
            return
        # A socket for each time: supervisord closes descriptors that it does not know of.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as door:
            try:
                while self._waiting:
                    count, datagram = _filled(self._waiting)
                    door.sendto(datagram, self._path)
                    del self._waiting[:count]
            except BlockingIOError:
                return
            except OSError:
                self._waiting.clear()


def _filled(lines: list[bytes]) -> tuple[int, bytes]:
    """Return how many lines go into one datagram, and that datagram."""
    count, size = 1, len(lines[0])
    while count < len(lines) and size + len(lines[count]) <= DATAGRAM:
        size += len(lines[count])
        count += 1
    return count, b"".join(lines[:count])


class ProcessEvents:
    """The agent's side: binds the socket, and has what comes.

    One thread reads; it may select on this object, or wait.
    """

    def __init__(self, path: Path) -> None:
        """Take the socket over from an earlier agent. Raises OSError."""
        self._path = path
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._file = path.stat().st_ino
        except BaseException:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events."""
        return self._socket.fileno()

    def receive(self) -> list[ProcessEvent]:
        """Return what has come, at once."""
        found: list[ProcessEvent] = []
        with suppress(BlockingIOError):
            while True:
                found += read_events(self._socket.recv(2 * DATAGRAM))
        return found

    def wait(self, timeout: float | None = None) -> list[ProcessEvent]:
        """Wait for events, at most for `timeout` seconds; return what has come."""
        self._poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        return self.receive()

    def wake(self) -> None:
        """End the wait of another thread."""
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as door,
        ):
            door.sendto(b"", str(self._path))

    def close(self) -> None:
        """Hear no more; the socket of a later agent stays."""
        self._socket.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._file:
                os.unlink(self._path)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
