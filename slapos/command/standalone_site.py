"""A standalone on disk: where its files are, and what is written into them."""

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import write_if_changed
from slapos.system.settings import read_configuration

NODE = "local"
DEFAULT_PORT = 5000
DEFAULT_PARTITIONS = 10
MAXIMUM_PARTITIONS = 250
#: Bytes in the address of a unix socket, without the ending zero.
LONGEST_SOCKET = 107
#: The longest path, below the directory, of a socket that a release is likely to make.
DEEPEST_SOCKET = "inst/slappart99/var/run/.s.PGSQL.54321"

_CONFIGURATION = """\
# Written by `slapos standalone start`, for its master, its node, and who asks them.
[slapos]
computer_id = {node}
master_url = {url}
master_rest_url = {url}hateoas/
software_root = {root}/soft
instance_root = {root}/inst
shared_part_list = {root}/shared
root_check = {as_root}
poll_interval = 1

[slapformat]
partition_amount = {partitions}
partition_base_name = slappart
user_base_name = {user}u
software_user = {user}soft
ipv4_local_network = {network}.0/24
alter_user = {as_root}
alter_network = false
create_tap = false
computer_xml = {root}/var/computer.xml

[slapproxy]
host = {host}
port = {port}
database_uri = {root}/var/proxy.db
supply_on_request = true
"""

_SUPERVISOR = """\
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[unix_http_server]
file = {root}/var/sv.sock
chmod = 0700

[supervisord]
{user}directory = {root}
logfile = {root}/var/log/supervisord.log
pidfile = {root}/var/run/supervisord.pid
childlogdir = {root}/var/log

"""

_PROGRAM = """
[program:{name}]
command = {command}
autostart = false
autorestart = true
startsecs = 1
startretries = 2
stopasgroup = true
killasgroup = true
stopwaitsecs = 30
redirect_stderr = true
stdout_logfile = {root}/var/log/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2
"""

#: Leaves its process id in a file, so that the program is found even when supervisord was killed.
_WITH_PID_FILE = 'echo $$ > "$0" && exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Site:
    """A standalone: its directory, and what may be chosen about it."""

    directory: Path
    port: int = DEFAULT_PORT
    partitions: int = DEFAULT_PARTITIONS

    @classmethod
    def at(cls, directory: Path, port: int | None = None, partitions: int | None = None) -> "Site":
        """Return the standalone in a directory; what is not given is as it was, or the default.

        Raises InvalidConfiguration.
        """
        known = cls(directory=Path(os.path.abspath(directory.expanduser())))
        if known.configuration.exists():
            sections = read_configuration(known.configuration)
            known = cls(
                directory=known.directory,
                port=_number(sections, "slapproxy", "port", known),
                partitions=_number(sections, "slapformat", "partition_amount", known),
            )
        site = cls(
            directory=known.directory,
            port=port or known.port,
            partitions=partitions or known.partitions,
        )
        site.check()
        return site

    def check(self) -> None:
        """Raise InvalidConfiguration when there could not be such a standalone."""
        excess = len(os.fsencode(self.directory / DEEPEST_SOCKET)) - LONGEST_SOCKET
        if excess > 0:
            raise InvalidConfiguration(
                f"{self.directory} is {excess} bytes too long for the unix sockets below it: "
                "choose a shorter path with --directory"
            )
        if any(character in str(self.directory) for character in "\n\r;\"'"):
            raise InvalidConfiguration(
                f"{str(self.directory)!r} has a quote, a semicolon or a line break in it, which "
                "configuration files cannot have: choose another path with --directory"
            )
        if not 0 < self.port < 65536:
            raise InvalidConfiguration(f"{self.port} is no port: choose one of 1 to 65535")
        if not 0 < self.partitions <= MAXIMUM_PARTITIONS:
            raise InvalidConfiguration(
                f"{self.partitions} partitions cannot be: choose 1 to {MAXIMUM_PARTITIONS}"
            )

    @property
    def network(self) -> str:
        """The first three numbers of the loopback addresses that are this standalone's own.

        They come from the directory, so that two standalones do not meet.
        """
        return f"127.{self._digest[0] % 254 + 1}.{self._digest[1]}"

    @property
    def user(self) -> str:
        """What the names of this standalone's users begin with, where it makes users (as root)."""
        return f"sa{self._digest.hex()[:6]}"

    @property
    def software_user(self) -> str:
        """The user that builds the releases, where there are users of its own."""
        return f"{self.user}soft"

    def user_names(self) -> set[str]:
        """Return the names of all users that may have been made for it."""
        return {self.software_user, *(f"{self.user}u{n}" for n in range(MAXIMUM_PARTITIONS))}

    @property
    def _digest(self) -> bytes:
        return hashlib.sha256(os.fsencode(self.directory)).digest()

    @property
    def host(self) -> str:
        """The address that the master listens on."""
        return f"{self.network}.1"

    @property
    def master_url(self) -> str:
        """Where the master is."""
        return f"http://{self.host}:{self.port}/"

    @property
    def configuration(self) -> Path:
        """The configuration of master, node and client."""
        return self.directory / "etc/slapos.cfg"

    @property
    def supervisor_configuration(self) -> Path:
        """The configuration of the supervisord that runs master and node."""
        return self.directory / "etc/supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Where that supervisord listens."""
        return self.directory / "var/sv.sock"

    @property
    def instance_socket(self) -> Path:
        """Where the supervisord of the instances listens."""
        return self.directory / "inst/sv.sock"

    @property
    def instance_root(self) -> Path:
        """Where the partitions are."""
        return self.directory / "inst"

    @property
    def lock(self) -> Path:
        """The file that keeps two commands from starting or stopping at once."""
        return self.directory / "var/run/standalone.lock"

    @property
    def last_answer(self) -> Path:
        """The file whose time is when the master last answered the node."""
        return self.instance_root / "var/run/last-answer"

    def log(self, program: str) -> Path:
        """Return the log of `proxy`, `node`, `format` or `supervisord`."""
        return self.directory / f"var/log/{program}.log"

    def pid_file(self, program: str) -> Path:
        """Return where the process id of `proxy`, `node` or `supervisord` is."""
        return self.directory / f"var/run/{program}.pid"

    def pid_files(self) -> Iterator[Path]:
        """Yield where the process ids are of what `start` starts, the instances' own last."""
        for name in ("supervisord", "node", "proxy"):
            yield self.pid_file(name)
        yield self.instance_root / "var/run/supervisord.pid"

    def write(self) -> bool:
        """Make the directories and write the files; return whether anything changed.

        Raises InvalidConfiguration where somebody else could change them.
        """
        if self.directory.exists() and self.directory.stat().st_uid != os.geteuid():
            raise InvalidConfiguration(
                f"{self.directory} is somebody else's: choose another --directory"
            )
        for name, mode in (
            *(("", 0o755), ("etc", 0o755), ("soft", 0o755), ("inst", 0o755), ("shared", 0o755)),
            # The database has passwords in it: not for the users of the partitions.
            *(("var", 0o700), ("var/log", 0o700), ("var/run", 0o700)),
        ):
            folder = self.directory / name
            if not folder.is_dir():
                folder.mkdir(parents=name == "")
                folder.chmod(mode)
        changed = write_if_changed(self.configuration, self._configuration_text())
        return write_if_changed(self.supervisor_configuration, self._supervisor_text()) or changed

    def _configuration_text(self) -> str:
        return _CONFIGURATION.format(
            node=NODE,
            url=self.master_url,
            root=self.directory,
            as_root=str(os.geteuid() == 0).lower(),
            partitions=self.partitions,
            user=self.user,
            network=self.network,
            host=self.host,
            port=self.port,
        )

    def _supervisor_text(self) -> str:
        root = str(self.directory).replace("%", "%%")
        cfg = str(self.configuration)
        user = "user = root\n" if os.geteuid() == 0 else ""
        return (
            _SUPERVISOR.format(root=root, user=user)
            + self._program("proxy", "-m", "slapos.command", "proxy", "start", "--cfg", cfg)
            + self._program("node", "-m", "slapos.command.standalone_node", cfg)
        )

    def _program(self, name: str, *arguments: str) -> str:
        pid_file = self.pid_file(name)
        words = ["/bin/sh", "-c", _WITH_PID_FILE, str(pid_file), sys.executable, *arguments]
        return _PROGRAM.format(
            name=name,
            command=shlex.join(words).replace("%", "%%"),
            root=str(self.directory).replace("%", "%%"),
        )


def _number(sections: dict[str, dict[str, str]], section: str, option: str, site: Site) -> int:
    try:
        return int(sections[section][option])
    except (KeyError, ValueError) as error:
        raise InvalidConfiguration(
            f"{site.configuration} has no number {option} in [{section}]: repair the line, or "
            "remove the file and start again"
        ) from error
