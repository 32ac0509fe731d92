"""From a change at the master to the process that runs with it; and a tree of depth three.

The release is built. The change is another value of a parameter, which ends in another service;
when that is there is what the service itself writes down. The link needs root and two network
namespaces: it takes so long each way, and loses that share of the packets.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.helloworld import empty_buildout
from bench.lossy_link import inside, lossy_link
from bench.measure import Figure, show, timed
from slapos.protocol.errors import NotReady
from tests.e2e.counted import starts, write_release
from tests.e2e.deployment import MASTER, NODE, Deployment, deployed, until

CHANGES, CHANGES_BY_LINK, TREES = 60, 40, 5
#: Seconds between two changes, so that the node waits for the next one.
PAUSE = 1.0
DELAYS, LOSS = (0.1, 0.2), 0.1
Within = Callable[[Callable[[], None]], None]


def order(site: Deployment, url: str, title: str, kind: str, value: str) -> None:
    try:
        site.client().request(
            software_url=url, title=title, software_type=kind, parameters={"value": value}
        )
    except NotReady:
        return


def change_times(site: Deployment, number: int, kind: str = "quiet") -> list[float]:
    """Return the seconds of each change, the first instantiation not counted.

    An instance of the kind `default` also publishes the value, before its service is started.
    """
    url = write_release(site.root / "release")
    order(site, url, "first", kind, "v")
    site.start(NODE)
    partition = site.partition("part0")
    until(lambda: site.tree("first").healthy, "the first instance", 120)
    times = []
    for turn in range(number):
        value = f"v{turn}"
        began = time.time()
        order(site, url, "first", kind, value)
        until(lambda v=value: starts(partition)[-1].value == v, "the change")  # type: ignore[misc]
        times.append(starts(partition)[-1].at - began)
        until(lambda: site.tree("first").healthy, "the report")
        time.sleep(PAUSE)
    return times


def tree_times(site: Deployment, number: int) -> list[float]:
    """Return the seconds from each order of a tree of three to all of it being healthy."""
    url = write_release(site.root / "release")
    times = []
    for turn in range(number):
        title = f"tree{turn}"
        began = time.time()
        order(site, url, title, "deep3", f"t{turn}")
        until(
            lambda t=title, v=f"t{turn}": (  # type: ignore[misc]
                len(site.tree(t).instances) == 3
                and site.tree(t).healthy
                and site.tree(t).root.connection.get("value") == v
            ),
            "the tree",
        )
        times.append(time.time() - began)
    return times


def figures(name: str, times: list[float]) -> list[Figure]:
    ordered = sorted(times)
    notes = {"all": [round(seconds, 3) for seconds in ordered]}
    return [
        Figure(f"{name}, p50", statistics.median(ordered), runs=len(ordered), notes=notes),
        Figure(f"{name}, p99", ordered[-1 - len(ordered) // 100], runs=len(ordered)),
    ]


def main() -> None:
    with deployed(partitions=4 + 3 * TREES) as site, tempfile.TemporaryDirectory() as folder:
        found = figures("change to process, loopback", change_times(site, CHANGES))
        empty_buildout(Path(folder))
        bare = statistics.median(timed(lambda: empty_buildout(Path(folder))) for _ in range(5))
        for figure in found:
            figure.beside, figure.beside_median = "a buildout with nothing to do, cold", bare
            figure.ratio = figure.median / bare
        found += figures("tree of depth three, order to healthy", tree_times(site, TREES))
    if os.geteuid() == 0:
        for delay in DELAYS:
            for kind in ("quiet", "default"):
                found += by_link(delay, kind)
    show(found)


def by_link(delay: float, kind: str) -> list[Figure]:
    with lossy_link(delay=delay, loss=LOSS) as link:

        def measure() -> list[float]:
            with deployed(
                as_root=True,
                partitions=2,
                host=link.addresses[0],
                port=5000,
                # The orders are placed, and the master is, at the one end; the node at the other.
                enter={MASTER: link.enter(0), NODE: link.enter(1)},
            ) as site:
                return change_times(site, CHANGES_BY_LINK, kind)

        times = inside(link.names[0], measure)
    what = "change to process" if kind == "quiet" else "the same, publishing first"
    return figures(f"{what}, {1000 * delay:g} ms each way, {100 * LOSS:g} % lost", times)


if __name__ == "__main__":
    main()
