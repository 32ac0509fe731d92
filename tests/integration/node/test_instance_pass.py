"""`slapos node instance`, with real supervisord, a real HTTP master and fake releases."""

import json
import os
import shutil
import signal

import psutil

from slapos.protocol.states import InstanceState
from tests.integration.node.world import World, until


def processes(world: World) -> dict[str, dict[str, object]]:
    """Return the processes of partitions, without the watchdog."""
    answer = world.run("status", "--processes", "--json")
    found = {f"{p['group']}:{p['name']}": p for p in json.loads(answer.stdout)}
    found.pop("watchdog:watchdog", None)
    return found


def test_a_started_instance_runs_its_services(world: World) -> None:
    world.release(world.installing("web") + world.installing("once", folder="etc/run"))
    world.want()
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    found = processes(world)
    assert {name: p["state"] for name, p in found.items()} == {
        "slappart0:once": "RUNNING",
        "slappart0:web-on-watch": "RUNNING",
    }
    assert world.master.calls() == ["startedComputerPartition slappart0"]
    assert (world.partition() / ".timestamp").read_text() == "1"
    assert (world.partition() / "software_release").is_symlink()
    log = world.partition() / ".slappart0_web.log"
    until(lambda: f"in {world.partition()}" in log.read_text(), "the service prints")


def test_what_is_as_wanted_costs_one_request_and_no_buildout(world: World) -> None:
    world.release("echo x >> runs\n" + world.installing("web"))
    world.want()
    assert world.run("instance").returncode == 0
    world.master.asked.clear()
    world.master.told.clear()
    assert world.run("instance").returncode == 0
    assert (world.partition() / "runs").read_text() == "x\n"
    assert world.master.asked == ["getFullComputerInformation"]
    assert world.master.told == []


def test_a_killed_service_is_started_again(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    pid = processes(world)["slappart0:web-on-watch"]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    until(lambda: processes(world)["slappart0:web-on-watch"]["state"] == "EXITED")
    until(lambda: world.master.calls("softwareInstanceBang") != [], "the watchdog bangs")
    answer = world.run("instance")
    assert "slappart0:web-on-watch was not running, it is started" in answer.stdout
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"


def test_a_killed_supervisord_leaves_no_service_running_twice(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    old = processes(world)["slappart0:web-on-watch"]["pid"]
    assert isinstance(old, int)
    os.kill(int(world.layout.supervisor_pid_file.read_text()), signal.SIGKILL)
    answer = world.run("instance")
    assert f"process {old} outlived its supervisord" in answer.stdout
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"
    assert processes(world)["slappart0:web-on-watch"]["pid"] != old
    gone = not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE
    assert gone


def test_only_what_changed_is_restarted(world: World) -> None:
    world.release(world.installing("web-1") + world.installing("database"))
    world.want()
    world.run("instance")
    before = processes(world)["slappart0:database-on-watch"]["pid"]
    world.release("rm etc/service/web-1\n" + world.installing("web-2"))
    world.want(timestamp="2")
    assert world.run("instance").returncode == 0
    found = processes(world)
    assert sorted(found) == ["slappart0:database-on-watch", "slappart0:web-2-on-watch"]
    assert found["slappart0:database-on-watch"]["pid"] == before


def test_a_stopped_instance_is_stopped_even_where_its_buildout_fails(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    world.release("exit 1")
    world.want(state=InstanceState.STOPPED, timestamp="2")
    assert world.run("instance").returncode == 1
    assert processes(world) == {}


def test_one_failure_does_not_stop_the_others(world: World) -> None:
    world.release('case $PWD in *0) echo "Error: no such option"; exit 7;; esac')
    for reference in ("slappart0", "slappart1"):
        world.want(reference)
    answer = world.run("instance")
    assert answer.returncode == 1
    summary = next(line for line in answer.stdout.splitlines() if "failed: slappart0" in line)
    for part in ("title of slappart0", "status 7: Error: no such option", "instance.log"):
        assert part in summary
    assert world.master.calls() == [
        "softwareInstanceError slappart0",
        "startedComputerPartition slappart1",
    ]
    assert "no such option" in (world.partition() / ".slapgrid-slappart0-error.log").read_text()


def test_a_failure_waits_unless_told_to_go_on_or_something_changed(world: World) -> None:
    world.release("echo x >> runs; exit 1")
    world.want()
    runs = world.partition() / "runs"
    assert [world.run("instance").returncode for _ in range(2)] == [1, 1]
    assert runs.read_text() == "x\n"
    assert "next try in" in world.run("instance").stdout
    world.run("instance", "--now")
    assert runs.read_text() == "x\n" * 2
    world.want(timestamp="2")
    world.run("instance")
    assert runs.read_text() == "x\n" * 3


def test_without_a_master_services_are_started_from_disk(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    world.run("supervisorctl", "shutdown")
    until(lambda: not world.layout.supervisor_socket.exists())
    world.master.failures["getFullComputerInformation"] = (500, b"")
    answer = world.run("instance")
    assert answer.returncode == 3, answer.stdout
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"


def test_no_launcher_is_started_before_a_promise_has_its_turn(world: World) -> None:
    promise = "#!/bin/sh\ntest ! -e bad\n"
    world.release(world.installing("good", promise, "etc/promise"))
    world.want()
    assert world.run("instance").returncode == 0
    results = world.partition() / ".slapgrid" / "promise"
    shutil.rmtree(results)
    assert world.run("instance").returncode == 0
    assert not results.exists()
    world.script(world.partition() / "etc" / "promise" / "another", promise)
    assert world.run("instance").returncode == 0
    assert results.exists()


def test_a_promise_that_a_person_found_broken_is_told_by_the_next_pass(world: World) -> None:
    promise = "#!/bin/sh\ntest ! -e bad\n"
    world.release(world.installing("good", promise, "etc/promise"))
    world.want()
    assert world.run("instance").returncode == 0
    (world.partition() / "bad").touch()
    assert [world.run(word).returncode for word in ("instance", "promise", "instance")] == [0, 2, 2]
    assert world.master.calls() == [
        "startedComputerPartition slappart0",
        "softwareInstanceError slappart0",
    ]
