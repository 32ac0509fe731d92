"""`slapos node instance` when things are not as they should be: said clearly, and nothing lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.protocol.states import InstanceState
from slapos.system.process_lock import process_lock
from tests.integration.node.test_instance_pass import processes
from tests.integration.node.world import (
    IS_ROOT,
    MAIN,
    NOBODY,
    URL,
    World,
    is_running,
    is_written,
    until,
)


def summary(output: str, reference: str = "slappart0") -> str:
    return next(
        line for line in output.splitlines() if f": {reference} (" in line and " ERROR " in line
    )


def test_a_wrong_mode_is_said_with_the_command_that_puts_it_right(world: World) -> None:
    world.release()
    world.want()
    world.want("slappart1")
    world.partition().chmod(0o755)
    answer = world.run("instance")
    assert answer.returncode == 1
    assert f"chmod 0750 {world.partition()}" in summary(answer.stdout)
    assert "startedComputerPartition slappart1" in world.master.calls()
    world.partition().chmod(0o750)
    assert world.run("instance", "--now").returncode == 0


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root gives folders away")
def test_nothing_is_run_as_root(world: World) -> None:
    world.release("touch ran")
    world.want()
    os.chown(world.partition(), 0, 0)
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "belongs to root" in summary(answer.stdout)
    assert not (world.partition() / "ran").exists()


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root gives folders away")
def test_an_ordinary_user_cannot_serve_the_partition_of_another(world: World) -> None:
    world.release(world.installing("web"))
    for reference in ("slappart0", "slappart1"):
        world.want(reference)
    for path in (world.root, world.configuration, world.root / "inst"):
        world.own(path)
    os.chown(world.partition(), 1, 1)
    answer = world.run("instance", user="nobody")
    assert answer.returncode == 1
    assert "belongs to daemon, not to nobody: run this as" in summary(answer.stdout)
    assert "startedComputerPartition slappart1" in world.master.calls()
    world.run("supervisorctl", "shutdown", user="nobody")


def test_a_missing_folder_is_said(world: World) -> None:
    world.release()
    world.want()
    world.partition().rmdir()
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "slapos node format" in summary(answer.stdout)
    assert "is not there" in world.master.errors()[0]


def test_a_release_without_an_instance_profile_is_its_authors_to_mend(world: World) -> None:
    (world.release() / "instance.cfg").unlink()
    world.want()
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "neither instance.cfg nor template.cfg" in summary(answer.stdout)


def test_an_instance_waits_for_its_release_and_the_master_hears_of_no_error(world: World) -> None:
    (world.release() / ".completed").unlink()
    world.want()
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "waiting: slappart0" in answer.stdout
    assert "slapos node software" in summary(answer.stdout)
    assert world.master.calls() == []
    (world.layout.release(URL) / ".completed").touch()
    assert world.run("instance").returncode == 0


def test_an_instance_that_waits_for_another_one_has_not_failed(world: World) -> None:
    sentence = "waiting for database: not ready yet, it has not published url"
    world.release(
        "echo x >> runs; test -e published || { echo While:; "
        f"echo '  Installing child.'; echo 'Error: [child] {sentence}'; exit 1; }}"
    )
    world.want()
    for _ in range(2):  # the second time, it is too early to try again
        answer = world.run("instance")
        assert answer.returncode == 1
        assert f"waiting: slappart0 (title of slappart0, {URL}): {sentence}" in answer.stdout
        assert " failed" not in answer.stdout
    assert world.master.errors() == [sentence]
    assert (world.partition() / "runs").read_text() == "x\n"
    assert not (world.partition() / ".slapgrid-slappart0-error.log").exists()
    (world.partition() / "published").touch()
    world.want(timestamp="2")  # as the master does once the other one has published something
    assert world.run("instance").returncode == 0


def test_a_buildout_that_hangs_is_ended_with_all_it_started(world: World) -> None:
    world.configure(partition_timeout="0.5")
    world.release("sleep 600 & echo $! > child; wait")
    world.want()
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "ended after 0.5 s" in summary(answer.stdout)
    assert "partition_timeout" in summary(answer.stdout)
    child = int((world.partition() / "child").read_text())
    until(lambda: not is_running(child), "the grandchild ends")


def test_a_killed_instantiation_is_taken_up_again(world: World) -> None:
    world.release("echo $$ > begun; if [ -e hold ]; then sleep 600; fi\n" + world.installing("web"))
    world.want()
    hold = world.partition() / "hold"
    hold.touch()
    words = ["node", "instance", "--cfg", str(world.configuration)]
    with subprocess.Popen([sys.executable, "-c", MAIN, *words]) as process:
        until(lambda: is_written(world.partition() / "begun"), "the buildout begins")
        process.kill()
    hold.unlink()
    # What it left running must not work beside the next one.
    buildout = int((world.partition() / "begun").read_text())
    assert is_running(buildout)
    assert world.run("instance").returncode == 0
    assert not is_running(buildout)
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"


@pytest.mark.parametrize("status", [403, 500])
def test_the_masters_failure_about_one_partition_is_not_the_others(
    world: World, status: int
) -> None:
    world.release("echo x >> runs")
    for reference in ("slappart0", "slappart1"):
        world.want(reference)
    world.master.failures["startedComputerPartition"] = (status, b"no")
    assert world.run("instance").returncode == 1
    assert (world.partition("slappart1") / "runs").exists()
    world.master.failures.clear()
    assert world.run("instance").returncode == 0
    assert sorted(world.master.calls()) == [
        "startedComputerPartition slappart0",
        "startedComputerPartition slappart1",
    ]
    assert (world.partition() / "runs").read_text() == "x\n"


def test_what_the_master_refuses_for_good_is_told_and_not_sent_again(world: World) -> None:
    world.release()
    for reference in ("slappart0", "slappart1"):
        world.want(reference)
    world.master.failures["startedComputerPartition"] = (400, b"no such state")
    answer = world.run("instance")
    assert answer.returncode == 1
    for reference in ("slappart0", "slappart1"):
        assert f"refuses what was reported of {reference} (instance)" in answer.stdout
    assert "no such state" in answer.stdout
    world.master.failures.clear()
    assert world.run("instance").returncode == 0
    assert world.master.calls() == []


@pytest.mark.parametrize(
    "answer",
    [(200, b""), (200, b"<html>welcome</html>"), (200, b"\x00\xff"), (404, b""), (500, b"oops")],
)
def test_a_master_that_answers_nonsense_leaves_services_running(
    world: World, answer: tuple[int, bytes]
) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    world.master.failures["getFullComputerInformation"] = answer
    ended = world.run("instance")
    assert ended.returncode == 3
    assert "go on without the master" in ended.stdout
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"


def test_a_master_that_is_silent_is_given_up(world: World) -> None:
    world.configure(request_timeout="0.2")
    world.master.release_answer = threading.Event()
    answer = world.run("instance")
    world.master.release_answer.set()
    assert answer.returncode == 3
    assert "does not answer" in answer.stdout


def test_a_service_whose_port_is_taken_fails_its_promise(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = (
            f"#!{sys.executable}\nimport socket, time\n"
            f"socket.create_server(('127.0.0.1', {port}), backlog=5)\n"
            "open('up', 'w').close()\ntime.sleep(600)\n"
        )
        promise = "#!/bin/sh\ntest -e up || { echo it does not listen; exit 1; }\n"
        world.release(
            world.installing("web", service)
            + world.installing("listens", promise, folder="etc/promise")
            + "echo x >> runs\n"
        )
        world.want()
        answer = world.run("instance")
        assert answer.returncode == 2, answer.stdout
        assert "Promise 'listens' failed with output: it does not listen" in summary(answer.stdout)
        assert world.master.errors() == ["Promise 'listens' failed with output: it does not listen"]
        assert "already in use" in (world.partition() / ".slappart0_web.log").read_text()
    # The port is free again: the service is started again, with no buildout, and all is well.
    assert world.run("instance").returncode in (0, 2)
    until((world.partition() / "up").exists)
    assert world.run("instance").returncode == 0
    assert world.master.calls()[-1] == "startedComputerPartition slappart0"
    assert (world.partition() / "runs").read_text() == "x\n"
    assert world.run("promise").returncode == 0
    slip = world.run("promise", "--only", "slappart99")
    assert (slip.returncode, "has no partition slappart99" in slip.stdout) == (1, True)
    (world.partition() / "up").unlink()
    told = len(world.master.told)
    assert world.run("promise").returncode == 2
    assert len(world.master.told) == told


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """A disk of 1 MiB in the place of a partition."""
    folder = world.partition()
    options = f"size=1m,mode=0750,uid={folder.stat().st_uid},gid={folder.stat().st_gid}"
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not IS_ROOT or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    world.run("stop", "all")
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_full_disk_loses_nothing(world: World, small_disk: Path) -> None:
    world.configure(instance_min_free_space="0")
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance").returncode == 0
    pid = processes(world)["slappart0:web-on-watch"]["pid"]
    profile = (small_disk / "buildout.cfg").read_text()
    fill = small_disk / "fill"
    with pytest.raises(OSError, match="No space left"):
        fill.write_bytes(b"x" * 2**21)
    world.release(world.installing("web"), profile="[buildout]\nparts = " + "a " * 9000)
    world.want(timestamp="2")
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "No space left on device" in answer.stdout
    assert (small_disk / "buildout.cfg").read_text() == profile
    assert processes(world)["slappart0:web-on-watch"]["pid"] == pid
    fill.unlink()
    assert world.run("instance", "--now").returncode == 0


def test_a_command_does_not_run_twice_at_once(world: World) -> None:
    with process_lock(world.layout.default_pidfile("cp")):
        if IS_ROOT is False:
            os.chmod(world.layout.default_pidfile("cp"), 0o644)
        answer = world.run("instance")
    assert answer.returncode == 10
    assert str(os.getpid()) in answer.stdout


def test_an_unknown_partition_is_said(world: World) -> None:
    answer = world.run("instance", "--only", "slappart7 , slappart0")
    assert answer.returncode == 1
    assert "no partition slappart7" in answer.stdout


def test_only_names_the_partitions_to_process(world: World) -> None:
    world.release()
    for reference in ("slappart0", "slappart1", "slappart2"):
        world.want(reference)
    assert world.run("instance", "--only-cp", "slappart0, slappart2").returncode == 0
    assert world.master.calls() == [
        "startedComputerPartition slappart0",
        "startedComputerPartition slappart2",
    ]


def test_a_path_too_long_for_a_socket_is_said(world: World) -> None:
    deep = world.root / ("d" * 90)
    deep.mkdir()
    answer = world.run("instance", "--instance-root", str(deep))
    assert answer.returncode == 1
    assert "too long for the socket" in answer.stdout


def test_a_tree_settles_in_one_command(world: World) -> None:
    """The parent requests a child, the child publishes, the parent is processed again."""
    ask = (
        f'{sys.executable} -c "import sys, urllib.request as u; '
        f"u.urlopen(u.Request('{world.master.url}' + sys.argv[1], b'', method='POST'))\""
    )
    world.release(
        f"echo x >> runs\ncase $PWD in *0) {ask} requestChild;; *) {ask} publish;; esac\n"
    )
    world.want()

    def react(call: str, form: dict[str, str]) -> None:
        if call == "requestChild" and not world.master.partitions["slappart1"].software_url:
            world.want("slappart1")
        if call == "publish":
            world.want("slappart0", timestamp="2")

    world.master.reaction = react
    assert world.run("instance").returncode == 0
    assert (world.partition() / "runs").read_text() == "x\n" * 2
    assert (world.partition("slappart1") / "runs").read_text() == "x\n"


def test_what_a_person_stopped_stays_so_until_it_is_started(world: World) -> None:
    world.release(world.installing("web") + world.installing("db"))
    world.want()
    world.run("instance")
    assert world.run("stop", "all").returncode == 0
    assert world.run("instance").returncode == 0
    assert {p["state"] for p in processes(world).values()} == {"STOPPED"}
    assert world.run("start", "all").returncode == 0
    assert world.run("restart", "slappart0:web-on-watch").returncode == 0
    answer = world.run("status", "slappart0:*")
    assert answer.returncode == 0
    assert answer.stdout.count("RUNNING") == 2
    tail = world.run("tail", "slappart0:web-on-watch")
    assert tail.returncode == 0
    assert "started as" in tail.stdout


def test_force_stop_stops_and_a_later_pass_starts_again(world: World) -> None:
    world.release(world.installing("web"))
    world.want()
    world.run("instance")
    assert world.run("instance", "--force-stop").returncode == 0
    assert processes(world) == {}
    assert world.run("instance").returncode == 0
    assert processes(world)["slappart0:web-on-watch"]["state"] == "RUNNING"


def test_a_certificate_is_kept_up_to_date(world: World) -> None:
    world.configure(certificate_repository_path=str(world.root / "pki"))
    world.release()
    world.want()
    assert world.run("instance").returncode == 0
    key = world.root / "pki" / "slappart0.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("KEY", 0o400)
    assert f"key-file = {key}" in (world.partition() / "buildout.cfg").read_text()


def test_an_instance_is_told_whom_to_trust_as_its_master(world: World) -> None:
    authority = world.root / "authority.crt"
    authority.touch()
    world.configure(master_ca_file=str(authority))
    world.release()
    world.want()
    assert world.run("instance").returncode == 0
    assert f"\nca-file = {authority}\n" in (world.partition() / "buildout.cfg").read_text()


def test_the_profile_of_an_instance_tells_it_where_it_is(world: World) -> None:
    world.release(profile="[buildout]\nparts = a\n\n[a]\nb = c\n")
    world.want(state=InstanceState.STOPPED)
    assert world.run("instance").returncode == 0
    path = world.partition() / "buildout.cfg"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == (
        "[buildout]\nparts = a\n\n[a]\nb = c\n\n"
        "[buildout]\nbin-directory = ${buildout:directory}/sbin\noffline = true\n\n"
        f"[slap-connection]\ncomputer-id = node\npartition-id = slappart0\n"
        f"server-url = {world.master.url}\nsoftware-release-url = {URL}\nkey-file =\n"
        "cert-file =\nca-file =\nshared-part-list =\nbuild-time-part-list =\n"
        "requested-state = stopped\n\n"
        f"[slap_connection]\ncomputer_id = node\npartition_id = slappart0\n"
        f"server_url = {world.master.url}\nsoftware_release_url = {URL}\nkey_file =\n"
        "cert_file =\n\n"
        "[storage-configuration]\nstorage-home =\n\n"
        "[network-information]\nglobal-ipv4-network =\n\n"
    )


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root may write where a service must not")
def test_a_service_cannot_have_its_output_written_elsewhere(world: World) -> None:
    outside = world.root / "outside"
    outside.touch()
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance").returncode == 0
    log = world.partition() / ".slappart0_web.log"
    kept = log.resolve()
    until(lambda: is_written(log), "the service says something")
    assert kept.is_relative_to(world.root / "inst" / "var" / "output" / "slappart0")
    assert kept.parent.stat().st_gid == NOBODY.pw_gid
    assert kept.parent.stat().st_mode & 0o777 == 0o750

    log.unlink()
    log.symlink_to(outside)
    pid = processes(world)["slappart0:web-on-watch"]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    until(lambda: world.run("instance").returncode == 0)
    until(lambda: kept.read_text().count("started") == 2, "it is started again")
    assert outside.read_text() == ""
