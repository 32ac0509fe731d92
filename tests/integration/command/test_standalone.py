"""`slapos standalone`: master, node and supervisord that really run, as root and not."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SLAPOS = Path(sys.executable).with_name("slapos")
NOBODY = 65534

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["ordinary user", "root"])
def standalone(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run `slapos standalone …` in a directory of a test's own, and stop it at the end."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can make users")
    become = os.geteuid() == 0 and request.param != "root"
    directory = Path(tempfile.mkdtemp(prefix="slapos-sa-", dir="/tmp"))
    directory.chmod(0o755)
    if become:
        os.chown(directory, NOBODY, NOBODY)

    def run(*words: str, directory: Path = directory) -> subprocess.CompletedProcess[str]:
        argv = [str(SLAPOS), "standalone", *words, "--directory", str(directory)]
        return subprocess.run(
            argv,
            user=NOBODY if become else None,
            group=NOBODY if become else None,
            extra_groups=[] if become else None,
            cwd=directory.parent,
            env={**os.environ, "HOME": str(directory)},
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    try:
        yield run
    finally:
        run("stop")
        run("remove", "--yes")
        shutil.rmtree(directory, ignore_errors=True)


def status(standalone: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(standalone("status", "--json").stdout)
    return found


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def pids(standalone: Run) -> dict[str, int]:
    directory = Path(status(standalone)["directory"])
    names = ("supervisord", "proxy", "node")
    return {name: int((directory / f"var/run/{name}.pid").read_text()) for name in names}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_starts_heals_and_stops(standalone: Run) -> None:
    started = standalone("start", "--partitions", "2")
    assert started.returncode == 0, started.stderr
    assert "export SLAPOS_CLIENT_CONFIGURATION=" in started.stdout

    first = status(standalone)
    assert first["running"]
    assert [one["reference"] for one in first["partitions"]] == ["slappart0", "slappart1"]
    assert first["node"]["last_answer"]

    # A second start changes nothing.
    before = pids(standalone)
    assert standalone("start").returncode == 0
    assert pids(standalone) == before

    # Each of its processes heals.
    for program in ("proxy", "node"):
        os.kill(before[program], signal.SIGKILL)
        eventually(lambda program=program: pids(standalone)[program] != before[program])  # type: ignore[misc]
    os.kill(before["supervisord"], signal.SIGKILL)
    again = standalone("start")
    assert again.returncode == 0, again.stderr
    assert status(standalone)["running"]

    # More partitions, not fewer.
    assert standalone("start", "--partitions", "3").returncode == 0
    assert len(status(standalone)["partitions"]) == 3
    fewer = standalone("start", "--partitions", "1")
    assert fewer.returncode == 1
    assert "partition_amount may only grow" in fewer.stderr

    running = [*pids(standalone).values()]
    assert standalone("stop").returncode == 0
    assert [pid for pid in running if is_alive(pid)] == []
    assert standalone("status").returncode == 3
    assert standalone("stop").returncode == 0

    # It goes only when told so in words, and then wholly.
    directory = Path(status(standalone)["directory"])
    refused = standalone("remove")
    assert (refused.returncode, "add --yes" in refused.stderr) == (1, True)
    gone = standalone("remove", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert not directory.exists()
    assert f"{directory}/" not in Path("/etc/passwd").read_text()
    assert standalone("remove", "--yes").returncode == 1


def test_a_port_in_use_is_told(standalone: Run) -> None:
    host = status(standalone)["master"]["url"].split("/")[2].partition(":")[0]
    with socket.create_server((host, 0)) as other:
        refused = standalone("start", "--port", str(other.getsockname()[1]))
    assert refused.returncode == 1
    assert "cannot listen" in refused.stderr
    assert "--port" in refused.stderr


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 90, "too long for the unix sockets"), ("a'b", "quote")]
)
def test_a_directory_that_cannot_be_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    refused = subprocess.run(
        [SLAPOS, "standalone", "start", "--directory", f"/tmp/{name}"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert refused.returncode == 1
    assert reason in refused.stderr
    assert not Path("/tmp", name).exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users that it could keep out")
def test_a_directory_that_users_cannot_enter_is_named() -> None:
    closed = Path(tempfile.mkdtemp(prefix="slapos-sa-", dir="/tmp"))  # mode 0700
    try:
        refused = subprocess.run(
            [SLAPOS, "standalone", "start", "--directory", str(closed / "in")],
            text=True,
            capture_output=True,
            check=False,
        )
        assert refused.returncode == 1
        assert f"chmod o+x {closed}" in refused.stderr
    finally:
        shutil.rmtree(closed)
