"""A master that really runs, a node that the test plays, and `slapos` as a program."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient

SLAPOS = Path(sys.executable).with_name("slapos")
NODE = "local"


@dataclass
class Installation:
    """A folder with the master's and the client's configuration; `client` is the node's."""

    directory: Path
    client: SlapClient

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.directory),
            "SLAPOS_CLIENT_CONFIGURATION": str(self.directory / "client.cfg"),
            "TERM": "dumb",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `slapos …`, which is ended when it takes far too long."""
        return subprocess.Popen(
            # In the foreground a signal is passed on once, not once more to the whole group.
            ["timeout", "--foreground", "60", SLAPOS, *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def slapos(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `slapos …` to its end."""
        with self.start(*words) as process:
            output, error = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, output, error)

    def format(self, partitions: int = 2) -> None:
        """Say that the node has so many partitions."""
        listed = [
            {
                "reference": f"slappart{number}",
                "address_list": [{"addr": f"127.0.1.{number + 2}", "netmask": "255.255.255.255"}],
                "tap": {"name": ""},
            }
            for number in range(partitions)
        ]
        self.client.post_node_configuration(
            {
                "reference": NODE,
                "address": "127.0.0.1",
                "netmask": "255.0.0.0",
                "partition_list": listed,
            }
        )


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Run `slapos proxy start` for a test, its node formatted."""
    configuration = tmp_path / "slapos.cfg"
    configuration.write_text(
        f"[slapos]\ncomputer_id = {NODE}\n"
        f"[slapproxy]\nhost = 127.0.0.1\nport = 0\ndatabase_uri = {tmp_path}/proxy.db\n"
    )
    with (
        (tmp_path / "proxy.log").open("w") as log,
        subprocess.Popen(
            [SLAPOS, "proxy", "start", "--cfg", str(configuration)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as master,
    ):
        assert master.stdout is not None
        try:
            found = re.search(r"http://\S+", master.stdout.readline())
            assert found, (tmp_path / "proxy.log").read_text()
            url = found.group()
            (tmp_path / "client.cfg").write_text(
                f"[slapos]\nmaster_url = {url}\ncomputer_id = {NODE}\ninstance_root = {tmp_path}\n"
            )
            client = SlapClient(HttpClient(HttpSettings(base_url=url)))
            made = Installation(tmp_path, client)
            made.format()
            yield made
            client.http.close()
        finally:
            master.terminate()
