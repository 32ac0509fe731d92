"""Memory of a node: agent, supervisord, watchdog and warm process, with 10 and 1,000 partitions.

Each partition has one service. All but one are of a release whose buildout is a shell script, so
that a thousand are there within minutes; the one is real, so that there is a warm process. Memory
is PSS: of pages that processes share, each has its part.
"""

import os
import time
from pathlib import Path

import psutil

from bench.measure import Figure, show
from slapos.node.layout import Layout
from slapos.protocol.errors import NotReady
from tests.e2e.counted import starts, write_release
from tests.e2e.deployment import IS_ROOT, NOBODY, NODE, Deployment, deployed, until

SIZES = (10, 1000)
IDLE = 40.0
URL = "http://example.com/small/software.cfg"
BUILDOUT = """\
#!/bin/sh
set -e
mkdir -p etc/service
cat > etc/service/small <<'END'
#!/bin/sh
exec sleep 864000
END
chmod 755 etc/service/small
"""
#: What a command line holds → what the process is called here.
PARTS = {
    " node run": "agent",
    "slapos.node.supervise.supervisord": "supervisord",
    "slapos.node.supervise.watchdog": "watchdog",
    "slapos.system.warm_process": "warm process",
}


def pss(pid: int) -> float:
    """Return the memory of a process in MB (10^6 bytes)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    words = next(line.split() for line in lines if line.startswith("Pss:"))
    return int(words[1]) * 1024 / 1e6


def memory(site: Deployment) -> dict[str, float]:
    """Return the memory of each process of the node that is not an instance's."""
    found = dict.fromkeys(PARTS.values(), 0.0)
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            is_agent = process.pid == site.processes[NODE].pid
            for words, name in PARTS.items():
                is_ours = str(site.root) in line or _is_below(process, site)
                if words in line and (is_agent if name == "agent" else is_ours):
                    found[name] += pss(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def _is_below(process: psutil.Process, site: Deployment) -> bool:
    return process.ppid() == site.processes[NODE].pid


def ready(site: Deployment) -> None:
    """Put the small release there, built."""
    folder = Layout(site.root / "soft", site.root / "inst").release(URL)
    (folder / "bin").mkdir(parents=True)
    for name, text in (
        ("bin/buildout", BUILDOUT),
        ("instance.cfg", "[buildout]\nparts =\n"),
        (".completed", ""),
    ):
        (folder / name).write_text(text)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
        if IS_ROOT:
            os.chown(path, NOBODY, NOBODY)


def order(site: Deployment, title: str, url: str, value: str) -> None:
    try:
        site.client().request(software_url=url, title=title, parameters={"value": value})
    except NotReady:
        return


def measure(number: int) -> dict[str, dict[str, float]]:
    """Return the memory after the start of everything, after a pause, and after a change."""
    with deployed(partitions=number) as site:
        ready(site)
        counted = write_release(site.root / "release")
        for index in range(number - 1):
            order(site, f"i{index}", URL, f"v{index}")
        order(site, "real", counted, "v")
        real = site.partition(f"part{number - 1}")
        site.start(NODE)
        until(lambda: _running(site) == number, "all run", 900)
        until(lambda: starts(real), "the real one runs", 120)
        found = {"all started": memory(site)}
        time.sleep(IDLE)
        found["after a pause"] = memory(site)
        began = time.perf_counter()
        order(site, "real", counted, "changed")
        until(lambda: starts(real)[-1].value == "changed", "the change is there")
        print(f"{number}: the change took {time.perf_counter() - began:.2f} s", flush=True)
        found["after a change"] = memory(site)
        site.kill(NODE)
        site.start(NODE)
        time.sleep(IDLE / 2)
        found["the agent started again"] = memory(site)
    return found


def _running(site: Deployment) -> int:
    """Return how many services run."""
    try:
        pid = int((site.root / "inst/var/run/supervisord.pid").read_text())
        children = psutil.Process(pid).children()
        return sum(process.name() == "sleep" for process in children)
    except (OSError, ValueError, psutil.Error):
        return 0


def main() -> None:
    found: list[Figure] = []
    for number in SIZES:
        for moment, parts in measure(number).items():
            total = parts["agent"] + parts["supervisord"]
            name = f"agent and supervisord, {number} partitions, {moment}"
            notes = {part: round(size, 1) for part, size in parts.items()}
            found.append(Figure(name, total, "MB", notes=notes))
            print(f"{name}: {total:.1f} MB {notes}", flush=True)
    show(found)


if __name__ == "__main__":
    main()
