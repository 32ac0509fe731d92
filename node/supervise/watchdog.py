"""The watchdog: a supervisord event listener that bangs when a service of an instance ends.

Once per deployment of a partition: what `.timestamp` held at the last bang is kept beside it in
`.slapos_latest_bang_timestamp`, and the next bang is for a later one. Events are taken at once and
posted by a thread of its own, which tries again for as long as the master is away.
"""

import argparse
import json
import math
import os
import queue
import shlex
import stat
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slapos.node.bang import BangSettings, bang
from slapos.node.layout import WATCHED, Layout
from slapos.protocol.errors import MasterFailed, MasterUnreachable, SlapOSError
from slapos.system.clock import Clock, SystemClock
from slapos.system.files import write_if_changed

#: The name of its group.
WATCHDOG = "watchdog"
EVENTS = ("PROCESS_STATE_EXITED", "PROCESS_STATE_FATAL")
DEPLOYED = ".timestamp"
BANGED = ".slapos_latest_bang_timestamp"
#: What is taken for the timestamp of a partition that was never deployed.
NEVER = "0"
LONGEST_TIMESTAMP = 100
#: Seconds between two attempts to reach a master that is away: the first wait and the longest.
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Where that is remembered, among what the node remembers.
MEMORY = "bangs.json"
#: So many bangs may a partition have in so many seconds.
BANGS_A_PERIOD, PERIOD = 3, 300.0


@dataclass(frozen=True)
class Trouble:
    """A service that ended: what to tell of it, and which deployment of the partition it was."""

    partition: str
    message: str
    deployed: str


#: Posts a bang for a partition with a message. Raises SlapOSError or OSError.
Bang = Callable[[str, str], None]


class Watchdog:
    """Takes events of processes, and bangs for those of services."""

    def __init__(self, instance_root: Path, post: Bang, clock: Clock) -> None:
        self._instance_root = instance_root
        self._post = post
        self._clock = clock
        self._waiting: queue.Queue[Trouble] = queue.Queue()
        self._known: set[str] = set()
        self._memory = Layout(instance_root, instance_root).state / MEMORY
        #: By partition: when it banged of late, in seconds since 1970.
        self._recent = _read_memory(self._memory)
        self._wait = SHORTEST_WAIT

    def take(self, event: str, process: Mapping[str, str]) -> None:
        """Take an event; `process` has at least `processname` and `groupname`. Never waits."""
        partition, name = process.get("groupname", ""), process.get("processname", "")
        if event not in EVENTS or WATCHED not in name:
            return
        folder = self._instance_root / partition
        if partition in self._known or not partition or not folder.is_dir():
            return
        deployed = read_timestamp(folder / DEPLOYED)
        if not is_news(deployed, read_timestamp(folder / BANGED)):
            return
        if self._is_too_often(partition):
            return
        self._known.add(partition)
        message = f"{name} process in partition {partition} encountered a problem"
        self._waiting.put(Trouble(partition, message, deployed or NEVER))

    def _is_too_often(self, partition: str) -> bool:
        """Return whether the partition banged often of late; if not, note that it does now.

        Each bang is a new deployment: without this, a service that ends at once each time would
        have its instance processed without pause.
        """
        now = self._clock.now().timestamp()
        recent = [at for at in self._recent.get(partition, ()) if abs(now - at) < PERIOD]
        if len(recent) >= BANGS_A_PERIOD:
            return True
        self._recent[partition] = [*recent, now]
        # On disk: what makes the watchdog end may be what ends the services.
        with suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_if_changed(self._memory, json.dumps(self._recent), mode=0o600)
        return False

    def post_next(self) -> None:
        """Wait for the next trouble and bang for it; where the master is away, wait and keep it."""
        trouble = self._waiting.get()
        try:
            self._post(trouble.partition, trouble.message)
        except (MasterUnreachable, MasterFailed) as error:
            _say(f"will bang again in {self._wait:g} s: {trouble.message}: {error}")
            self._waiting.put(trouble)
            self._clock.sleep(self._wait)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            return
        except (SlapOSError, OSError) as error:
            # The master will not have it: the next event is another attempt.
            _say(f"the bang was refused: {trouble.message}: {error}")
        else:
            _say(f"bang: {trouble.message}")
            self._remember(trouble)
        self._wait = SHORTEST_WAIT
        self._known.discard(trouble.partition)

    def _remember(self, trouble: Trouble) -> None:
        path = self._instance_root / trouble.partition / BANGED
        try:
            # Put in place as a new file: the partition's user may have left a link there.
            write_if_changed(path, trouble.deployed)
        except OSError as error:
            _say(f"{path} cannot be written, so the next event will bang again: {error}")


def _read_memory(path: Path) -> dict[str, list[float]]:
    try:
        known = json.loads(path.read_text())
        return {str(name): [float(at) for at in moments] for name, moments in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def is_news(deployed: str | None, banged: str | None) -> bool:
    """Return whether no bang was posted yet for the deployment `deployed`.

    A partition that was never deployed gets one bang.
    """
    if banged is None:
        return True
    if deployed is None:
        return False
    try:
        before, now = float(banged), float(deployed)
    except ValueError:
        return deployed != banged
    return now > before if math.isfinite(before) and math.isfinite(now) else deployed != banged


def read_timestamp(path: Path) -> str | None:
    """Return what a small file holds, None where there is none; a link or a pipe is none.

    The partition's user can put anything there, and we may be root.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return stream.read(LONGEST_TIMESTAMP).decode("utf-8", "replace").strip() or None


def listen(
    given: IO[bytes], answers: IO[bytes], take: Callable[[str, Mapping[str, str]], None]
) -> None:
    """Speak supervisord's event listener protocol until it hangs up.

    Raises ValueError when what comes is not that protocol.
    """
    while True:
        answers.write(b"READY\n")
        answers.flush()
        line = given.readline()
        if not line:
            return
        header = _pairs(line)
        if "len" not in header or "eventname" not in header:
            raise ValueError(f"this is no event of supervisord: {line!r}")
        payload = given.read(int(header["len"]))
        take(header["eventname"], _pairs(payload))
        answers.write(b"RESULT 2\nOK")
        answers.flush()


def _pairs(text: bytes) -> dict[str, str]:
    words = (word.partition(":") for word in text.decode("utf-8", "replace").split())
    return {name: value for name, _, value in words}


def command_line(
    python: str,
    *,
    master_url: str,
    node: str,
    instance_root: Path,
    certificates: Path | None = None,
    authority_file: Path | None = None,
) -> list[str]:
    """Return the words that start a watchdog; `certificates` is the folder of the partitions'."""
    words = [python, "-P", "-m", "slapos.node.supervise.watchdog", f"--master-url={master_url}"]
    words += [f"--node={node}", f"--instance-root={instance_root}"]
    if certificates is not None:
        words.append(f"--certificates={certificates}")
    if authority_file is not None:
        words.append(f"--authority-file={authority_file}")
    return words


def section(command: Sequence[str], root: Path) -> str:
    """Return the section of supervisord's configuration that starts the watchdog `command`."""
    shown = shlex.join(command).replace("%", "%%")
    log = str(root / "var" / "log" / "watchdog.log").replace("%", "%%")
    return f"""
[eventlistener:{WATCHDOG}]
command = {shown}
events = {",".join(EVENTS)}
buffer_size = 1000
autostart = true
autorestart = true
startsecs = 0
stopsignal = TERM
stderr_logfile = {log}
stderr_logfile_maxbytes = 1MB
stderr_logfile_backups = 1
"""


def _end(failure: threading.ExceptHookArgs) -> None:
    """End with the thread that posts: supervisord starts another watchdog."""
    threading.__excepthook__(failure)
    os._exit(1)


def _say(text: str) -> None:
    sys.stderr.write(f"watchdog: {text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slapos.node.supervise.watchdog",
        description="Bang when a service ends. supervisord starts this program.",
        allow_abbrev=False,
    )
    parser.add_argument("--master-url", required=True)
    parser.add_argument("--node", required=True, help="its name")
    parser.add_argument("--instance-root", type=Path, required=True)
    parser.add_argument("--certificates", type=Path, help="folder of the partitions' certificates")
    parser.add_argument("--authority-file", type=Path, help="whose certificate the master has")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Listen until supervisord hangs up."""
    given = _parser().parse_args(argv)
    certificates: Path | None = given.certificates

    def post(partition: str, message: str) -> None:
        settings = BangSettings(
            master_url=given.master_url,
            node=given.node,
            key_file=certificates / f"{partition}.key" if certificates else None,
            certificate_file=certificates / f"{partition}.crt" if certificates else None,
            authority_file=given.authority_file,
        )
        bang(settings, partition, message)

    watchdog = Watchdog(given.instance_root, post, SystemClock())

    def post_for_ever() -> None:
        while True:
            watchdog.post_next()

    threading.excepthook = _end
    threading.Thread(target=post_for_ever, daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):
        listen(sys.stdin.buffer, sys.stdout.buffer, watchdog.take)
    return 0


if __name__ == "__main__":
    sys.exit(main())
