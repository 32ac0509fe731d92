import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.node.supervise.events import (
    DATAGRAM,
    Announcer,
    ProcessEvent,
    ProcessEvents,
    read_events,
)


@pytest.fixture
def path() -> Iterator[Path]:
    # Not below pytest's own folder, which may be too deep for a socket.
    with tempfile.TemporaryDirectory(prefix="events-") as folder:
        yield Path(folder) / "node.sock"


def event(number: int = 1, name: str = "web-on-watch") -> ProcessEvent:
    return ProcessEvent(
        event="EXITED",
        group="slappart0",
        name=name,
        from_state="RUNNING",
        pid=number,
        expected=False,
        at=12.5,
    )


def test_an_event_comes_as_it_was_sent(path: Path) -> None:
    with ProcessEvents(path) as events:
        Announcer(path).send(event(name='"é\n-on-watch'))
        assert events.wait(5.0) == [event(name='"é\n-on-watch')]
        assert events.receive() == []


def test_only_its_owner_may_send(path: Path) -> None:
    with ProcessEvents(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_an_agent_nothing_is_kept(path: Path) -> None:
    announcer = Announcer(path)
    announcer.send(event(1))
    with ProcessEvents(path):
        pass
    announcer.send(event(2))
    with ProcessEvents(path) as events:
        announcer.send(event(3))
        assert [e.pid for e in events.wait(5.0)] == [3]


def test_a_socket_that_nobody_listens_on_is_taken_over(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stale.bind(str(path))
    stale.close()
    announcer = Announcer(path)
    announcer.send(event(1))
    with ProcessEvents(path) as events:
        announcer.send(event(2))
        assert [e.pid for e in events.wait(5.0)] == [2]
    assert not path.exists()


def test_an_agent_that_ends_leaves_the_socket_of_its_successor(path: Path) -> None:
    first = ProcessEvents(path)
    with ProcessEvents(path) as second:
        first.close()
        Announcer(path).send(event())
        assert second.wait(5.0)


def test_a_thousand_at_once_all_come_though_nobody_reads_yet(path: Path) -> None:
    announcer = Announcer(path)
    with ProcessEvents(path) as events:
        for number in range(1000):
            announcer.send(event(number))
        found = events.receive()
        while len(found) < 1000:
            announcer.flush()
            found += events.wait(5.0)
        assert [e.pid for e in found] == list(range(1000))


def test_what_waits_for_an_agent_that_does_not_read_is_bounded(path: Path) -> None:
    announcer = Announcer(path, most_waiting=100)
    with ProcessEvents(path) as events:
        for number in range(1000):
            announcer.send(event(number))
        assert len(announcer._waiting) <= 100
        announcer.flush()
        assert events.receive()


def test_garbage_is_left_out(path: Path) -> None:
    good = event().to_line()
    assert read_events(b"") == []
    assert read_events(b"\xff{\n[]\n1\n{}\n" + good + b'{"event": 1}\n') == [event()]
    assert read_events(b"[" * DATAGRAM + b"\n" + good) == [event()]


def test_a_wait_ends_in_time_or_when_woken(path: Path) -> None:
    with ProcessEvents(path) as events:
        assert events.wait(0.0) == []
        waker = threading.Thread(target=events.wake)
        waker.start()
        assert events.wait() == []
        waker.join()


def test_it_can_be_selected_on(path: Path) -> None:
    with ProcessEvents(path) as events:
        assert events.fileno() >= 0
