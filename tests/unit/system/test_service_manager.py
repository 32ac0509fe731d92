"""What systemd is told."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.system.service_manager import ServiceManager


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        yield listening


def test_it_is_told_where_it_listens(listening: socket.socket, tmp_path: Path) -> None:
    limit = {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **limit})
    manager.ready()
    manager.alive()
    manager.stopping()
    told = [listening.recv(100) for _ in range(3)]
    assert told == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert manager.interval == 2.0


def test_without_a_socket_nothing_is_told_and_no_sign_of_life_is_due() -> None:
    manager = ServiceManager({"WATCHDOG_USEC": "4000000"})
    manager.ready()
    assert manager.interval is None


def test_a_watchdog_that_is_for_another_process_is_none(tmp_path: Path) -> None:
    given = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    manager = ServiceManager(given)
    manager.ready()
    assert manager.interval is None
