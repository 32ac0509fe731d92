"""What `slapos standalone start|stop|status|remove` do."""

import os
import pwd
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slapos.command.standalone_processes import POLL, SupervisorSocket, end_all
from slapos.command.standalone_site import NODE, Site
from slapos.node.reachability import check_python, check_reachable
from slapos.node.users import Account
from slapos.protocol.errors import MasterFailed, MasterUnreachable, NotFound, SlapOSError
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.json_reader import load_json
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock, SystemClock
from slapos.system.files import remove_tree
from slapos.system.runner import CommandFailed, SystemRunner, User
from slapos.system.settings import clean_environment, environment

#: Seconds that supervisord, the master and the node get to be there.
START_TIME = 60.0
FORMAT_TIME = 300.0
#: Seconds that the master gets to answer; another program on its port may say nothing at all.
ANSWER_TIME = 5.0
RUNNING = ("STARTING", "RUNNING")
#: Lines shown of the log of what does not start.
SHOWN_LINES = 15


class NotRemoved(SlapOSError):
    """Something of a standalone cannot be removed."""

    code = "not_removed"


Say = Callable[[str], None]


class NotStarted(SlapOSError):
    """A part of the standalone does not start."""

    code = "not_started"


def start(site: Site, say: Say, clock: Clock | None = None) -> None:
    """Have everything running; what runs with the same settings is left alone."""
    clock = clock or SystemClock()
    _check_users_can_enter(site)
    supervisor = SupervisorSocket(site.supervisor_socket)
    if supervisor.pid() is not None and _runs_with(site) != _settings_mark(site):
        say("its settings have changed: starting master and node again")
        _stop_own(site, clock)
    if supervisor.pid() is None:
        _stop_own(site, clock)  # what a killed supervisord left behind
        say("starting supervisord")
        _start_supervisor(site)
        _wait("supervisord", lambda: supervisor.pid() is not None, site, clock)
        _mark_file(site).write_text(_settings_mark(site))
    if not _is_running(supervisor, "proxy"):
        say("starting the master")
        _check_port(site)
        supervisor.start("proxy")
    _wait("proxy", lambda: _answers(site), site, clock)
    say(f"preparing {site.partitions} partitions")
    _format(site)
    say("starting the node")
    before = _last_answer(site)
    fresh = not _is_running(supervisor, "node")
    supervisor.start("node")
    if fresh:
        _wait("node", lambda: _last_answer(site) not in (None, before), site, clock)


def stop(site: Site, say: Say, clock: Clock | None = None) -> None:
    """End everything, the services too. Raises NotStopped."""
    clock = clock or SystemClock()
    say("stopping node, master and services")
    # Before the master, which it would look for in vain.
    SupervisorSocket(site.supervisor_socket).stop("node")
    sockets = (site.supervisor_socket, site.instance_socket)
    ended = end_all(sockets, site.pid_files(), site.directory, clock)
    if ended:
        say(f"{ended} processes that nobody supervised were ended one by one")


def remove(site: Site, say: Say) -> None:
    """Remove the directory with all data, and the users that were made for it; it is stopped."""
    if os.geteuid() == 0:
        made = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name in site.user_names()]
        say(f"removing {len(made)} users")
        # The software user last: the others are members of its group.
        for name in sorted(made, key=lambda name: name == site.software_user):
            _run_quietly("userdel", name)
    say(f"removing {site.directory}")
    remove_tree(site.directory)


def _run_quietly(*words: str) -> None:
    try:
        SystemRunner().run(words, cwd=Path("/"), environment=clean_environment(environment()))
    except CommandFailed as error:
        raise NotRemoved(f"'{' '.join(words)}' failed: {error.output or error}") from error


def describe(site: Site) -> dict[str, Any]:
    """Return how everything is doing, for programs."""
    supervisor = SupervisorSocket(site.supervisor_socket)
    states = {process.name: process.state for process in supervisor.processes()}
    answers = bool(states) and _answers(site)
    node = states.get("node", "STOPPED")
    return {
        "directory": str(site.directory),
        "configuration": str(site.configuration),
        "running": answers and node in RUNNING,
        "supervisor": {"pid": supervisor.pid()},
        "master": {
            "url": site.master_url,
            "state": states.get("proxy", "STOPPED"),
            "answers": answers,
        },
        "node": {"reference": NODE, "state": node, "last_answer": _last_answer(site)},
        "partitions": _partitions(site) if answers else [],
        "processes": [asdict(p) for p in SupervisorSocket(site.instance_socket).processes()],
    }


def _check_users_can_enter(site: Site) -> None:
    """As root, see that the users to come can start Python and get to their partitions."""
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    account = Account(
        name="of a partition",
        uid=nobody.pw_uid,
        gid=nobody.pw_gid,
        user=User(nobody.pw_uid, nobody.pw_gid),
    )
    check_python(account, sys.executable)
    check_reachable(account, site.instance_root, "choose another --directory (as below /srv)")


def _check_port(site: Site) -> None:
    try:
        socket.create_server((site.host, site.port)).close()
    except OSError as error:
        raise NotStarted(
            f"the master cannot listen on {site.host} port {site.port}: {error.strerror}; end the "
            "program that uses the port, or choose another one with --port"
        ) from error


def _start_supervisor(site: Site) -> None:
    argv = [sys.executable, "-m", "supervisor.supervisord"]
    kept = clean_environment(environment()) | {"HOME": str(site.directory)}
    try:
        SystemRunner().run(
            [*argv, "-c", str(site.supervisor_configuration)],
            cwd=site.directory,
            environment=kept,
            timeout=START_TIME,
        )
    except CommandFailed as error:
        raise NotStarted(f"supervisord does not start: {error}: {error.output}") from error


def _stop_own(site: Site, clock: Clock) -> None:
    own = [file for file in site.pid_files() if not file.is_relative_to(site.instance_root)]
    end_all((site.supervisor_socket,), own, site.directory, clock, services=False)


def _wait(program: str, is_there: Callable[[], bool], site: Site, clock: Clock) -> None:
    """Wait until something is there; raises NotStarted, with the end of the program's log."""
    supervisor = SupervisorSocket(site.supervisor_socket)
    deadline = clock.monotonic() + START_TIME
    while not is_there():
        failed = any(p.name == program and p.state == "FATAL" for p in supervisor.processes())
        if failed or clock.monotonic() > deadline:
            log = site.log(program)
            raise NotStarted(f"{program} does not start; the end of {log}:\n{_end_of(log)}")
        clock.sleep(POLL)


def _end_of(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"  ({error.strerror})"
    return "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])


def _answers(site: Site) -> bool:
    client = _client(site)
    try:
        client.http.request("GET", "v1/health")
    except (MasterUnreachable, MasterFailed, NotFound):
        return False
    finally:
        client.http.close()
    return True


def _format(site: Site) -> None:
    argv = [sys.executable, "-m", "slapos.command", "node", "format", "--now"]
    argv += ["--cfg", str(site.configuration), "--log-file", str(site.log("format"))]
    try:
        SystemRunner().run(
            argv,
            cwd=site.directory,
            environment=clean_environment(environment()),
            timeout=FORMAT_TIME,
        )
    except CommandFailed as error:
        raise NotStarted(f"the partitions could not be prepared: {error.output}") from error
    if os.geteuid() == 0:  # parts that releases share are built by the user that builds these
        owner = (site.directory / "soft").stat()
        os.chown(site.directory / "shared", owner.st_uid, owner.st_gid)


def _is_running(supervisor: SupervisorSocket, name: str) -> bool:
    return any(
        process.name == name and process.state in RUNNING for process in supervisor.processes()
    )


def _last_answer(site: Site) -> str | None:
    """Return when the master last answered the node, ISO 8601 in UTC."""
    try:
        return datetime.fromtimestamp(site.last_answer.stat().st_mtime, UTC).isoformat()
    except OSError:
        return None


def _partitions(site: Site) -> list[dict[str, Any]]:
    client = _client(site)
    try:
        node = load_json(client.http.request("GET", f"v1/nodes/{NODE}").content)
    except (SlapOSError, ValueError):
        return []
    finally:
        client.http.close()
    return [
        {
            "reference": partition["reference"],
            "instance": (partition.get("instance") or {}).get("title"),
        }
        for partition in node.get("partitions", ())
    ]


def _client(site: Site) -> SlapClient:
    settings = HttpSettings(base_url=site.master_url, timeout=ANSWER_TIME, retries=0)
    return SlapClient(HttpClient(settings))


def _mark_file(site: Site) -> Path:
    return site.directory / "var/run/settings"


def _runs_with(site: Site) -> str:
    try:
        return _mark_file(site).read_text()
    except OSError:
        return ""


def _settings_mark(site: Site) -> str:
    """Return what master and node were, or would be, started with."""
    return site.configuration.read_text() + site.supervisor_configuration.read_text()
