"""`slapos node status` on a node with a real supervisord."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress

from slapos.system.process_lock import process_lock
from tests.integration.node.world import IS_ROOT, MAIN, World, until


def test_each_partition_in_use_has_a_line(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance", "--now").returncode == 0
    world.want("slappart1", url="http://example.com/none/software.cfg")
    world.run("instance", "--now")
    answer = world.run("status")
    assert answer.returncode == 0, answer.stdout
    agent, counts, header, *lines = answer.stdout.splitlines()
    second, first = lines  # what is wrong comes first
    assert agent == "agent: does not run"
    assert counts == "partitions in use: 2 (1 waiting, 1 started)"
    assert header.split()[:4] == ["PARTITION", "INSTANCE", "RELEASE", "STATE"]
    assert "title of slappart0  hello    started" in first
    assert "1/1" in first
    assert " none " in second
    _, one = json.loads(world.run("status", "--json").stdout)["partitions"]
    assert (one["partition"], one["state"], one["running"]) == ("slappart0", "started", 1)


def test_without_the_master_it_shows_what_is_here(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance", "--now").returncode == 0
    world.configure(master_url="http://127.0.0.1:1/")
    answer = world.run("status")
    assert "without the master: " in answer.stdout
    assert "slappart0  title of slappart0" in answer.stdout
    assert "unknown" in answer.stdout


def test_what_is_wrong_what_was_used_and_what_cannot_be_seen(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance", "--now").returncode == 0
    assert world.run("collect").returncode == 0
    assert world.run("collect").returncode == 0
    document = json.loads(world.run("status", "--json").stdout)
    [one] = document["partitions"]
    assert one["memory"] > 0
    assert one["cpu"] is not None
    assert document["node"]["measured_at"] is not None
    assert json.loads(world.run("status", "--json", "--failing").stdout)["partitions"] == []
    with process_lock(world.layout.agent_pidfile):
        assert f"agent: runs, process {os.getpid()}" in world.run("status").stdout
    before = {path: path.stat().st_mtime_ns for path in (world.root / "inst").rglob("*")}
    if IS_ROOT:  # an operator who may read the settings, and nothing of the node's own
        answer = world.run("status", user="daemon")
        assert answer.returncode == 1
        assert "supervisord answers none but the user who runs this node" in answer.stdout
        assert "title of slappart0" in answer.stdout
    assert world.run("supervisorctl", "shutdown").returncode == 0
    answer = world.run("status")
    assert (answer.returncode, "slappart0" in answer.stdout) == (1, True)
    after = {path: path.stat().st_mtime_ns for path in before if path.exists()}
    changed = {path.name for path in before if path.is_file() and after[path] != before[path]}
    assert changed <= {"supervisord.log"}


def test_it_is_watched_until_it_is_interrupted(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance", "--now").returncode == 0
    ours, theirs = pty.openpty()
    command = (sys.executable, "-c", MAIN, "node", "status", "--watch")
    process = subprocess.Popen((*command, "--cfg", str(world.configuration)), stdout=theirs)
    os.close(theirs)
    seen: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # how a terminal says that nobody writes to it any more
            while data := os.read(ours, 65536):
                seen.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: b"".join(seen).count(b"PARTITION") >= 2, "it is drawn again")
        assert b"\x1b[5A" in b"".join(seen)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        reader.join()
        os.close(ours)
