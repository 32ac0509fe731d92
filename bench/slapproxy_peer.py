"""Our local master beside the real slapproxy, both started here, asked in turn over HTTP.

Measured beside them, in the same turns: a Flask view that does nothing, on our web server, and the
plain SQL that stores the row of a new instance on the same disk. Nothing of ours that does as much
can be quicker than these.
"""

import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from bench.lean_client import LeanClient, get, post
from bench.measure import Figure, of_pairs, show
from slapos.protocol.marshal import dumps
from tests.conformance.peer_environment import peer_environment

RELEASE = "https://example.org/hello/software.cfg"
INFORMATION = get("/getFullComputerInformation?computer_id=computer")
#: Partitions that are busy when a node asks for everything.
BUSY = 100
#: Instances that are there when one more, or the same again, is requested.
PRESENT = (10, 100, 1000)
#: Turns of each measurement; new instances that become present while it lasts.
TURNS = 40
#: Requests in one turn, where they leave everything as it was.
BATCH = 20


@dataclass
class Server:
    """A web server of its own process."""

    port: int
    client: LeanClient
    database: Path | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    def ask(self, message: bytes, times: int = 1) -> float:
        """Return the seconds that an answer takes."""
        return self.client.ask(self.port, [message] * times)

    def format(self, partitions: int) -> None:
        told = {
            "reference": "computer",
            "address": "127.0.0.1",
            "netmask": "255.255.255.255",
            "partition_list": [
                {
                    "reference": f"slappart{number}",
                    "address_list": [{"addr": "10.0.0.1", "netmask": "255.255.255.255"}],
                    "tap": {"name": f"tap{number}"},
                }
                for number in range(partitions)
            ],
        }
        form = {"computer_id": "computer", "xml": dumps(told).decode()}
        self.ask(post("/loadComputerConfigurationFromXML", form))

    def request_new(self) -> float:
        return self.ask(_request(f"instance {next(self._numbers)}"))


def main() -> None:
    load = os.getloadavg()
    figures = [*_information(), *_requests()]
    show(figures)
    _print_table(figures)
    print(f"load of the machine: {load[0]:.1f} before, {os.getloadavg()[0]:.1f} after")


def _request(title: str) -> bytes:
    form = {
        "software_release": RELEASE,
        "software_type": "default",
        "partition_reference": title,
        "shared_xml": dumps(False).decode(),
        "partition_parameter_xml": dumps({"colour": "red", "size": "10"}).decode(),
        "filter_xml": dumps({}).decode(),
        "state": dumps("started").decode(),
    }
    return post("/requestComputerPartition", form)


def _information() -> Iterator[Figure]:
    with _servers(BUSY, BUSY) as (ours, peer, empty):
        etag = _etag(ours.port)
        unchanged = get("/getFullComputerInformation?computer_id=computer", **etag)
        yield from _figures(
            f"getFullComputerInformation, {BUSY} busy partitions",
            {
                "ours": partial(ours.ask, INFORMATION, BATCH),
                "slapproxy": partial(peer.ask, INFORMATION, 3),
                "ours, the node has it already (304)": partial(ours.ask, unchanged, BATCH),
                "an empty Flask view": partial(empty.ask, get("/"), BATCH),
            },
        )


def _requests() -> Iterator[Figure]:
    for present in PRESENT:
        with _servers(present + TURNS + 1, present) as (ours, peer, empty):
            again = _request("instance 0")
            yield from _figures(
                f"a repeated request, {present} instances present",
                {
                    "ours": partial(ours.ask, again, BATCH),
                    "slapproxy": partial(peer.ask, again, BATCH),
                    "an empty Flask view": partial(empty.ask, get("/"), BATCH),
                },
            )
            assert ours.database is not None
            with _plain_insert(ours.database) as insert:
                yield from _figures(
                    f"a new request, {present} instances present",
                    {
                        "ours": ours.request_new,
                        "slapproxy": peer.request_new,
                        "one INSERT and its fsync": insert,
                    },
                )


def _figures(name: str, actions: Mapping[str, Callable[[], float]]) -> Iterator[Figure]:
    """Measure all in turn, after one uncounted turn; the first of them beside the second."""
    turns = [[action() for action in actions.values()] for _ in range(TURNS + 1)][1:]
    ours, other, *bare = zip(*turns, strict=True)
    _, peer, *names = actions
    yield of_pairs(name, peer, list(zip(ours, other, strict=True)))
    for what, measured in zip(names, bare, strict=True):
        yield Figure(f"{name}: {what}", statistics.median(measured), runs=TURNS)


@contextmanager
def _servers(partitions: int, instances: int) -> Iterator[tuple[Server, Server, Server]]:
    """Start our master, slapproxy, both with as many instances, and an empty view."""
    with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder, ExitStack() as stack:
        client = LeanClient()
        stack.callback(client.close)
        masters = []
        for name, program in (
            ("ours", Path(sys.executable).with_name("slapos")),
            ("peer", peer_environment() / "slapos"),
        ):
            port, database = free_port(), Path(folder, f"{name}.db")
            configuration = Path(folder, f"{name}.cfg")
            configuration.write_text(
                "[slapos]\ncomputer_id = computer\n[slapproxy]\nhost = 127.0.0.1\n"
                f"port = {port}\ndatabase_uri = {database}\n"
            )
            command = [str(program), "proxy", "start", "--cfg", str(configuration)]
            stack.enter_context(running(command, port, Path(folder, f"{name}.log")))
            master = Server(port, client, database)
            master.format(partitions)
            for _ in range(instances):
                master.request_new()
            masters.append(master)
        port = free_port()
        command = [sys.executable, "-m", "bench.empty_view", str(port)]
        stack.enter_context(running(command, port, Path(folder, "empty.log")))
        yield masters[0], masters[1], Server(port, client)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _plain_insert(original: Path) -> Iterator[Callable[[], float]]:
    """Give what stores a copy of an instance's row, and returns the seconds that took."""
    with (
        closing(sqlite3.connect(original)) as source,
        closing(sqlite3.connect(f"{original}.bare", isolation_level=None)) as target,
    ):
        (schema,) = source.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'software_instances'"
        ).fetchone()
        row = source.execute("SELECT * FROM software_instances").fetchone()[1:]
        columns = [each[1] for each in source.execute("PRAGMA table_info(software_instances)")][1:]
        target.execute("PRAGMA journal_mode=WAL")
        target.execute("PRAGMA synchronous=FULL")
        target.execute(schema)
        places = ", ".join("?" * len(columns))
        statement = f"INSERT INTO software_instances ({', '.join(columns)}) VALUES ({places})"
        unique = {"reference", "title", "partition_id"}
        numbers = count(1000)

        def insert() -> float:
            number = next(numbers)
            values = [
                number if name in unique else value
                for name, value in zip(columns, row, strict=True)
            ]
            started = time.perf_counter()
            target.execute("BEGIN IMMEDIATE")
            target.execute(statement, values)
            target.execute("COMMIT")
            return time.perf_counter() - started

        yield insert


def _etag(port: int) -> dict[str, str]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(INFORMATION)
        head = connection.recv(65536).partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "etag":
            return {"If-None-Match": value.strip()}
    raise RuntimeError(f"the answer has no ETag:\n{head}")


def _print_table(figures: list[Figure]) -> None:
    print("| what | ours | slapproxy | times as fast |")
    print("| --- | --- | --- | --- |")
    for figure in figures:
        line = f"| {figure.name} | {_both_ways(figure.median)} |"
        if figure.beside_median is not None and figure.ratio is not None:
            line += f" {_both_ways(figure.beside_median)} | {1 / figure.ratio:.1f} |"
        else:
            line += " | |"
        print(line)


def _both_ways(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms, {1 / seconds:.0f}/s"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    main()
