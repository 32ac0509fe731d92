"""A node in a folder of its own: real supervisord, real HTTP, releases that are shell scripts.

As root, everything is run as `nobody`; as an ordinary user, as oneself.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slapos.node.layout import Layout
from slapos.protocol.messages import PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstanceState
from tests.integration.node.fake_master import FakeMaster, running_master

URL = "http://example.com/hello/software.cfg"
IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
DEADLINE = 20.0
MAIN = "import sys; from slapos.command.main import main; sys.exit(main())"
#: A service that says where it runs and stays.
SERVICE = "#!/bin/sh\necho started as $USER in $HOME\nexec sleep 600\n"


@dataclass
class World:
    """A node's folders, its master, and its commands."""

    root: Path
    master: FakeMaster

    @property
    def layout(self) -> Layout:
        return Layout(self.root / "soft", self.root / "inst")

    @property
    def configuration(self) -> Path:
        return self.root / "slapos.cfg"

    def configure(self, *, slapformat: dict[str, str] | None = None, **slapos: str) -> None:
        """Write slapos.cfg: the usual settings, those given over them; an empty one is left out."""
        sections = {
            "slapos": {
                "master_url": self.master.url,
                "computer_id": "node",
                "software_root": f"{self.root}/soft",
                "instance_root": f"{self.root}/inst",
                "root_check": "false",
                "software_min_free_space": "1M",
                "instance_min_free_space": "1M",
                "request_timeout": "5",
                **slapos,
            },
            "slapformat": {
                "partition_amount": "3",
                "alter_user": "false",
                "ipv4_local_network": "127.0.200.0/24",
                **(slapformat or {}),
            },
        }
        text = ""
        for section, options in sections.items():
            text += f"[{section}]\n"
            text += "".join(f"{name} = {value}\n" for name, value in options.items() if value)
        self.configuration.write_text(text)
        self.configuration.chmod(0o644)

    def own(self, path: Path) -> Path:
        """Give a path to whom things run as."""
        if IS_ROOT:
            os.lchown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        return path

    def run(self, *words: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `slapos node …` and return what came of it; stdout and stderr are one text."""
        return subprocess.run(
            [
                *(sys.executable, "-c", MAIN, "node", words[0], "--cfg", str(self.configuration)),
                *words[1:],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            user=user,
            cwd="/",
        )

    @contextmanager
    def agent(self, *words: str) -> Iterator["RunningAgent"]:
        """Run `slapos node run` for as long as the context lasts."""
        log = self.root / "agent.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", MAIN, "node", "run", "-v"),
                    *("--cfg", str(self.configuration), *words),
                ],
                stdout=output,
                stderr=output,
                cwd="/",
            )
        agent = RunningAgent(process, log)
        try:
            yield agent
        finally:
            agent.end()

    def processes(self) -> dict[str, dict[str, object]]:
        """Return the processes of partitions, without the watchdog."""
        answer = self.run("status", "--processes", "--json")
        found = {f"{p['group']}:{p['name']}": p for p in json.loads(answer.stdout)}
        found.pop("watchdog:watchdog", None)
        return found

    def release(self, script: str = "true", url: str = URL, *, profile: str = "") -> Path:
        """Make a release whose buildout is a shell script, built already."""
        folder = self.layout.release(url)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        self.script(folder / "bin" / "buildout", f"#!/bin/sh\nset -e\n{script}\n")
        for name, text in (
            ("instance.cfg", profile or "[buildout]\nparts =\n"),
            (".completed", ""),
        ):
            (folder / name).write_text(text)
        for path in (folder, folder / "bin", folder / "instance.cfg", folder / ".completed"):
            path.chmod(0o755)
            self.own(path)
        return folder

    def script(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return self.own(path)

    def installing(self, name: str, body: str = SERVICE, folder: str = "etc/service") -> str:
        """Return the part of a buildout script that installs an executable."""
        return (
            f"mkdir -p {folder}\ncat > {folder}/{name} <<'END'\n{body}END\n"
            f"chmod 755 {folder}/{name}\n"
        )

    def want(
        self,
        reference: str = "slappart0",
        state: InstanceState = InstanceState.STARTED,
        timestamp: str = "1",
        url: str | None = URL,
        **more: object,
    ) -> None:
        """Have the master want something of a partition."""
        self.master.partitions[reference] = PartitionInformation(
            node="node",
            reference=reference,
            state=state,
            software_url=url,
            parameters={"timestamp": timestamp, "instance_title": f"title of {reference}", **more},
            instance_guid=f"guid-{reference}",
            filter={},
        )
        if url and all(release.url != url for release in self.master.releases):
            self.master.releases.append(ReleaseAssignment(url=url, node="node"))

    def partition(self, reference: str = "slappart0") -> Path:
        return self.layout.partition(reference)


@dataclass
class RunningAgent:
    """An agent that runs, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def end(self) -> int:
        """Have it end, and return its exit status."""
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE} s: {what or condition}")
        time.sleep(0.02)


def is_written(path: Path) -> bool:
    """Whether a line was written to a file."""
    return path.exists() and path.read_text().endswith("\n")


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be taken notice of does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextmanager
def new_world(master: FakeMaster | None = None) -> Iterator[World]:
    # Not below pytest's own folder, which only its owner may enter; and short, for the socket.
    root = Path(tempfile.mkdtemp(prefix="slapnode-"))
    root.chmod(0o755)
    with running_master(master) as serving:
        world = World(root, serving)
        world.configure()
        for path in (root / "soft", root / "inst"):
            path.mkdir()
            path.chmod(0o755)
        world.own(root / "soft")
        for number in range(3):
            folder = root / "inst" / f"slappart{number}"
            folder.mkdir()
            folder.chmod(0o750)
            world.own(folder)
            world.master.partitions[folder.name] = PartitionInformation(
                node="node", reference=folder.name
            )
        try:
            yield world
        finally:
            _shut_down(world)
            shutil.rmtree(root)


def _shut_down(world: World) -> None:
    pidfile = world.root / "inst" / "var" / "run" / "supervisord.pid"
    if world.layout.supervisor_socket.exists():
        world.run("supervisorctl", "shutdown")
        until(lambda: not pidfile.exists(), "supervisord ends")
