"""supervisord's configuration files: one for itself, one a partition (slap-node.md §3.5)."""

import logging
import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from slapos.node.layout import WATCHED, Layout
from slapos.node.users import Account
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import write_if_changed

logger = logging.getLogger(__name__)

#: The last line of a group's file: one without it was torn by a crash.
END = "; end\n"
#: Bytes in the address of a unix socket, without the ending zero.
LONGEST_SOCKET = 107
#: supervisord first makes `sv.sock.<pid>` and then renames it.
SOCKET_SUFFIX = 8

_SAFE_NAME = re.compile(r"[^\s:,\[\]/;%\"'\x00-\x1f\x7f\ud800-\udfff]+")

_MAIN = """\
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:slapos]
supervisor.rpcinterface_factory = slapos.node.supervise.rpc_interface:make_interface

[unix_http_server]
file = {socket}
chmod = 0700

[supervisorctl]
serverurl = unix://{socket}

[supervisord]
{user}logfile = {root}/var/log/supervisord.log
logfile_maxbytes = 50MB
logfile_backups = 10
loglevel = info
pidfile = {root}/var/run/supervisord.pid
childlogdir = {root}/var/log

[include]
files = {groups}/*.conf
"""

_PROGRAM = """
[program:{group}_{short_name}]
process_name = {name}
command = {command}
directory = {directory}
autostart = false
autorestart = false
startsecs = 0
startretries = 0
exitcodes = 0
stopsignal = TERM
stopwaitsecs = 60
stopasgroup = true
killasgroup = true
{user}redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 100KB
stdout_logfile_backups = 1
environment = HOME="{directory}",LOGNAME="{user_name}",USER="{user_name}"
"""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A file that a release wants running: `name` is that of its process."""

    name: str
    path: Path

    @property
    def short_name(self) -> str:
        """The file's name."""
        return self.path.name


def write_main(layout: Layout) -> bool:
    """Write supervisord's own configuration; return whether it changed.

    Raises InvalidConfiguration when the instance root is too deep for a socket.
    """
    socket = str(layout.supervisor_socket)
    for path, suffix in ((layout.supervisor_socket, SOCKET_SUFFIX), (layout.node_socket, 0)):
        excess = len(bytes(path)) + suffix - LONGEST_SOCKET
        if excess > 0:
            raise InvalidConfiguration(
                f"instance_root {layout.instance_root} is {excess} bytes too long for the socket "
                f"{path}: choose a shorter path"
            )
    if not layout.instance_root.is_dir():
        raise InvalidConfiguration(
            f"instance_root {layout.instance_root} is not there: run 'slapos node format'"
        )
    root = layout.instance_root
    for folder, mode in (
        (root / "var", 0o755),
        (layout.state, 0o700),
        (root / "var" / "log", 0o700),
        (root / "var" / "run", 0o700),
        (root / "etc", 0o700),
        (layout.supervisor_groups, 0o700),
    ):
        folder.mkdir(exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) != mode:
            folder.chmod(mode)
    text = _MAIN.format(
        socket=_plain(socket),
        root=_plain(str(root)),
        groups=_plain(str(layout.supervisor_groups)),
        user="user = root\n" if os.geteuid() == 0 else "",
    )
    return write_if_changed(layout.supervisor_configuration, text, mode=0o600)


def find_programs(partition: Path) -> list[Program]:
    """Return what a partition wants running: files of etc/run and etc/service, by name.

    Where both have a file of one name, the service counts.
    """
    found = {p.short_name: p for p in find_executables(partition / "etc" / "run")}
    found |= {p.short_name: p for p in find_executables(partition / "etc" / "service", WATCHED)}
    return [found[name] for name in sorted(found)]


def find_executables(folder: Path, suffix: str = "") -> list[Program]:
    """Return the programs of a folder, by name; files that cannot be run are warned of."""
    found = []
    for path in sorted(folder.glob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        if os.access(path, os.X_OK):
            found.append(Program(name=path.name + suffix, path=path))
        else:
            logger.warning("%s is not executable, so it is not started", path)
    return found


def log_name(group: str, program: Program) -> str:
    """Return what the file is called that a program's output goes to."""
    return f".{group}_{program.short_name}.log"


def render_group(
    group: str, programs: list[Program], directory: Path, output: Path, account: Account
) -> str:
    """Return the configuration of a group of programs, which work in `directory`.

    What they print goes to files in `output`. Raises InvalidConfiguration for a file name that
    supervisord cannot have.
    """
    for program in programs:
        if not _SAFE_NAME.fullmatch(program.short_name):
            raise InvalidConfiguration(
                f"{str(program.path)!r} cannot be a service: its name has a space, one of "
                ": , [ ] / ; %, a quote, or bytes that are no UTF-8"
            )
    names = ",".join(f"{group}_{program.short_name}" for program in programs)
    text = f"[group:{group}]\nprograms = {names}\n"
    for program in programs:
        text += _PROGRAM.format(
            group=group,
            short_name=program.short_name,
            name=program.name,
            command=_plain(shlex.quote(str(program.path))),
            directory=_plain(str(directory)),
            user="" if account.user is None else f"user = {account.uid}\n",
            user_name=account.name,
            log=_plain(str(output / log_name(group, program))),
        )
    return text + END


def _plain(text: str) -> str:
    """Return a value as supervisord's files have it, where `%` begins an expansion."""
    return text.replace("%", "%%")
