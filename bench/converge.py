"""Passes over 10, 100 and 1,000 partitions of one small release: the first, an idle, a forced one.

One-shot commands, with their start; beside them slapos.core's own node on the same release, built
by ours, against our master, where there is a Python that it works with. Then the resident agent.
"""

import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from bench.measure import Figure, show
from slapos.protocol.errors import NotReady
from tests.conformance.peer_environment import newer_python, peer_environment
from tests.e2e.counted import starts, write_release
from tests.e2e.deployment import NODE, Deployment, deployed, until

SIZES = (10, 100, 1000)
#: How many partitions slapos.core's node is given: it takes about a second for each.
PEER_SIZE = 100
IDLE_RUNS = 5
IS_ROOT = os.geteuid() == 0


def ordered(number: int, stack: ExitStack) -> Deployment:
    """Return a deployment with so many orders, the release built, nothing instantiated."""
    site: Deployment = stack.enter_context(deployed(as_root=IS_ROOT, partitions=number))
    url = write_release(site.root / "release")
    client = site.client()
    for index in range(number):
        try:
            client.request(
                software_url=url,
                title=f"i{index}",
                # slapos.core's node cannot check a promise with the Python of our releases.
                software_type="bare",
                parameters={"value": f"v{index}"},
            )
        except NotReady:
            continue
    run([*site.words(NODE, "node", "software"), "--now"])
    return site


def run(words: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):  # 2: a promise does not hold yet
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def running(site: Deployment) -> int:
    return sum(bool(starts(path)) for path in (site.root / "inst").glob("part*"))


def ours(number: int) -> dict[str, float]:
    with ExitStack() as stack:
        site = ordered(number, stack)
        words = site.words(NODE, "node", "instance")
        found = {"first": run([*words, "--now"])}
        assert running(site) == number
        run(words)
        found["idle"] = min(run(words) for _ in range(IDLE_RUNS))
        found["forced"] = run([*words, "--force"])
    return found


def peer(number: int, programs: Path) -> dict[str, float]:
    with ExitStack() as stack:
        site = ordered(number, stack)
        words = [str(programs / "slapos"), "node", "instance", "--cfg", str(site.configuration)]
        words += ["--pidfile", str(site.root / "peer.pid")]
        found = {"first": run([*words, "--now"])}
        assert running(site) == number
        found["idle"] = min(run(words) for _ in range(2))
        found["forced"] = run([*words, "--force"])
    return found


def agent(number: int) -> float:
    """Return the seconds from the agent's start to the last process."""
    with ExitStack() as stack:
        site = ordered(number, stack)
        began = time.perf_counter()
        site.start(NODE)
        until(lambda: running(site) == number, "all run", 600)
        return time.perf_counter() - began


def main() -> None:
    found: list[Figure] = []
    sizes = {number: ours(number) for number in SIZES}
    python = newer_python()
    beside = peer(PEER_SIZE, peer_environment(python)) if python and IS_ROOT else {}
    for kind in ("first", "forced", "idle"):
        for number, times in sizes.items():
            figure = Figure(f"{kind} pass over {number} partitions", times[kind])
            if number == PEER_SIZE and beside:
                figure.beside, figure.beside_median = "slapos.core 1.26.1", beside[kind]
                figure.ratio = times[kind] / beside[kind]
            figure.notes = {"a partition": times[kind] / number}
            found.append(figure)
    found += [Figure(f"the agent, {number} new instances", agent(number)) for number in (10, 100)]
    show(found)


if __name__ == "__main__":
    main()
