"""Thousands of nodes that wait for a change: memory, how soon one is told, what others notice."""

import os
import random
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.lean_client import LeanClient, get, post
from bench.measure import Figure, show
from bench.slapproxy_peer import free_port, running
from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.settings import database_url
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers

WAITERS = 6000
CHANGES = 300
#: Turns in which other requests are timed, and requests in each.
TURNS, BATCH = 30, 20
NOT_WAITING = get("/v1/nodes/node0")
INFORMATION = get("/getFullComputerInformation?computer_id=node0")


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder, ExitStack() as stack:
        database, port = Path(folder, "master.db"), free_port()
        tokens = _make_nodes(database)
        program = str(Path(sys.executable).with_name("slapos"))
        command = [program, "proxy", "start", "-u", str(database), "--port", str(port)]
        process = stack.enter_context(running(command, port, Path(folder, "log")))
        client = LeanClient()
        stack.callback(client.close)
        before = {"view": _ask(client, port, NOT_WAITING), "kept": _ask(client, port, INFORMATION)}
        empty = memory(process.pid)
        crowd = Crowd(port, tokens)
        stack.callback(crowd.close)
        delays = sorted(crowd.change_one(client) for _ in range(CHANGES))
        full = memory(process.pid)
        during = {"view": _ask(client, port, NOT_WAITING), "kept": _ask(client, port, INFORMATION)}
        idle = cpu_share(process.pid)
    show(
        [
            Figure(
                f"memory for each of {WAITERS} waiting nodes",
                (full - empty) / WAITERS,
                "kB",
                notes={"empty": empty, "full": full},
            ),
            Figure(
                f"change of one node until it is told, {WAITERS} wait: p50",
                statistics.median(delays),
                runs=CHANGES,
            ),
            Figure("the same: p99", delays[int(CHANGES * 0.99)], runs=CHANGES),
            Figure("processor time of the master while all wait and nothing happens", idle, "s/s"),
            *(
                Figure(
                    f"{name} while they wait",
                    during[what],
                    beside="nobody waits",
                    beside_median=before[what],
                    ratio=during[what] / before[what],
                    runs=TURNS,
                )
                for what, name in (("view", "a node's page"), ("kept", "a node's kept information"))
            ),
        ]
    )


class Crowd:
    """The waiting nodes, all in this process."""

    def __init__(self, port: int, tokens: dict[str, str]) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._connections: dict[str, socket.socket] = {}
        for reference, token in tokens.items():
            connection = socket.create_connection(("127.0.0.1", port), timeout=60)
            self._connections[reference] = connection
            self._selector.register(connection, selectors.EVENT_READ, reference)
            self._wait(reference, token)

    def change_one(self, client: LeanClient) -> float:
        """Order something for one node; return the seconds from then until it is told."""
        self._wait_again(0)
        reference = random.choice(list(self._connections))
        form = {"url": f"https://example.org/{random.random()}", "computer_id": reference}
        started = time.perf_counter()
        client.ask(self._port, [post("/supplySupply", form)])
        while reference not in self._wait_again(60):
            pass
        return self._arrived - started

    def _wait(self, reference: str, token: str) -> None:
        path = f"/v1/nodes/{reference}/changes?since={token}"
        self._connections[reference].sendall(get(path))

    def _wait_again(self, timeout: float) -> list[str]:
        """Take what has been answered, and let these wait again."""
        answered = [key.data for key, _ in self._selector.select(timeout)]
        self._arrived = time.perf_counter()
        for reference in answered:
            said = self._connections[reference].recv(65536).decode()
            self._wait(reference, said.partition('"token": "')[2].partition('"')[0])
        return answered

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._selector.close()


def _make_nodes(path: Path) -> dict[str, str]:
    database = open_database(database_url(str(path)))
    migrations.upgrade(database)
    count_exchanges(database.writing, SystemIdentifiers())
    with database.writing.begin() as session:
        made = [nodes.ensure_node(session, SystemClock(), f"node{n}") for n in range(WAITERS)]
    with database.reading() as session:
        tokens = {node.reference: node.exchange.change for node in nodes.nodes(session)}
    assert len(tokens) == len(made)
    database.close()
    return tokens


def _ask(client: LeanClient, port: int, message: bytes) -> float:
    return statistics.median(client.ask(port, [message] * BATCH) for _ in range(TURNS))


def memory(pid: int) -> float:
    """Return how much memory a process has, in kB."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in x)
    return float(line.split()[1])


def cpu_share(pid: int) -> float:
    """Return the seconds of a processor that a process takes a second."""
    before = cpu_seconds(pid)
    time.sleep(5)
    return (cpu_seconds(pid) - before) / 5


def cpu_seconds(pid: int) -> float:
    """Return the seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
