"""Where things are on a node: the paths that releases, recipes and operators rely on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

#: What the process name of a file in etc/service ends with.
WATCHED = "-on-watch"


@dataclass(frozen=True)
class Layout:
    """The folders of a node, from its two roots."""

    software_root: Path
    instance_root: Path

    def release(self, url: str) -> Path:
        """Return the folder of a software release."""
        return self.software_root / release_digest(url)

    def partition(self, reference: str) -> Path:
        """Return the folder of a partition."""
        return self.instance_root / reference

    @property
    def state(self) -> Path:
        """Return where the node keeps what it remembers; only the node may write there."""
        return self.instance_root / "var" / "slapgrid"

    @property
    def journal(self) -> Path:
        """Return the journal of reports that the master has not got yet."""
        return self.state / "journal.db"

    def release_record(self, url: str) -> Path:
        """Return the file with what the node remembers of a release."""
        return self.state / "software" / f"{release_digest(url)}.json"

    def partition_record(self, reference: str) -> Path:
        """Return the file with what the node remembers of a partition."""
        return self.state / "instance" / f"{reference}.json"

    @property
    def kept(self) -> Path:
        """Return the folder with data that was put aside, to be kept for some days."""
        return self.state / "kept"

    def partition_promises(self, reference: str) -> Path:
        """Return the file with what the master was told of a partition's promises."""
        return self.state / "promises" / f"{reference}.json"

    def release_lock(self, url: str) -> Path:
        """Return the file that is locked while somebody works on a release."""
        return self.state / "lock" / "software" / f"{release_digest(url)}.lock"

    def partition_lock(self, reference: str) -> Path:
        """Return the file that is locked while somebody works on a partition."""
        return self.state / "lock" / "instance" / f"{reference}.lock"

    @property
    def measurements(self) -> Path:
        """Return the folder with what was measured of the machine and its partitions."""
        return self.instance_root / "var" / "data-log"

    @property
    def monitor_lock(self) -> Path:
        """Return the lock file of whoever measures."""
        return self.state / "monitor.lock"

    @property
    def supervisor_configuration(self) -> Path:
        """Return supervisord's configuration file."""
        return self.instance_root / "etc" / "supervisord.conf"

    @property
    def supervisor_groups(self) -> Path:
        """Return the folder with one configuration file a partition."""
        return self.instance_root / "etc" / "supervisord.conf.d"

    def output(self, group: str) -> Path:
        """Return the folder with what the programs of a group print; only root writes there."""
        return self.instance_root / "var" / "output" / group

    @property
    def supervisor_socket(self) -> Path:
        """Return the socket on which supervisord listens."""
        return self.instance_root / "sv.sock"

    @property
    def supervisor_pid_file(self) -> Path:
        """Return the file with supervisord's process id."""
        return self.instance_root / "var" / "run" / "supervisord.pid"

    @property
    def node_socket(self) -> Path:
        """Return the socket on which the agent hears of its processes."""
        return self.instance_root / "var" / "run" / "node.sock"

    @property
    def kept_information(self) -> Path:
        """Return the file with what the master said last."""
        return self.state / "information.json"

    @property
    def last_answer(self) -> Path:
        """Return the file whose time is when the master last answered the agent."""
        return self.instance_root / "var" / "run" / "last-answer"

    @property
    def agent_pidfile(self) -> Path:
        """Return the lock file of the agent, with its process id."""
        return self.default_pidfile("agent")

    def default_pidfile(self, kind: str) -> Path:
        """Return the lock file of a command, `kind` is `sr`, `cp`, `ur` or `agent`."""
        return self.instance_root / "var" / "run" / f"slapgrid-{kind}.pid"


def release_digest(url: str) -> str:
    """Return the name of a release's folder: the MD5 of its URL, as it has always been."""
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
