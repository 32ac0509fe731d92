"""`slapos node run` for real: supervisord, HTTP, releases that are shell scripts."""

import os
import signal
import socket
import sys
import time

import pytest

from slapos.protocol.states import InstanceState
from tests.integration.node.world import World, is_running, is_written, until

#: A release that can be built, whose instances are empty.
RELEASE = """
[buildout]
parts = instance
[instance]
recipe = slapos.recipe.template
inline =
  [buildout]
  parts =
output = ${buildout:directory}/instance.cfg
"""


@pytest.fixture
def world(world: World) -> World:
    """A world whose agent asks a master without a feed five times a second."""
    world.configure(poll_interval="0.2")
    return world


def started(world: World, reference: str = "slappart0") -> bool:
    return f"startedComputerPartition {reference}" in world.master.calls()


def pid(world: World, name: str = "slappart0:web-on-watch") -> int:
    found = world.processes()[name]["pid"]
    assert isinstance(found, int)
    return found


def test_what_is_ordered_is_brought_about_as_it_changes(world: World) -> None:
    world.master.has_feed = True
    world.release("echo x >> runs\n" + world.installing("web"))
    with world.agent() as agent:
        until(lambda: agent.said("at work"), "it starts")
        world.want()
        until(lambda: started(world), "it is started")
        assert world.processes()["slappart0:web-on-watch"]["state"] == "RUNNING"
        world.want(state=InstanceState.STOPPED, timestamp="2")
        until(lambda: "stoppedComputerPartition slappart0" in world.master.calls())
        assert world.processes() == {}
        world.want(state=InstanceState.DESTROYED, timestamp="3")
        until(lambda: "destroyedComputerPartition slappart0" in world.master.calls())
        assert list(world.partition().iterdir()) == []
        assert agent.end() == 0


def test_an_idle_agent_asks_what_is_wanted_and_nothing_else(world: World) -> None:
    world.release("echo x >> runs\n" + world.installing("web"))
    world.want()
    with world.agent():
        until(lambda: started(world))
        world.master.asked.clear()
        world.master.told.clear()
        until(lambda: len(world.master.asked) > 5)
        assert set(world.master.asked) == {"getFullComputerInformation"}
        assert world.master.told == []
        assert (world.partition() / "runs").read_text() == "x\n"


def test_one_that_hangs_delays_no_other_and_a_change_of_it_waits_its_turn(world: World) -> None:
    world.release("echo x >> runs\ncase $PWD in *0) [ -e go ] || sleep 600;; esac")
    world.want("slappart0")
    with world.agent():
        until((world.partition() / "runs").exists, "one hangs")
        world.want("slappart1")
        until(lambda: started(world, "slappart1"))
        world.want("slappart1", timestamp="2")
        until(lambda: (world.partition("slappart1") / "runs").read_text() == "x\nx\n")
        assert not started(world)


def test_a_build_delays_no_instance_and_what_waits_for_it_begins_at_its_end(world: World) -> None:
    profile = world.root / "release" / "software.cfg"
    profile.parent.mkdir(mode=0o755)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/never.cfg"
        profile.write_text(f"[buildout]\nextends = {address}\n")
        world.release(world.installing("web"))
        world.want("slappart0", url=str(profile))
        with world.agent() as agent:
            until(lambda: agent.said(f"building {profile}"), "the build begins")
            world.want("slappart1")
            until(lambda: started(world, "slappart1"))
            assert not started(world)
            silent.close()  # which fails the build
            until(lambda: "softwareReleaseError" in world.master.calls())
            profile.write_text(RELEASE)
            until(lambda: started(world), "its files changed, so it is built at once")


def test_a_tree_of_depth_three_settles_by_itself(world: World) -> None:
    """Each asks for the next one and waits for it; the last one publishes first."""
    world.master.has_feed = True
    tell = world.script(
        world.root / "soft" / "tell",
        f"#!{sys.executable}\nimport sys, urllib.request as u\n"
        f"u.urlopen(u.Request('{world.master.url}' + sys.argv[1], sys.argv[2].encode()))\n",
    )
    published = world.root / "soft"
    world.release(
        "part=$(basename $PWD); n=${part#slappart}\n"
        f"if [ $n -lt 2 ]; then {tell} wants x=slappart$((n + 1))\n"
        f"[ -e {published}/slappart$((n + 1)) ] || {{ echo not yet; exit 1; }}; fi\n"
        f"{tell} publishes x=$part\n"
    )

    def react(call: str, form: dict[str, str]) -> None:
        name = form.get("x", "")
        if call == "wants" and not world.master.partitions[name].software_url:
            world.want(name)
        if call == "publishes":
            (published / name).touch()
            number = int(name.removeprefix("slappart"))
            if number:
                world.want(f"slappart{number - 1}", timestamp="2")

    world.master.reaction = react
    world.want("slappart0")
    with world.agent():
        until(lambda: started(world), "the root is started")


def test_a_service_that_ends_is_started_again_and_one_that_always_does_burns_nothing(
    world: World,
) -> None:
    world.release(
        world.installing("web")
        + world.installing("bad", "#!/bin/sh\necho x >> $HOME/starts\nexit 1\n")
    )
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        first = pid(world)
        os.kill(first, signal.SIGKILL)
        until(lambda: agent.said("slappart0:web-on-watch was not running, it is started"))
        until(lambda: world.processes()["slappart0:web-on-watch"]["state"] == "RUNNING")
        assert pid(world) != first
        begun = time.monotonic()
        starts = world.partition() / "starts"
        until(lambda: starts.read_text().count("x") >= 3, "it is started again and again")
        assert starts.read_text().count("x") <= 4 + (time.monotonic() - begun)


def test_without_a_master_everything_is_started_from_disk(world: World) -> None:
    runs = world.partition() / "runs"
    world.release("echo x >> runs\n" + world.installing("web"))
    world.want()
    with world.agent():
        until(lambda: started(world))
    world.run("supervisorctl", "shutdown")
    until(lambda: not world.layout.supervisor_socket.exists(), "as after a reboot")
    world.master.failures = {
        "getFullComputerInformation": (500, b""),
        "v1/nodes/node/changes": (500, b""),
    }
    with world.agent() as agent:
        until(lambda: agent.said("slappart0:web-on-watch was not running, it is started"))
        until(lambda: agent.said("the services on this node go on without the master"))
        assert world.processes()["slappart0:web-on-watch"]["state"] == "RUNNING"
        world.master.failures = {}
        world.want(timestamp="2")
        until(lambda: agent.said("the master answers again"))
        until(lambda: runs.read_text() == "x\nx\n", "what changed meanwhile is brought about")
        assert agent.log.read_text().count("go on without the master") == 1


def test_an_older_state_is_acted_on_only_after_a_while(world: World) -> None:
    world.configure(poll_interval="0.2", older_state_patience="4")
    world.release("echo x >> runs\n")
    world.want(timestamp="5")
    with world.agent() as agent:
        until(lambda: started(world))
        world.want(timestamp="3", state=InstanceState.STOPPED)
        until(lambda: agent.said("an older state than before, of slappart0"))
        begun = time.monotonic()
        assert (world.partition() / "runs").read_text() == "x\n"
        until(lambda: "stoppedComputerPartition slappart0" in world.master.calls())
        assert time.monotonic() - begun > 2
        assert agent.said("the master's state is accepted")


def test_told_to_end_it_ends_what_it_runs_and_nobody_takes_that_for_a_failure(
    world: World,
) -> None:
    script = "sleep 600 & echo $! > inner\nwait\n"
    world.release(world.installing("web") + f"case $PWD in *1) {script};; esac")
    world.want("slappart0")
    world.want("slappart1")
    inner = world.partition("slappart1") / "inner"
    with world.agent() as agent:
        until(lambda: started(world) and is_written(inner))
        service, sleeper = pid(world), int(inner.read_text())
        begun = time.monotonic()
        assert agent.end() == 0
        assert time.monotonic() - begun < 10
    assert not is_running(sleeper)
    assert is_running(service)
    assert "softwareInstanceError slappart1" not in world.master.calls()
    inner.unlink()
    with world.agent():
        until(lambda: is_written(inner), "the next agent takes it up at once")
        assert pid(world) == service


def test_killed_and_started_again_it_restarts_no_service(world: World) -> None:
    world.release("echo x >> runs\n" + world.installing("web"))
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        service = pid(world)
        agent.kill()
    with world.agent() as agent:
        until(lambda: agent.said("at work on node"))
        world.want("slappart1")
        until(lambda: started(world, "slappart1"), "it is at work")
        assert pid(world) == service
    assert (world.partition() / "runs").read_text() == "x\n"


def test_a_second_agent_says_who_holds_the_lock(world: World) -> None:
    with world.agent() as agent:
        until(lambda: agent.said("at work"))
        second = world.run("run")
    assert second.returncode == 10
    assert f"runs already, as process {agent.process.pid}" in second.stdout


def test_commands_work_beside_the_agent(world: World) -> None:
    world.release("echo x >> runs\n" + world.installing("web"))
    world.want()
    with world.agent():
        until(lambda: started(world))
        forced = world.run("instance", "--force")
        assert forced.returncode == 0, forced.stdout
    assert (world.partition() / "runs").read_text() == "x\nx\n"


def test_a_killed_supervisord_is_started_again_with_the_services(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        old = pid(world)
        os.kill(int(world.layout.supervisor_pid_file.read_text()), signal.SIGKILL)
        until(lambda: agent.said(f"process {old} outlived its supervisord"))
        until(lambda: agent.said("slappart0:web-on-watch was not running, it is started"))
        assert pid(world) != old
        assert not is_running(old)


def test_a_supervisord_that_somebody_else_starts_is_given_the_services_too(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        old = pid(world)
        os.kill(int(world.layout.supervisor_pid_file.read_text()), signal.SIGKILL)
        # Before the agent sees that there is none: as a worker of its own may, too.
        assert world.run("supervisord").returncode == 0
        until(lambda: agent.said("slappart0:web-on-watch was not running, it is started"))
        assert pid(world) != old


def test_a_destruction_that_failed_is_soon_tried_again(world: World) -> None:
    fails_once = "#!/bin/sh\necho x >> tries\n[ $(wc -l < tries) = 2 ]\n"
    world.release(world.installing("destroy", fails_once, "sbin"))
    world.want()
    with world.agent():
        until(lambda: started(world))
        world.want(state=InstanceState.DESTROYED, timestamp="2")
        until(lambda: "destroyedComputerPartition slappart0" in world.master.calls())
    assert len(world.master.errors()) == 1
    assert not (world.partition() / "tries").exists()


def test_a_failing_promise_is_told_and_so_is_that_it_holds_again(
    world: World,
) -> None:
    good = world.root / "good"
    promise = f"#!/bin/sh\n[ -e {good} ]\n"
    world.release(world.installing("good", promise, "etc/promise"))
    world.want()
    with world.agent():
        until(lambda: world.master.errors() != [], "it is told that it fails")
        good.touch()
        until(lambda: started(world))
    assert "good" in world.master.errors()[0]


def test_a_promise_that_hangs_delays_no_change_of_its_instance(world: World) -> None:
    hangs = "#!/bin/sh\ntouch $HOME/checking\nsleep 600\n"
    world.release("echo x >> runs\n" + world.installing("hangs", hangs, "etc/promise"))
    world.want()
    with world.agent():
        until((world.partition() / "checking").exists, "its promise is checked")
        world.want(timestamp="2", state=InstanceState.STOPPED)
        until(lambda: "stoppedComputerPartition slappart0" in world.master.calls())
    assert (world.partition() / "runs").read_text() == "x\nx\n"
