"""A node's folders with a real supervisord, and partitions with services that are shell scripts.

As root, everything is run as `nobody`; as an ordinary user, as oneself.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slapos.node.layout import Layout
from slapos.node.supervise.supervisor import Process, Supervisor
from slapos.node.users import Account, account_of
from slapos.system.clock import SystemClock
from slapos.system.runner import SystemRunner
from tests.integration.node.world import IS_ROOT, NOBODY, until

STAYS = "exec sleep 600"


@dataclass
class Partitions:
    """Partitions in `root`, under one supervisord."""

    root: Path
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = self.new_supervisor()

    @property
    def layout(self) -> Layout:
        return Layout(self.root, self.root)

    @property
    def account(self) -> Account:
        uid, gid = (NOBODY.pw_uid, NOBODY.pw_gid) if IS_ROOT else (os.geteuid(), os.getegid())
        return account_of(uid, gid)

    def new_supervisor(self) -> Supervisor:
        """Return another connection to the supervisord, as each thread has its own."""
        return Supervisor(
            self.layout,
            SystemRunner(),
            SystemClock(),
            python=sys.executable,
            environment={"PATH": os.environ["PATH"]},
        )

    def partition(self, reference: str = "slappart0") -> Path:
        folder = self.layout.partition(reference)
        if not folder.exists():
            folder.mkdir(mode=0o750)
            os.chown(folder, *self.account.owner)
        return folder

    def service(
        self, name: str, script: str = STAYS, reference: str = "slappart0", kind: str = "service"
    ) -> Path:
        """Have a partition want a service, or a program with `kind` run."""
        path = self.partition(reference) / "etc" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def run(self, reference: str = "slappart0", supervisor: Supervisor | None = None) -> None:
        (supervisor or self.supervisor).run_partition(
            reference, self.partition(reference), self.account
        )

    def process(self, name: str, reference: str = "slappart0") -> Process:
        """Return a process; a KeyError where there is none."""
        return {(p.group, p.name): p for p in self.supervisor.processes()}[reference, name]


@contextmanager
def new_partitions() -> Iterator[Partitions]:
    """Yield a node whose supervisord does not run yet."""
    # Not below pytest's own folder, which only its owner may enter; and short, for the sockets.
    root = Path(tempfile.mkdtemp(prefix="supervised-"))
    root.chmod(0o755)
    partitions = Partitions(root)
    try:
        yield partitions
    finally:
        end_supervisord(partitions)
        shutil.rmtree(root)


@contextmanager
def running_supervisor() -> Iterator[Partitions]:
    """Yield a node whose supervisord runs."""
    with new_partitions() as partitions:
        partitions.supervisor.ensure_running()
        yield partitions


def end_supervisord(partitions: Partitions) -> None:
    """Shut supervisord down, with all that runs."""
    if partitions.supervisor.is_running():
        partitions.supervisor._server.supervisor.shutdown()
        pidfile = partitions.layout.supervisor_pid_file
        until(lambda: not pidfile.exists(), "supervisord ends")
