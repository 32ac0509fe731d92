"""Checks of supervisord, of the processes it should run, and of those that nobody looks after."""

import os
from collections.abc import Iterator

from slapos.node.doctor.finding import Examined
from slapos.node.supervise.orphans import find_orphans
from slapos.node.supervise.supervisor import RENEWAL, SupervisorFailed
from slapos.node.users import user_name
from slapos.system.finding import Finding, ok, problem, warning

#: Bytes of the longest path that the kernel takes for a unix socket.
LONGEST_SOCKET = 107


def check_supervisord(examined: Examined) -> Iterator[Finding]:
    """See that supervisord answers, and can listen where it should."""
    layout = examined.doors.settings.layout
    socket = layout.supervisor_socket
    length = len(bytes(socket))
    if length > LONGEST_SOCKET:
        yield problem(
            f"the path of supervisord's socket is too long, {length} bytes: {socket}",
            f"choose an instance_root of at most {LONGEST_SOCKET - len(socket.name) - 1} bytes",
        )
        return
    if not examined.doors.supervisor.is_running():
        start = "start it with 'slapos node supervisord', then see 'slapos node status'"
        log = layout.instance_root / "var" / "log" / "supervisord.log"
        if any(layout.supervisor_groups.glob("*.conf")):
            yield problem(f"supervisord does not run; log: {log}", start)
        else:
            yield warning("supervisord does not run, and has nothing to run yet", start)
        return
    try:
        pid = int(layout.supervisor_pid_file.read_text())
    except (OSError, ValueError):
        yield problem(
            f"supervisord runs without its pid file {layout.supervisor_pid_file}",
            "restart it: 'slapos node supervisorctl shutdown', 'slapos node supervisord'",
        )
    else:
        yield ok(f"supervisord runs, process {pid}, {socket}")
    if examined.doors.supervisor.is_outdated():
        yield warning(
            "the supervisord that runs is older than this SlapOS, and slow with many partitions",
            f"when the services may be restarted: {RENEWAL}",
        )


def check_processes(examined: Examined) -> Iterator[Finding]:
    """See that no service has ended."""
    supervisor, layout = examined.doors.supervisor, examined.doors.settings.layout
    try:
        processes = supervisor.processes()
    except SupervisorFailed as error:
        yield warning(f"not looked at: {error}", "see what is said of supervisord")
        return
    for process in processes:
        if process.is_down:
            name = f"{process.group}:{process.name}"
            program = process.name.removesuffix("-on-watch")
            log = layout.partition(process.group) / f".{process.group}_{program}.log"
            yield problem(
                f"{name} is {process.state} ({process.description}); log: {log}",
                f"read 'slapos node tail {name}', then 'slapos node start {name}'",
            )
    running = sum(process.is_running for process in processes)
    yield ok(f"{running} of {len(processes)} processes run")


def check_leftovers(examined: Examined) -> Iterator[Finding]:
    """See that no process of an earlier supervisord is left; they are not touched."""
    layout = examined.doors.settings.layout
    left = find_orphans(layout.supervisor_socket, layout.supervisor_pid_file)
    for pid, command in left:
        yield problem(
            f"process {pid} ({command}) outlived the supervisord that started it",
            f"end it with 'kill {pid}'; when supervisord does not run, 'slapos node supervisord' "
            "does that",
        )
    if not left:
        whose = "" if os.geteuid() == 0 else f" of {user_name(os.geteuid())} (root sees all)"
        yield ok(f"no process of an earlier supervisord{whose} is left")
