"""A master and a node of a test's own: each one process that can be killed and started again.

As root, both are run as `nobody`, or with `as_root` as root with users for the partitions.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.tree_status import TreeStatus

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
MASTER, NODE = "master", "node"
CONFIGURATION = """\
[slapos]
computer_id = node
master_url = {url}
software_root = {root}/soft
instance_root = {root}/inst
root_check = {as_root}
software_min_free_space = 1M
instance_min_free_space = 1M
{slapos}

[slapformat]
partition_amount = {partitions}
partition_base_name = part
user_base_name = {user}
software_user = {user}soft
alter_user = {as_root}
alter_network = false
create_tap = false
ipv4_local_network = 127.200.0.0/16

[slapproxy]
host = {host}
port = {port}
computer_id = node
database_uri = {root}/master/master.db
supply_on_request = true
"""


def until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Deployment:
    """Where it is, and how its processes are started: `enter` are words before their commands."""

    root: Path
    as_root: bool = False
    partitions: int = 10
    host: str = "127.0.0.1"
    port: int = 0
    slapos: dict[str, str] = field(default_factory=dict)
    enter: dict[str, Sequence[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the master is."""
        return f"http://{self.host}:{self.port}/"

    @property
    def configuration(self) -> Path:
        """The settings of master and node."""
        return self.root / "slapos.cfg"

    @property
    def user(self) -> str:
        """What the names of the users begin with that are made as root."""
        return f"t{self.root.name[-7:].lower()}"

    def prepare(self) -> None:
        """Write the settings, make the folders, tell the master of the node."""
        self.port = self.port or free_port(self.host)
        text = CONFIGURATION.format(
            url=self.url,
            root=self.root,
            host=self.host,
            port=self.port,
            partitions=self.partitions,
            user=self.user,
            as_root=str(self.as_root).lower(),
            slapos="\n".join(f"{name} = {value}" for name, value in self.slapos.items()),
        )
        self.configuration.write_text(text)
        for name in ("soft", "inst", "master", "log"):
            (self.root / name).mkdir()
            (self.root / name).chmod(0o755)
        if IS_ROOT and not self.as_root:
            for path in (self.root, *self.root.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self.start(MASTER)
        words = self.words(NODE, "node", "format", "--now")
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, **self._who(), timeout=300
        )
        assert done.returncode == 0, done.stderr

    def words(self, which: str, *command: str) -> list[str]:
        """Return a command line of ours with this configuration."""
        ours = [sys.executable, "-m", "slapos.command", *command, "--cfg", str(self.configuration)]
        return [*self.enter.get(which, ()), *ours]

    def start(self, which: str) -> None:
        """Start the master, and wait until it answers; or start the node."""
        command = {MASTER: ("proxy", "start"), NODE: ("node", "run")}[which]
        words = self.words(which, *command)
        if which == MASTER and not self.host.startswith("127."):
            words.append("--unsafe-listen-beyond-loopback")
        with (self.root / "log" / f"{which}.log").open("ab") as log:
            before = log.tell()
            self.processes[which] = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._who()
            )
        if which == MASTER:
            until(lambda: "listening on" in self.log(MASTER)[before:], "the master is up")

    def kill(self, which: str) -> None:
        """End a process at once, without a chance to tidy up."""
        process = self.processes.pop(which)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End everything, the services too."""
        for which in (NODE, MASTER):
            if which in self.processes:
                process = self.processes.pop(which)
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        with suppress(OSError, ValueError):
            pid = int((self.root / "inst/var/run/supervisord.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            until(lambda: not psutil.pid_exists(pid), "supervisord ends", 90)

    def _who(self) -> dict[str, Any]:
        become = IS_ROOT and not self.as_root
        environment = {k: v for k, v in os.environ.items() if k != "HOME"}
        who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return {
            "cwd": self.root,
            "env": {**environment, "HOME": str(self.root)},
            **(who if become else {}),
        }

    def log(self, which: str) -> str:
        """Return the log of the master or the node."""
        return (self.root / "log" / f"{which}.log").read_text(errors="replace")

    # What a customer does, and what is there.

    def http(self) -> HttpClient:
        """Return what speaks with the master; a POST, too, is tried again."""
        return HttpClient(HttpSettings(base_url=self.url, timeout=20))

    def client(self) -> SlapClient:
        """Return a customer's client."""
        return SlapClient(self.http())

    def tree(self, title: str) -> TreeStatus:
        """Return how an instance tree is doing."""
        answer = self.http().request("GET", f"v1/instance-trees/{title}")
        return TreeStatus.from_json(json.loads(answer.content))

    def partition(self, reference: str) -> Path:
        """Return a partition's folder."""
        return self.root / "inst" / reference


@contextmanager
def deployed(*, as_root: bool = False, **more: object) -> Iterator[Deployment]:
    """Make one, with the master running; end and remove it all at the end."""
    root = Path(tempfile.mkdtemp(prefix="slapos-", dir="/tmp"))
    root.chmod(0o755)
    made = Deployment(root, as_root=as_root, **more)  # type: ignore[arg-type]
    try:
        made.prepare()
        yield made
    finally:
        made.stop()
        if made.as_root:
            for name in (*(f"{made.user}{n}" for n in range(made.partitions)), f"{made.user}soft"):
                subprocess.run(["userdel", name], capture_output=True, check=False)
        shutil.rmtree(root, ignore_errors=True)
