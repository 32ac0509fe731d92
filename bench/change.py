"""From a change at the master to the changed service answering; beside a buildout that is cold."""

import json
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.helloworld import RELEASE, empty_buildout
from bench.measure import Figure, show, timed
from bench.standalone import Standalone, standalone
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient

RUNS = 100
LIMIT = 30.0
TITLE = "hello"


def page(url: str) -> str:
    """What the service answers, nothing while it is started again."""
    with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url) as answer:
        text: str = answer.read().decode()
        return text
    return ""


def changing(machine: Standalone) -> Callable[[int], None]:
    """Return what changes a service at the master, and waits until it answers differently."""
    words = ("request", TITLE, RELEASE, "--parameters", "name=first", "--wait")
    url = machine.json(*words)["connection"]["url"]
    site = machine.json("standalone", "status", "--directory", str(machine.directory))
    client = SlapClient(HttpClient(HttpSettings(base_url=site["master"]["url"])))
    release = f"{RELEASE}/software.cfg"

    def change(number: int) -> None:
        name = f"change-{number}-"
        client.request(
            software_url=release, title=TITLE, parameters={"_": json.dumps({"name": name})}
        )
        deadline = time.monotonic() + LIMIT
        while name not in page(url):
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} does not come about")
            time.sleep(0.002)

    return change


def main() -> None:
    with standalone("--partitions", "2") as machine, tempfile.TemporaryDirectory() as folder:
        change = changing(machine)
        empty_buildout(Path(folder))
        ours, bare = [], []
        for number in range(RUNS):
            ours.append(timed(lambda n=number: change(n)))
            if number % 10 == 0:
                bare.append(timed(lambda: empty_buildout(Path(folder))))
    beside = statistics.median(bare)
    ranked = sorted(ours)
    figures = [
        Figure(
            f"change at the master to the changed service answering, {name}",
            value,
            beside="a buildout with nothing to do, cold",
            beside_median=beside,
            ratio=value / beside,
            runs=RUNS,
        )
        for name, value in (("p50", ranked[RUNS // 2]), ("p99", ranked[RUNS * 99 // 100]))
    ]
    show(figures)


if __name__ == "__main__":
    main()
