"""Lists and frequent reads of the REST interface over a large fleet, as those who read them.

    python -m bench lists                        a tenth of the fleet
    SLAPOS_BENCH_NODES=6100 SLAPOS_BENCH_INSTANCES=2000000 python -m bench lists
    SLAPOS_BENCH_DATABASE=sqlite python -m bench lists

Full profile, over HTTP with a token each, beside a view that does nothing in the same process. A
read that takes more than AIM is a line of its own; the others are one line for each reader.
"""

import http.client
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.fleet import BEFORE, INSTANCES, NODES, RELEASE, Fleet, make
from bench.measure import Figure, show, timed
from slapos.master.app import create_app
from slapos.master.database import Database, open_database
from slapos.master.http import public
from slapos.master.identity import tokens
from slapos.master.identity.caller import Caller, CallerKind, Role, serve
from slapos.master.identity.model import Membership, Person
from slapos.master.settings import Profile, Settings, database_url
from slapos.master.web.server import make_server
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql

#: Seconds that a read may take, of a hundred the longest.
AIM = 0.2
RUNS = 60
EMPTY = "/empty"
PROJECT, CUSTOMER = f"PROJ-{BEFORE + 1}", BEFORE + 1
#: Readers: their persons' ids, and the roles that they are given beside what the fleet gives them.
READERS: dict[str, tuple[int, Role | None, int | None]] = {
    "administrator": (BEFORE + 900, Role.ADMINISTRATOR, None),
    "manager of a project": (BEFORE + 901, Role.PRODUCTION_MANAGER, BEFORE + 1),
    "customer": (CUSTOMER, None, None),
}
#: What is read; `{…}` is filled in from what the first lists show.
READS = (
    *("nodes", "nodes?title=node+5", f"nodes?project={PROJECT}", "nodes?scope=open"),
    *("nodes/{node}", "nodes/{node}/partitions", "nodes/{node}/installations"),
    *("installations", "installations?node={node}", f"installations?project={PROJECT}"),
    f"installations?url={RELEASE}",
    *("instance-trees", f"instance-trees?project={PROJECT}", "instance-trees?title=tree+1"),
    *("instance-trees?owner={owner}", "instance-trees/{tree}"),
    *("instances", "instances?node={node}", f"instances?project={PROJECT}"),
    *("instances?state=started", "instances?state=destroyed", "instances?waits=true"),
    *("instances?tree={tree}", "instances/{instance}", "instances/{instance}/promises"),
    *("products", "supplies", f"supplies?project={PROJECT}", "networks", "instance-nodes"),
    *("persons", "projects", f"projects/{PROJECT}/members", f"projects/{PROJECT}/invitations"),
    *("me", "tokens", "tasks", "node-losses", "webhooks", "audit", f"audit?project={PROJECT}"),
)
#: Lists that are also read in their middle.
LONG = {"nodes": "nodes", "installations": "installations", "instances": "instances"}


@contextmanager
def filled(fleet: Fleet) -> Iterator[str]:
    """Give the URI of a database with the fleet in it, of the kind that the environment names."""
    if os.environ.get("SLAPOS_BENCH_DATABASE") == "sqlite":
        with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder:
            yield _make(str(Path(folder, "master.db")), fleet)
        return
    server = Postgresql(durable=True)
    try:
        yield _make(server.url(server.empty()), fleet)
    finally:
        server.stop()


def _make(uri: str, fleet: Fleet) -> str:
    database = open_database(database_url(uri))
    make(database, fleet)
    database.close()
    return uri


def give_tokens(uri: str) -> dict[str, str]:
    """Give each reader a role and a token; return the tokens."""
    database = open_database(database_url(uri), caller=None)
    try:
        return {reader: _token(database, *READERS[reader]) for reader in READERS}
    finally:
        database.close()


def _token(database: Database, person_id: int, role: Role | None, project_id: int | None) -> str:
    clock = SystemClock()
    now = clock.now()
    with database.writing.begin() as session:
        person = session.get_one(Person, person_id)
        if role is not None:
            session.add(
                Membership(person_id=person_id, project_id=project_id, role=role, created_at=now)
            )
        serve(session, Caller(kind=CallerKind.PERSON, id=person_id, name=person.reference))
        _, secret = tokens.create_token(
            session,
            clock,
            SystemIdentifiers(),
            title="bench",
            scopes=["read"],
            expires_at=now + timedelta(days=1),
        )
    return secret


def serve_forever(uri: str, listener: socket.socket) -> None:
    """Serve the master, and beside it the view that does nothing."""
    app = create_app(
        Settings(database_url=database_url(uri), profile=Profile.FULL, tls=False, threads=4)
    )
    app.add_url_rule(EMPTY, view_func=public(lambda: ""))
    make_server(app).run(sockets=[listener])


class Reader:
    """Somebody with a token and a connection that is kept."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def read(self, path: str) -> tuple[int, bytes]:
        """Return the status and the content of an answer."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def show(self, path: str) -> dict[str, Any]:
        """Return an answer; raise when it is refused."""
        status, content = self.read(f"/v1/{path}")
        if status != 200:
            raise RuntimeError(f"{path}: {status} {content[:300]!r}")
        found: dict[str, Any] = json.loads(content)
        return found


def known(reader: Reader) -> dict[str, str]:
    """Return what is put into the paths: something that the reader may see."""
    tree = reader.show("instance-trees?limit=1")["instance_trees"][0]
    instance = reader.show(f"instances?tree={tree['reference']}&limit=1")["instances"][0]
    node = instance["node"]
    return {
        "tree": tree["reference"],
        "owner": tree["owner"],
        "instance": instance["guid"],
        "node": node,
    }


def middle(reader: Reader, path: str) -> str | None:
    """Return the path of a page some hundred rows further on, None when there is none."""
    found = reader.show(f"{path}?limit=500")
    return f"{path}?after={found['next']}" if found["next"] else None


def measure(reader: Reader, paths: Mapping[str, str]) -> dict[str, list[float]]:
    """Read all in turn, again and again; return the seconds that each took, in order."""
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for run in range(RUNS + 1):
        for name, path in paths.items():
            seconds = timed(lambda path=path: reader.read(path))  # type: ignore[misc]
            if run:  # the first time, plans and statements are made
                taken[name].append(seconds)
    return {name: sorted(found) for name, found in taken.items()}


def paths_of(reader: Reader) -> dict[str, str]:
    """Return what a reader may read of all, by what it is called."""
    names = known(reader)
    found = {EMPTY: EMPTY}
    for each in READS:
        path = f"/v1/{each.format_map(names)}"
        if reader.read(path)[0] == 200:
            found[each] = path
    for each in LONG:
        further = middle(reader, each)
        if further is not None:
            found[f"{each}, further on"] = f"/v1/{further}"
    return found


def main() -> None:
    fleet = Fleet(
        int(os.environ.get("SLAPOS_BENCH_NODES", NODES)),
        int(os.environ.get("SLAPOS_BENCH_INSTANCES", INSTANCES)),
    )
    figures: list[Figure] = []
    with filled(fleet) as uri:
        secrets = give_tokens(uri)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        context = multiprocessing.get_context("fork")
        process = context.Process(target=serve_forever, args=(uri, listener), daemon=True)
        process.start()
        listener.close()
        try:
            for name, secret in secrets.items():
                reader = Reader(port, secret)
                figures += of_reader(name, measure(reader, paths_of(reader)))
        finally:
            process.terminate()
            process.join()
    show(figures)


def of_reader(name: str, taken: Mapping[str, list[float]]) -> list[Figure]:
    """Return the figures of a reader: the slowest read, and each that takes too long."""
    longest = {path: found[int(0.99 * len(found))] for path, found in taken.items()}
    empty = statistics.median(taken[EMPTY])
    medians = {path: statistics.median(found) for path, found in taken.items() if path != EMPTY}
    slowest = sorted(medians, key=lambda path: -longest[path])
    shown = [slowest[0], *(path for path in slowest[1:] if longest[path] > AIM)]
    every = Figure(
        f"{name}: {len(medians)} reads, median",
        statistics.median(medians.values()),
        beside="a view that does nothing",
        beside_median=empty,
        ratio=statistics.median(medians.values()) / empty,
        runs=RUNS,
        notes={path: {"p50": medians[path], "p99": longest[path]} for path in slowest[:12]},
    )
    return [
        every,
        *(Figure(f"{name}: {path}, p99", longest[path], runs=RUNS) for path in shown),
    ]


if __name__ == "__main__":
    main()
