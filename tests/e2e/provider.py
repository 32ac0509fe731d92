"""A provider's whole: a full master on PostgreSQL, nodes that joined it, people who signed in.

All of it by the commands and calls that people use; as root, processes run as `nobody`.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.e2e.deployment import IS_ROOT, NOBODY, free_port, until

PASSWORD = "correct horse battery staple"
MASTER = """\
[slapos-master]
data_directory = {root}/master
database_uri = {database}
port = {port}
public_url = https://127.0.0.1:{port}/
workers = 2
rate_limit = off
anonymous_rate_limit = off
{settings}
"""
NODE = """\
[slapos]
software_root = {folder}/soft
instance_root = {folder}/inst
root_check = false
software_min_free_space = 1M
instance_min_free_space = 1M

[slapformat]
partition_amount = {partitions}
partition_base_name = part
alter_user = false
alter_network = false
create_tap = false
ipv4_local_network = {network}
"""


@dataclass
class Person:
    """Somebody who has signed in, and asks with a token."""

    url: str
    session: requests.Session

    def ask(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """Return the answer of a call; it has to go well, or have a status."""
        answer = self.session.request(method, f"{self.url}{path}", json=body, timeout=60)
        expected = answer.status_code < 400 if status is None else answer.status_code == status
        assert expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def order(self, title: str, url: str, **more: Any) -> Any:
        """Order a service as the JSON-RPC of SLAP has it."""
        asked = {"title": title, "software_release_uri": url, "software_type": "default"} | more
        return self.ask("POST", "slapos.post.v0.software_instance", asked)

    def trees(self) -> dict[str, Any]:
        """Return the instance trees that this person sees, by titles."""
        found: list[Any] = self.ask("GET", "v1/instance-trees")["instance_trees"]
        return {tree["title"]: tree for tree in found}

    def is_healthy(self, title: str) -> bool:
        """Return whether a service does as it should."""
        tree = self.trees().get(title)
        return tree is not None and tree["healthy"]


@dataclass
class Provider:
    """Where it is, and what runs."""

    root: Path
    database: str
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the master is."""
        return f"https://127.0.0.1:{self.port}/"

    @property
    def configuration(self) -> Path:
        """The master's settings file."""
        return self.root / "master.cfg"

    @property
    def authority(self) -> Path:
        """The certificates of the authorities to trust."""
        return self.root / "authority.pem"

    def start(self) -> None:
        """Write the settings if there are none, and start the master."""
        self.port = self.port or free_port("127.0.0.1")
        lines = "\n".join(f"{name} = {text}" for name, text in self.settings.items())
        self.configuration.write_text(
            MASTER.format(root=self.root, database=self.database, port=self.port, settings=lines)
        )
        self.configuration.chmod(0o600)
        self._own()
        before = len(self.log("master"))
        self._run_on("master", "master", "start", "--cfg", str(self.configuration))
        until(lambda: "listening on" in self.log("master")[before:], "the master is up", 120)
        self.authority.write_text(self.command("master", "ca", "show", "--pem"))

    def stop(self, which: str) -> None:
        """End the master or a node's agent; what a node runs goes on."""
        process = self.processes.pop(which)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self) -> None:
        """End everything."""
        for which in list(self.processes):
            self.stop(which)
        for name in self.nodes:
            with suppress(OSError, ValueError):
                pid = int((self.root / name / "inst/var/run/supervisord.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                until(lambda pid=pid: not psutil.pid_exists(pid), "supervisord ends", 90)  # type: ignore[misc]

    def command(self, *words: str, cfg: Path | None = None) -> str:
        """Run one of our commands, and return what it printed."""
        done = subprocess.run(
            self._words(*words, "--cfg", str(cfg or self.configuration)),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            **self._who(),
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        printed: str = done.stdout
        return printed

    def person(self, email: str, *roles: str, project: str | None = None) -> Person:
        """Invite somebody, and return her once she has accepted and made herself a token."""
        where = ("--project", project) if project else ()
        role, *others = roles
        text = self.command("master", "user", "invite", email, "--role", role, *where, "--json")
        token = json.loads(text)["link"].partition("token=")[2]
        accepted = {"token": token, "name": email.partition("@")[0], "password": PASSWORD}
        session = self._session("v1/invitations/acceptance", accepted)
        for other in others:
            self.command("master", "user", "add-role", email, "--role", other, *where)
        return self._with_token(session)

    def again(self, email: str) -> Person:
        """Return somebody who signs in with her password."""
        return self._with_token(self._session("v1/sign-in", {"email": email, "password": PASSWORD}))

    def _session(self, path: str, body: Any) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # its variables would come before what is said here
        session.verify = str(self.authority)
        answer = session.post(f"{self.url}{path}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return session

    def _with_token(self, session: requests.Session) -> Person:
        wanted = {
            "title": "tests",
            "scopes": ["operate", "order", "read"],
            "expires_at": "2027-06-01T00:00:00Z",
        }
        answer = session.post(f"{self.url}v1/tokens", json=wanted, timeout=60)
        assert answer.status_code == 201, answer.text
        session.cookies.clear()
        session.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return Person(self.url, session)

    def join(self, name: str, token: str, network: str, partitions: int = 6) -> str:
        """Have a machine join, prepare it, start its agent, and return its reference."""
        folder = self.root / name
        for each in (folder, folder / "soft", folder / "inst"):
            each.mkdir()
            each.chmod(0o755)
        cfg = folder / "slapos.cfg"
        cfg.write_text(NODE.format(folder=folder, network=network, partitions=partitions))
        self._own()
        words = ("--master", self.url, "--token", token, "--name", name, "--json")
        said = json.loads(self.command("node", "register", *words, cfg=cfg))
        self.command("node", "format", "--now", cfg=cfg)
        self.nodes[name] = reference = str(said["reference"])
        self.start_node(name)
        return reference

    def start_node(self, name: str) -> None:
        """Start a node's agent."""
        self._run_on(name, "node", "run", "--cfg", str(self.root / name / "slapos.cfg"))

    def log(self, which: str) -> str:
        """Return the log of the master or of a node."""
        path = self.root / f"{which}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _run_on(self, which: str, *words: str) -> None:
        with (self.root / f"{which}.log").open("ab") as log:
            self.processes[which] = subprocess.Popen(
                self._words(*words), stdout=log, stderr=log, **self._who()
            )

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "slapos.command", *words]

    def _who(self) -> dict[str, Any]:
        environment = {name: text for name, text in os.environ.items() if name != "HOME"}
        who: dict[str, Any] = {
            "cwd": self.root,
            "env": {**environment, "HOME": str(self.root)},
            "stdin": subprocess.DEVNULL,
        }
        if IS_ROOT:
            who |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return who

    def _own(self) -> None:
        if IS_ROOT:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@contextmanager
def provided(root: Path, database: str, **settings: str) -> Iterator[Provider]:
    """Give one whose master has started, and end it all at the end."""
    root.chmod(0o755)
    made = Provider(root, database, settings)
    try:
        made.start()
        yield made
    finally:
        made.end()
