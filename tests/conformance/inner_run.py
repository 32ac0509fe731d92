"""Runs the peer's own tests in the peer's environment against a master of choice."""

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.conformance.peer_environment import peer_environment

HERE = Path(__file__).parent
MODULES = tuple(
    f"slapos.tests.test_slapproxy{part}" for part in ("", "_json_rpc", "_panel", "_httpproxy")
)
#: Inner runs side by side: one more than processors, since tests also wait.
SHARDS = max(2, min(8, (os.cpu_count() or 1) + 1))
LONGEST = 600  # seconds
#: Our tables as slapproxy's, for tests that look whether a partition is free or what was forwarded.
TABLES = """
CREATE TEMP VIEW forwarded_partition_requestVERSION AS
    SELECT title AS partition_reference, master_url FROM forwarded_requests;
CREATE TEMP VIEW partitionVERSION AS
    SELECT compute_partitions.reference AS reference, state AS slap_state, software_url AS
        software_release, software_instances.title AS partition_reference,
        CASE WHEN is_root = 0 THEN instance_trees.title ELSE '' END AS requested_by,
        coalesce(requested_state, 'started') AS requested_state
    FROM compute_partitions
        LEFT JOIN software_instances ON partition_id = compute_partitions.id
        LEFT JOIN instance_trees ON tree_id = instance_trees.id;
"""


@dataclass(frozen=True)
class Master:
    """A master to ask: how it is started (before `proxy start …`), and how its answers begin.

    `server` is what its answers carry in the header Server, "" for none: thus nobody else is
    mistaken for it.
    `tables` is SQL that gives its tables slapproxy's names. A `warm` one is started by a process
    that has its modules in memory (`warm_master.py`).
    """

    command: tuple[str, ...]
    server: str
    tables: str = ""
    warm: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one of the peer's tests ended; without a `failure` it passed."""

    group: str
    name: str
    failure: str | None

    @property
    def id(self) -> str:
        """Its name in the list of what is left out."""
        return f"{self.group}::{self.name}"


def master_named(name: str) -> Master:
    """Return `ours`, the real `slapproxy`, or `nonsense`."""
    masters = {
        "ours": lambda: Master(
            (sys.executable, str(HERE / "warm_master.py")), "", TABLES, warm=True
        ),
        "slapproxy": lambda: Master((str(peer_environment() / "slapos"),), "Werkzeug"),
        "nonsense": lambda: Master((sys.executable, str(HERE / "nonsense_master.py")), "Teapot"),
    }
    return masters[name]()


def left_out(master: str) -> dict[str, str]:
    """Return the tests that cannot be asked of a master over HTTP, each with its reason."""
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(HERE / "left_out.cfg")
    return dict(parser.items("any master")) | dict(parser.items(master))


def run_inner_tests(
    master: Master,
    directory: Path,
    *,
    not_tried: Sequence[str] = (),
    modules: Sequence[str] = MODULES,
) -> dict[str, Outcome]:
    """Run the peer's tests against a master, side by side, and return how each ended."""
    (directory / "inner.ini").write_text("[pytest]\nconsider_namespace_packages = true\n")
    runs = [_start(master, directory, shard, not_tried, modules) for shard in range(SHARDS)]
    outcomes: dict[str, Outcome] = {}
    for shard, process in enumerate(runs):
        printed, _ = process.communicate(timeout=LONGEST)
        # 0: all passed, 1: some failed. Anything else is the harness's failure.
        if process.returncode not in (0, 1):
            raise RuntimeError(f"the inner pytest ended with {process.returncode}:\n{printed}")
        outcomes |= {o.id: o for o in _read_report(directory / f"shard-{shard}.xml")}
    return outcomes


def _start(
    master: Master, directory: Path, shard: int, not_tried: Sequence[str], modules: Sequence[str]
) -> subprocess.Popen[str]:
    environment = {
        # Masters start a hundred times and more: with their modules compiled, as for every user.
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(HERE),
        "SLAPOS_CONFORMANCE_COMMAND": json.dumps(master.command),
        "SLAPOS_CONFORMANCE_WARM": "yes" if master.warm else "",
        "SLAPOS_CONFORMANCE_SERVER": master.server,
        "SLAPOS_CONFORMANCE_SHARD": f"{shard}/{SHARDS}",
        "SLAPOS_CONFORMANCE_NOT_TRIED": ",".join(not_tried),
        "SLAPOS_CONFORMANCE_TABLES": master.tables,
    }
    command = (
        *(str(peer_environment() / "python"), "-m", "pytest", "-q", "-p", "plugin"),
        *("-c", str(directory / "inner.ini"), "--rootdir", str(directory)),
        *("-p", "no:cacheprovider", "--tb=short"),
        *(f"--junitxml={directory}/shard-{shard}.xml", "--pyargs", *modules),
    )
    return subprocess.Popen(
        command,
        env=environment,
        cwd=directory,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _read_report(report: Path) -> list[Outcome]:
    outcomes = []
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [part for part in case if part.tag in ("failure", "error", "skipped")]
        failure = "\n".join(f"{part.get('message')}\n{part.text}" for part in bad) or None
        group = (case.get("classname") or "").rpartition(".")[2]
        outcomes.append(Outcome(group, case.get("name") or "", failure))
    return outcomes
