"""`slapos proxy start` as a program of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from tests.integration.master.factories import NODE

COMMAND = (sys.executable, "-m", "slapos.command")


def configuration(tmp_path: Path, database_uri: str, **more: str) -> Path:
    """Write a configuration file for a free port."""
    options = {"database_uri": database_uri, "port": "0"} | more
    path = tmp_path / "slapos.cfg"
    lines = [f"{name} = {value}" for name, value in options.items()]
    path.write_text("\n".join(["[slapos]", f"computer_id = {NODE}", "[slapproxy]", *lines]))
    return path


def slapos(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=60, check=check
    )


@contextmanager
def running(*options: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a master, and end it; give where it listens, and its process."""
    process = subprocess.Popen(
        [*COMMAND, "proxy", "start", *map(str, options)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        found = re.fullmatch(r"listening on (http://.*)\n", said)
        assert found is not None, said
        yield found[1], process
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def client_of(url: str) -> Iterator[SlapClient]:
    http = HttpClient(HttpSettings(base_url=url))
    yield SlapClient(http)
    http.close()
