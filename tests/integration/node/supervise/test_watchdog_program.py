"""The watchdog under a real supervisord, with a master that is away at first."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from slapos.node.supervise.watchdog import BANGED, DEPLOYED, command_line, section

CONFIGURATION = """\
[supervisord]
nodaemon = true
{user}logfile = {root}/supervisord.log
pidfile = {root}/supervisord.pid
childlogdir = {root}

[group:slappart0]
programs = slappart0_web

[program:slappart0_web]
process_name = web-on-watch
command = /bin/sh -c "exit 3"
startsecs = 0
startretries = 0
autorestart = false
"""


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def master(port: int, posted: list[dict[str, str]]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            posted.append({"call": self.path, **form})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def root() -> Iterator[Path]:
    """An instance root with one deployed partition, and a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="slapos-") as name:
        folder = Path(name)
        (folder / "slappart0").mkdir()
        (folder / "slappart0" / DEPLOYED).write_text("1795353918.4582825")
        (folder / "var" / "log").mkdir(parents=True)
        yield folder


@contextmanager
def supervisord(root: Path, port: int) -> Iterator[None]:
    command = command_line(
        sys.executable, master_url=f"http://127.0.0.1:{port}", node="COMP-1", instance_root=root
    )
    user = "user = root\n" if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(root=root, user=user) + section(command, root)
    (root / "supervisord.conf").write_text(text)
    program = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(root / "supervisord.conf")],
        stdout=subprocess.DEVNULL,
        cwd=root,
    )
    try:
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(20)


def test_a_service_that_ends_bangs_even_when_the_master_comes_back_later(root: Path) -> None:
    port = free_port()
    posted: list[dict[str, str]] = []
    log = root / "var" / "log" / "watchdog.log"
    with supervisord(root, port):
        wait_until(lambda: log.exists() and "will bang again" in log.read_text())
        with master(port, posted):
            wait_until((root / "slappart0" / BANGED).exists)
    assert posted == [
        {
            "call": "/softwareInstanceBang",
            "computer_id": "COMP-1",
            "computer_partition_id": "slappart0",
            "message": "web-on-watch process in partition slappart0 encountered a problem",
        }
    ]
    assert (root / "slappart0" / BANGED).read_text() == "1795353918.4582825"
