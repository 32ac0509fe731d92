"""Our local master beside the real slapproxy, both started here, asked in turn over HTTP."""

import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

from bench.measure import Figure, in_turn, show
from slapos.protocol.marshal import dumps
from tests.conformance.peer_environment import peer_environment

RELEASE = "https://example.org/hello/software.cfg"
#: Partitions that are busy when a node asks for everything.
BUSY = 100
#: Instances that are there when one more, or the same again, is requested.
PRESENT = (10, 100, 1000)
#: Requests in one measurement, so that it is long against the clock's resolution.
BATCH = 3


class Master:
    """A master of its own process, asked over one connection that is kept."""

    def __init__(self, program: Path, folder: Path) -> None:
        folder.mkdir()
        port = _free_port()
        (folder / "slapos.cfg").write_text(
            "[slapos]\ncomputer_id = computer\n[slapproxy]\nhost = 127.0.0.1\n"
            f"port = {port}\ndatabase_uri = {folder}/proxy.db\n"
        )
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [program, "proxy", "start", "--cfg", folder / "slapos.cfg"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        _wait_for(port, folder / "log", self._process)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._numbers = count()
        self.instances = 0

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait()

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> bytes:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, urlencode(form or {}), headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {body[:300]!r}")
        return body

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
        self.ask("POST", "/loadComputerConfigurationFromXML", form)

    def request(self, title: str) -> None:
        form = {
            "software_release": RELEASE,
            "software_type": "default",
            "partition_reference": title,
            "shared_xml": dumps(False).decode(),
            "partition_parameter_xml": dumps({"colour": "red", "size": "10"}).decode(),
            "filter_xml": dumps({}).decode(),
            "state": dumps("started").decode(),
        }
        self.ask("POST", "/requestComputerPartition", form)

    def request_new(self, how_many: int) -> None:
        for _ in range(how_many):
            self.request(f"instance {next(self._numbers)}")
        self.instances += how_many

    def request_again(self, how_many: int) -> None:
        for _ in range(how_many):
            self.request("instance 0")

    def information(self) -> None:
        self.ask("GET", "/getFullComputerInformation?computer_id=computer")


def main() -> None:
    figures = [_information(), *_requests()]
    show(figures)
    _print_table(figures)


@contextmanager
def _both(partitions: int) -> Iterator[tuple[Master, Master]]:
    """Start both masters, with as many partitions."""
    with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder, ExitStack() as stack:
        programs = (Path(sys.executable).with_name("slapos"), peer_environment() / "slapos")
        masters = []
        for name, program in zip(("ours", "peer"), programs, strict=True):
            master = Master(program, Path(folder, name))
            stack.callback(master.close)
            master.format(partitions)
            masters.append(master)
        yield masters[0], masters[1]


def _information() -> Figure:
    with _both(BUSY) as (ours, peer):
        ours.request_new(BUSY)
        peer.request_new(BUSY)
        figure = in_turn(
            f"getFullComputerInformation, {BUSY} busy partitions",
            ours.information,
            "slapproxy",
            peer.information,
            runs=25,
        )
    assert figure.beside_median is not None
    figure.notes = {
        "answers per second": round(1 / figure.median),
        "slapproxy's": round(1 / figure.beside_median),
    }
    return figure


def _requests() -> Iterator[Figure]:
    with _both(2 * max(PRESENT)) as (ours, peer):
        for present in PRESENT:
            for master in (ours, peer):
                master.request_new(present - master.instances)
            yield in_turn(
                f"{BATCH} repeated requests, {present} instances present",
                partial(ours.request_again, BATCH),
                "slapproxy",
                partial(peer.request_again, BATCH),
                runs=25,
            )
            yield in_turn(
                f"{BATCH} new requests, {present} instances present and more",
                partial(ours.request_new, BATCH),
                "slapproxy",
                partial(peer.request_new, BATCH),
                runs=15,
            )


def _print_table(figures: Sequence[Figure]) -> None:
    print("| what | ours | slapproxy | times as fast |")
    print("| --- | --- | --- | --- |")
    for figure in figures:
        assert figure.ratio is not None
        assert figure.beside_median is not None
        print(
            f"| {figure.name} | {figure.median * 1000:.2f} ms "
            f"| {figure.beside_median * 1000:.2f} ms | {1 / figure.ratio:.1f} |"
        )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(port: int, log: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the master did not start:\n{log.read_text()}")


if __name__ == "__main__":
    main()
