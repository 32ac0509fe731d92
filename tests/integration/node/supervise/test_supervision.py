"""What the node asks of supervisord, with a real one."""

import os
import signal
import subprocess
import sys
import threading
import xmlrpc.client
from pathlib import Path
from typing import cast

import pytest

from slapos.node.supervise.configuration import write_main
from slapos.node.supervise.supervisor import Supervisor, SupervisorFailed
from tests.integration.node.supervise.supervised import (
    Partitions,
    end_supervisord,
    new_partitions,
)
from tests.integration.node.world import is_running, is_written, until

WEB = "web-on-watch"
#: Tells when it has begun to ignore SIGTERM.
STUBBORN = "trap '' TERM\necho ready > ready\nwhile :; do sleep 0.1; done"


def edit_group(partitions: Partitions, old: str, new: str, reference: str = "slappart0") -> None:
    """Change what is said of a group, as another version of the node may."""
    path = partitions.layout.supervisor_groups / f"{reference}.conf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reread(partitions: Partitions) -> list[list[str]]:
    """Return what `supervisorctl reread` would say is added, changed and removed."""
    answer = partitions.supervisor._server.supervisor.reloadConfig()
    return cast(list[list[list[str]]], answer)[0]


def wait_for(path: Path) -> None:
    until(lambda: is_written(path), f"{path} is written")


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(item.split("=", 1) for item in text.split("\0") if item)


def test_a_partition_is_brought_about_and_taken_away(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.service("once", "echo done > once", kind="run")
    partitions.run()
    wait_for(partitions.partition() / "once")
    running = {p.name: p for p in partitions.supervisor.group_processes("slappart0")}
    assert set(running) == {"once", WEB}
    assert running[WEB].is_running
    assert partitions.supervisor.group_processes("slappart1") == []
    partitions.supervisor.stop_partition("slappart0")
    assert partitions.supervisor.processes() == []
    assert not is_running(running[WEB].pid)
    partitions.supervisor.stop_partition("slappart0")


def test_only_what_changed_is_restarted(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.service("api")
    gone = partitions.service("gone")
    partitions.run()
    before = {p.name: p.pid for p in partitions.supervisor.processes()}
    gone.unlink()
    partitions.service("new")
    partitions.run()
    after = {p.name: p.pid for p in partitions.supervisor.processes()}
    assert set(after) == {WEB, "api-on-watch", "new-on-watch"}
    assert after[WEB] == before[WEB]
    assert after["api-on-watch"] == before["api-on-watch"]
    assert not is_running(before["gone-on-watch"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stdout_logfile_maxbytes = 100KB", "stdout_logfile_maxbytes = 1MB"),
        ("stopwaitsecs = 60", "stopwaitsecs = 5"),
        ("environment = HOME", 'environment = NEW="1",HOME'),
        ("stdout_logfile_backups = 1", "stdout_logfile_backups = 2\nsomething_new = 1"),
    ],
)
def test_a_service_runs_on_when_all_but_what_it_is_changes(
    partitions: Partitions, old: str, new: str
) -> None:
    partitions.service("web")
    partitions.run()
    pid = partitions.process(WEB).pid
    edit_group(partitions, old, new)
    partitions.supervisor._load("slappart0")
    assert partitions.process(WEB).pid == pid
    assert reread(partitions) == [[], [], []]


def test_a_service_has_its_new_environment_from_its_next_start(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.run()
    pid = partitions.process(WEB).pid
    edit_group(partitions, "environment = HOME", 'environment = NEW="1",HOME')
    partitions.supervisor._load("slappart0")
    assert "NEW" not in environment_of(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not partitions.process(WEB).is_running)
    partitions.supervisor.start([("slappart0", WEB)])
    until(lambda: "NEW" in environment_of(partitions.process(WEB).pid))


def test_one_group_is_read_and_no_other(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.service("web", reference="slappart1")
    partitions.run()
    bad = partitions.layout.supervisor_groups / "slappart2.conf"
    bad.write_text("[group:slappart2]\nprograms = nothing\n")
    partitions.run("slappart1")
    partitions.supervisor.stop_partition("slappart0")
    assert [p.group for p in partitions.supervisor.processes()] == ["slappart1"]
    with pytest.raises(xmlrpc.client.Fault, match=r"slappart2\.conf.*unknown program"):
        partitions.supervisor._server.slapos.loadGroup("slappart2")


def test_supervisorctl_sees_the_same(partitions: Partitions) -> None:
    for number in range(3):
        partitions.service("web", reference=f"slappart{number}")
        partitions.run(f"slappart{number}")
    partitions.service("api", reference="slappart1")
    partitions.run("slappart1")
    partitions.supervisor.stop_partition("slappart2")
    assert reread(partitions) == [[], [], []]
    edit_group(partitions, "stopwaitsecs = 60", "stopwaitsecs = 5")
    assert reread(partitions) == [[], ["slappart0"], []]
    partitions.supervisor._load("slappart0")
    assert reread(partitions) == [[], [], []]


def test_partitions_are_worked_on_at_the_same_time(partitions: Partitions) -> None:
    references = [f"slappart{number}" for number in range(12)]
    for reference in references:
        partitions.service("web", reference=reference)
        partitions.service("api", reference=reference)
    failures = []

    def work(mine: list[str]) -> None:
        supervisor = partitions.new_supervisor()
        try:
            for reference in mine:
                partitions.run(reference, supervisor)
                (partitions.partition(reference) / "etc" / "service" / "api").unlink()
                partitions.run(reference, supervisor)
            supervisor.stop_partition(mine[0])
        except SupervisorFailed as failure:
            failures.append(failure)

    workers = [threading.Thread(target=work, args=(references[n::4],)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    left = {(p.group, p.name): p.is_running for p in partitions.supervisor.processes()}
    assert left == {(reference, WEB): True for reference in references[4:]}
    assert reread(partitions) == [[], [], []]


def test_a_service_that_does_not_stop_keeps_no_other_waiting(partitions: Partitions) -> None:
    partitions.service("stubborn", STUBBORN)
    partitions.run()
    wait_for(partitions.partition() / "ready")
    pid = partitions.process("stubborn-on-watch").pid
    stopping = threading.Thread(
        target=partitions.new_supervisor().stop_partition, args=("slappart0",)
    )
    stopping.start()
    until(lambda: partitions.process("stubborn-on-watch").state == "STOPPING")
    partitions.service("web", reference="slappart1")
    partitions.run("slappart1")
    assert partitions.process(WEB, "slappart1").is_running
    assert partitions.process("stubborn-on-watch").state == "STOPPING"
    os.kill(pid, signal.SIGKILL)
    stopping.join()
    assert {p.group for p in partitions.supervisor.processes()} == {"slappart1"}


def test_a_service_that_is_stopped_while_it_starts_need_not_be_killed(
    partitions: Partitions,
) -> None:
    partitions.service("web")
    partitions.run()
    server = partitions.supervisor._server
    calls = [
        {"methodName": f"supervisor.{name}", "params": [f"slappart0:{WEB}", False]}
        for name in ("stopProcess", "startProcess", "stopProcess")
    ]
    for _ in range(20):
        until(lambda: partitions.process(WEB).state != "STOPPING")
        server.system.multicall(calls[1:] if partitions.process(WEB).pid == 0 else calls[:1])
    until(lambda: partitions.process(WEB).state == "STOPPED")
    log = (partitions.root / "var" / "log" / "supervisord.log").read_text()
    assert log.count("spawned: 'web-on-watch'") == 20
    assert "SIGKILL" not in log


def test_supervisord_stops_all_partitions_at_the_same_time(partitions: Partitions) -> None:
    partitions.service("stubborn", STUBBORN)
    told = "trap 'echo told > told; exit' TERM\necho ready > ready\nwhile :; do sleep 0.1; done"
    references = ["slappart1", "slappart2"]
    for reference in references:
        partitions.service("web", told, reference)
    for reference in ["slappart0", *references]:
        partitions.run(reference)
        wait_for(partitions.partition(reference) / "ready")
    stubborn = partitions.process("stubborn-on-watch").pid
    partitions.supervisor._server.supervisor.shutdown()
    for reference in references:
        wait_for(partitions.partition(reference) / "told")
    assert is_running(stubborn)
    os.kill(stubborn, signal.SIGKILL)
    until(lambda: not partitions.layout.supervisor_pid_file.exists())


def test_what_many_that_die_at_once_leave_is_seen_at_once(partitions: Partitions) -> None:
    for number in range(120):
        partitions.service(f"web{number}")
    partitions.run()
    running = partitions.supervisor.processes()
    assert sum(p.is_running for p in running) == 120
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(p.is_running for p in partitions.supervisor.processes()))
    ended = partitions.supervisor.start_ended()
    assert len(ended) == 120
    assert all(p.is_running for p in partitions.supervisor.processes())


def test_what_cannot_start_is_told_and_stops_no_other(
    partitions: Partitions, caplog: pytest.LogCaptureFixture
) -> None:
    partitions.service("web")
    broken = partitions.service("broken")
    partitions.run()
    os.kill(partitions.process("broken-on-watch").pid, signal.SIGKILL)
    os.kill(partitions.process(WEB).pid, signal.SIGKILL)
    until(lambda: not any(p.is_running for p in partitions.supervisor.processes()))
    broken.unlink()
    partitions.supervisor.start_ended()
    assert partitions.process(WEB).is_running
    partitions.supervisor.start([("slappart0", "broken-on-watch")])
    partitions.supervisor._start_group("slappart0")
    assert caplog.text.count("slappart0:broken-on-watch does not start") == 3


def test_a_group_that_is_not_in_order_does_not_keep_supervisord_from_starting() -> None:
    with new_partitions() as partitions:
        write_main(partitions.layout)
        bad = partitions.layout.supervisor_groups / "slappart1.conf"
        bad.write_text("[group:slappart1]\nprograms = nothing\n")
        partitions.supervisor.ensure_running()
        partitions.service("web")
        partitions.run()
        assert partitions.process(WEB).is_running
        log = partitions.root / "var" / "log" / "supervisord.log"
        assert f"left out: {bad}" in log.read_text()


OLD_INTERFACE = """
from slapos.node.supervise.rpc_interface import SlaposInterface

class Old:
    def __init__(self, supervisord):
        self._interface = SlaposInterface(supervisord)

    def updateGroup(self, name):
        return self._interface.updateGroup(name)
"""


def start_old_supervisord(partitions: Partitions) -> None:
    """Start supervisord as it was before it was ours."""
    write_main(partitions.layout)
    (partitions.root / "old_interface.py").write_text(OLD_INTERFACE)
    configuration = partitions.layout.supervisor_configuration
    old = configuration.read_text().replace(
        "slapos.node.supervise.rpc_interface:make_interface", "old_interface:Old"
    )
    configuration.write_text(old)
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        env={**os.environ, "PYTHONPATH": str(partitions.root)},
        cwd=partitions.root,
        check=True,
    )
    until(partitions.supervisor.is_running)


def test_an_older_supervisord_is_used_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with new_partitions() as partitions:
        start_old_supervisord(partitions)
        supervisord = partitions.layout.supervisor_pid_file.read_text()
        partitions.service("web")
        partitions.service("web", reference="slappart1")
        partitions.supervisor.ensure_running()
        partitions.run()
        partitions.run("slappart1")
        pid = partitions.process(WEB).pid
        assert pid > 0
        partitions.service("api")
        partitions.run(supervisor=partitions.new_supervisor())
        assert partitions.process("api-on-watch").is_running
        assert partitions.process(WEB).pid == pid
        partitions.supervisor.stop_partition("slappart1")
        assert {p.group for p in partitions.supervisor.processes()} == {"slappart0"}
        assert partitions.supervisor.is_outdated()
        assert partitions.layout.supervisor_pid_file.read_text() == supervisord
        assert caplog.text.count("older than this SlapOS") == 1
        end_supervisord(partitions)
        partitions.supervisor.ensure_running()
        assert not partitions.supervisor.is_outdated()


def limited(partitions: Partitions, files: int) -> Supervisor:
    """Have supervisord started where so many files may be open."""
    supervisor = partitions.supervisor
    write_main(partitions.layout)
    # Without CAP_SYS_RESOURCE, root may no more raise its limits than others may.
    drop = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 else []
    subprocess.run(["prlimit", f"--nofile={files}:{files}", *drop, *supervisor.command], check=True)
    until(supervisor.is_running)
    return supervisor


def test_few_open_files_cost_services_and_not_supervision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with new_partitions() as partitions:
        supervisor = limited(partitions, 100)
        for number in range(20):
            partitions.service(f"web{number}")
        partitions.run()
        states = [p.is_running for p in supervisor.processes()]
        assert 0 < sum(states) < 20
        assert "too many open files to spawn" in caplog.text
        assert "supervisord may have 100): raise the limit" in caplog.text
        supervisor.stop_partition("slappart0")
        assert supervisor.processes() == []


def test_programs_have_the_limits_that_supervisord_was_given() -> None:
    with new_partitions() as partitions:
        supervisor = partitions.supervisor
        write_main(partitions.layout)
        subprocess.run(["prlimit", "--nofile=500:600", *supervisor.command], check=True)
        until(supervisor.is_running)
        partitions.service("web", "ulimit -Sn > limits\nulimit -Hn >> limits\nexec sleep 600")
        partitions.run()
        limits = partitions.partition() / "limits"
        until(lambda: is_written(limits) and limits.read_text().count("\n") == 2)
        assert limits.read_text().split() == ["500", "600"]


def test_what_is_answered_only_when_it_is_done_is_answered(partitions: Partitions) -> None:
    partitions.service("web")
    partitions.service("slow", "trap 'sleep 0.3; exit' TERM; while :; do sleep 0.05; done")
    partitions.run()
    server = partitions.supervisor._server.supervisor
    stopped = cast(list[dict[str, str]], server.stopAllProcesses())
    assert {item["description"] for item in stopped} == {"OK"}
    started = cast(list[dict[str, str]], server.startProcessGroup("slappart0"))
    assert {item["description"] for item in started} == {"OK"}
    assert all(p.is_running for p in partitions.supervisor.processes())
