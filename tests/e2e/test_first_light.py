"""First light: what is ordered answers, changes, stops, comes back, and goes without a trace."""

import json
import re
import urllib.request
from pathlib import Path

import psutil
import pytest

from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from tests.e2e.greeting import Greeting, look_at_everything, pid_of, status, until
from tests.e2e.machine import Machine

pytestmark = pytest.mark.e2e


RELEASE = """\
[buildout]
parts = instance-profile
[instance-profile]
recipe = slapos:template
url = ${:_profile_base_location_}/instance.cfg.in
output = ${buildout:directory}/instance.cfg
"""
CHILD = """\
[buildout]
parts = publish
[publish]
recipe = slapos:publish.serialised
url = http://child.example/
"""
PARENT = """\
[buildout]
parts = publish
[child]
<= slap-connection
recipe = slapos:request.serialised
software-url = {child}
return = url
[publish]
recipe = slapos:publish.serialised
url = $${{child:connection-url}}
"""


@pytest.fixture(scope="module")
def greeting(machine: Machine) -> Greeting:
    return Greeting.ordered(machine, "hello", "Ada")


def timestamp(greeting: Greeting) -> str | None:
    url = status(greeting.machine)["master"]["url"]
    client = SlapClient(HttpClient(HttpSettings(base_url=url)))
    try:
        known = client.node_information("local").partitions
    finally:
        client.http.close()
    return next(p.timestamp for p in known if p.reference == greeting.partition.name)


def test_what_is_ordered_answers_and_changes_with_the_order(greeting: Greeting) -> None:
    assert "Hello Ada!" in greeting.page()
    greeting.order("Bob")
    assert "Hello Bob!" in greeting.page()
    before = (timestamp(greeting), greeting.processes())
    greeting.order("Bob")
    look_at_everything(greeting.machine)
    assert (timestamp(greeting), greeting.processes()) == before
    assert len(greeting.processes()) == 1


def test_what_is_stopped_by_hand_stays_down_until_it_is_started(greeting: Greeting) -> None:
    machine = greeting.machine
    page = greeting.page()
    machine.slapos("node", "stop", "all")
    look_at_everything(machine)
    assert greeting.processes() == []
    machine.slapos("node", "start", "all")
    until(lambda: greeting.page() == page, "the page is back")


def test_a_second_start_changes_nothing(greeting: Greeting) -> None:
    programs = ("supervisord", "proxy", "node", "inst/supervisord")

    def running() -> list[object]:
        return [*(pid_of(greeting.machine, program) for program in programs), greeting.processes()]

    before = running()
    greeting.machine.start()
    look_at_everything(greeting.machine)
    assert running() == before


def test_all_comes_back_after_a_stop(greeting: Greeting) -> None:
    kept = greeting.partition / "srv" / "kept"
    kept.write_text("data")
    page = greeting.page()
    greeting.machine.stop()
    assert greeting.processes() == []
    assert not status(greeting.machine)["running"]
    greeting.machine.start()
    until(lambda: greeting.page() == page, "the page is back")
    assert kept.read_text() == "data"
    assert len(greeting.processes()) == 1
    until(lambda: greeting.machine.json("service", "info", "hello")["status"] == "green", "healthy")


def test_what_is_destroyed_leaves_nothing_and_makes_room(machine: Machine) -> None:
    free = machine.directory / "inst" / "slappart9"
    leaving = Greeting.ordered(machine, "leaving", "Carol")
    (leaving.partition / "srv" / "more").mkdir()
    owner = leaving.partition.stat().st_uid
    machine.slapos("service", "destroy", "leaving", "--wait", "--yes", "--timeout", "60")

    assert leaving.page() == ""
    assert names(leaving.partition) == names(free)
    assert owner != 0
    assert [p.pid for p in psutil.process_iter() if is_of(p, leaving, owner)] == []
    now = status(machine)
    assert [p["name"] for p in now["processes"] if leaving.partition.name in p["name"]] == []
    with urllib.request.urlopen(f"{now['master']['url']}v1/nodes/local") as answer:
        partitions = {p["reference"]: p for p in json.load(answer)["partitions"]}
    assert partitions[leaving.partition.name]["state"] == "free"
    assert partitions[leaving.partition.name]["instance"] is None
    gone = machine.try_slapos("service", "info", "leaving")
    assert gone.returncode != 0
    assert "leaving" in gone.stderr

    again = Greeting.ordered(machine, "again", "Dora")
    assert again.partition == leaving.partition
    assert "Hello Dora!" in again.page()


def release(machine: Machine, name: str, instance: str) -> str:
    folder = machine.directory / "releases" / name
    folder.mkdir(parents=True)
    (folder / "software.cfg").write_text(RELEASE)
    (folder / "instance.cfg.in").write_text(instance)
    return str(folder / "software.cfg")


def test_a_parent_waits_for_its_child_and_has_not_failed(machine: Machine) -> None:
    child = release(machine, "child", CHILD.replace("${", "$${"))
    parent = release(machine, "parent", PARENT.format(child=child))
    asked = machine.try_slapos("request", "family", parent, "--wait", "--timeout", "60")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout) == {"url": "http://child.example/"}
    assert " failed " not in asked.stderr
    # Whoever looks sees it only if the child takes its time.
    told = (machine.directory / "var" / "log" / "node.log").read_text()
    assert re.search(r" waits: waiting for child: not ready yet", told)
    machine.slapos("service", "destroy", "family", "--wait", "--yes", "--timeout", "60")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def is_of(process: psutil.Process, greeting: Greeting, owner: int) -> bool:
    """Whether a process is its user's (with a user for each partition), or in its folder."""
    try:
        if greeting.machine.as_root and process.uids().real == owner:
            return True
        return str(greeting.partition) in process.cwd()
    except (psutil.Error, OSError):
        return False
