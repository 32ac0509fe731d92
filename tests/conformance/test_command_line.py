"""Our command line with slapproxy, and slapos.core's with our master: they say the same."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slapos.protocol.errors import SlapOSError
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from tests.conformance.peer_environment import peer_environment

pytestmark = pytest.mark.conformance

OURS = Path(sys.executable).with_name("slapos")
RELEASE = "/srv/release/software.cfg"


@dataclass
class Pair:
    """A command line, and the master that it asks."""

    program: Path
    directory: Path

    def slapos(self, *words: str) -> subprocess.CompletedProcess[str]:
        configuration = str(self.directory / "slapos.cfg")
        return subprocess.run(
            [str(self.program), *words, "--cfg", configuration],
            env={**os.environ, "HOME": str(self.directory)},
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )


@contextmanager
def master(program: Path, directory: Path) -> Iterator[str]:
    """Run a local master with a node of three partitions, and return where it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (directory / "slapos.cfg").write_text(
        f"[slapos]\ncomputer_id = local\nmaster_url = {url}\nmaster_rest_url = {url}/hateoas\n"
        f"[slapproxy]\nhost = 127.0.0.1\nport = {port}\ndatabase_uri = {directory}/proxy.db\n"
    )
    argv = [str(program), "proxy", "start", "--cfg", str(directory / "slapos.cfg")]
    with (
        (directory / "master.log").open("w") as log,
        subprocess.Popen(argv, stdout=log, stderr=log) as process,
    ):
        try:
            client = SlapClient(HttpClient(HttpSettings(base_url=url, retries=0)))
            _format(client)
            client.http.close()
            yield url
        finally:
            process.terminate()


def _format(client: SlapClient) -> None:
    partitions = [
        {
            "reference": f"slappart{number}",
            "address_list": [{"addr": f"127.0.1.{number + 2}", "netmask": "255.255.255.255"}],
            "tap": {"name": ""},
        }
        for number in range(3)
    ]
    node = {"reference": "local", "address": "127.0.0.1", "netmask": "255.0.0.0"}
    deadline = time.monotonic() + 30
    while True:
        try:
            client.post_node_configuration({**node, "partition_list": partitions})
            return
        except SlapOSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


PAIRS = ["ours with slapproxy", "slapos.core's with ours", "ours with ours"]


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    peer = peer_environment() / "slapos"
    program = peer if request.param.startswith("slapos.core") else OURS
    with master(OURS if request.param.endswith("with ours") else peer, tmp_path):
        yield Pair(program, tmp_path)


def test_services_are_ordered_shown_and_changed(pair: Pair) -> None:
    assert pair.slapos("supply", RELEASE, "local").returncode == 0
    ordered = pair.slapos("request", "blog", RELEASE, "--parameters", "colour=red", "size=3")
    assert ordered.returncode == 0, ordered.stderr
    assert "State is : started." in ordered.stderr

    assert json.loads(pair.slapos("service", "list").stdout) == {"blog": RELEASE}
    shown = json.loads(pair.slapos("service", "info", "blog").stdout)
    tree = shown.pop("tree", None)  # what only we tell
    assert tree is None or tree[0]["phase"] == "building"
    assert shown.pop("status") in ("unsupported", "none", "red")
    assert shown == {
        "software-url": RELEASE,
        "software-type": "default",
        "shared": False,
        "requested-state": "started",
        "instance-parameters": {"colour": "red", "size": "3"},
        "connection-parameters": {},
    }

    # What is not given again is gone.
    stopped = pair.slapos("request", "blog", RELEASE, "--state", "stopped")
    assert stopped.returncode == 0, stopped.stderr
    again = json.loads(pair.slapos("service", "info", "blog").stdout)
    assert (again["requested-state"], again["instance-parameters"]) == ("stopped", {})

    assert pair.slapos("service", "info", "absent").returncode == 2
    assert pair.slapos("remove", RELEASE, "local").returncode == 0


def test_nodes_are_listed_and_shown(pair: Pair) -> None:
    listed = pair.slapos("computer", "list")
    assert listed.stdout == "List of Computers:\nlocal local\n"
    shown = pair.slapos("computer", "info", "local")
    # Our command line says more where our master tells more.
    assert shown.stdout.startswith("Computer Reference: local\nComputer Title    : local\n")
    assert pair.slapos("computer", "info", "absent").returncode == 2
