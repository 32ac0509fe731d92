"""slapos.core's own node against our master: one release whose buildout is a shell script."""

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from tests.conformance.peer_environment import newer_python, peer_environment

pytestmark = pytest.mark.conformance

SLAPOS = str(Path(sys.executable).with_name("slapos"))
BUILDOUT = """#!/bin/sh
mkdir -p etc/service
printf '#!/bin/sh\\nexec sleep 600\\n' > etc/service/worker
chmod +x etc/service/worker
"""
CONFIGURATION = """[slapos]
software_root = {folder}/software
instance_root = {folder}/instances
master_url = {url}
computer_id = computer
[slapproxy]
host = 127.0.0.1
port = {port}
database_uri = {folder}/proxy.db
"""


class Machine:
    """A folder with a master of ours, and slapos.core's node."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._configuration = folder / "slapos.cfg"
        self._master: subprocess.Popen[str] | None = None
        self.url = ""

    def start_master(self) -> None:
        self._configure(port=0)
        master = subprocess.Popen(
            (SLAPOS, "proxy", "start", "--cfg", str(self._configuration)),
            text=True,
            stdout=subprocess.PIPE,
        )
        self._master = master
        assert master.stdout is not None
        self.url = master.stdout.readline().split()[-1]  # listening on http://…/
        self._configure(port=int(self.url.rstrip("/").rpartition(":")[2]))

    def _configure(self, port: int) -> None:
        text = CONFIGURATION.format(folder=self.folder, url=self.url, port=port)
        self._configuration.write_text(text)

    def node(self, command: str, *options: str) -> str:
        """Run a command of slapos.core's node, and return what it printed."""
        program = str(self._programs / "slapos")
        result = subprocess.run(
            # `supervisorctl` passes on whatever comes after its first word.
            [program, "node", command, "--cfg", str(self._configuration), *options],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def one_pass(self, kind: str, *options: str) -> None:
        self.node(kind, "--pidfile", str(self.folder / f"{kind}.pid"), *options)

    def stop(self) -> None:
        if self._master is not None:
            self._master.terminate()
            self._master.communicate(timeout=20)
        self._stop_supervisord()

    def _stop_supervisord(self) -> None:
        """End what the node started in the background, and wait until it is gone."""
        mine = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or [])
        ]
        for process in mine:
            process.terminate()
        psutil.wait_procs(mine, timeout=30)


@pytest.fixture
def machine() -> Iterator[Machine]:
    python = newer_python()
    if python is None:
        pytest.skip("slapos.core's node needs Python 3.12 or newer, and there is none here")
    folder = Path(tempfile.mkdtemp(prefix="slapos-node-"))
    folder.chmod(0o755)
    found = Machine(folder, peer_environment(python))
    try:
        found.start_master()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


def give_away(path: Path) -> None:
    """As root, give a folder to the user whom the node is to drop its privileges to."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for each in (path, *path.rglob("*")):
            os.chown(each, nobody.pw_uid, nobody.pw_gid)


def make_release(machine: Machine) -> str:
    """Make a release that is built already, and return its URL."""
    profile = machine.folder / "release" / "software.cfg"
    profile.parent.mkdir()
    profile.write_text("[buildout]\n")
    url = str(profile)
    built = machine.folder / "software" / hashlib.md5(url.encode()).hexdigest()
    (built / "bin").mkdir(parents=True)
    (built / "bin" / "buildout").write_text(BUILDOUT)
    (built / "bin" / "buildout").chmod(0o755)
    (built / "instance.cfg").write_text("[buildout]\nparts =\n")
    (built / ".completed").touch()
    give_away(machine.folder / "software")
    return url


def make_partition(machine: Machine, client: SlapClient) -> None:
    partition = machine.folder / "instances" / "slappart0"
    partition.mkdir(parents=True)
    partition.chmod(0o750)
    give_away(partition)
    address = {"addr": "127.0.0.1", "netmask": "255.255.255.255"}
    told = {"reference": "slappart0", "address_list": [address], "tap": {"name": "tap0"}}
    client.post_node_configuration(
        {"reference": "computer", "address": "", "netmask": "", "partition_list": [told]}
    )


def status(machine: Machine) -> dict[str, Any]:
    answer = requests.get(f"{machine.url}v1/instance-trees/web", timeout=10)
    found: dict[str, Any] = json.loads(answer.text)
    return found


def test_slapos_cores_node_brings_about_what_our_master_wants(machine: Machine) -> None:
    client = SlapClient(HttpClient(HttpSettings(base_url=machine.url)))
    url = make_release(machine)
    make_partition(machine, client)
    client.supply(url, "computer")
    client.request(software_url=url, title="web")

    machine.one_pass("software", "--all")
    machine.one_pass("instance", "--all")
    assert status(machine)["healthy"], status(machine)
    deadline = time.monotonic() + 30
    while "RUNNING" not in (running := machine.node("status")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "worker" in running

    client.request(software_url=url, title="web", state=InstanceState.DESTROYED)
    machine.one_pass("report")
    assert requests.get(f"{machine.url}v1/instance-trees/web", timeout=10).status_code == 404
    (partition,) = client.node_information("computer").partitions
    assert partition.is_free
