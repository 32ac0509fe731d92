"""`slapos node report`: usage that is neither lost nor sent twice, and the end of instances."""

import json
from pathlib import Path

import pytest
from lxml import etree

from slapos.protocol.states import InstanceState
from tests.integration.node.world import World, until

MOVEMENT = (
    "<movement><resource>CPU &amp; memory</resource><title>a</title><reference>x</reference>"
    "<quantity>42.42</quantity><price>0.00</price><VAT>None</VAT><category/></movement>"
)
CONSUMPTION = f"<?xml version='1.0' encoding='utf-8'?><consumption>{MOVEMENT}</consumption>"


def instance(
    world: World, script: str = "true", state: InstanceState = InstanceState.STARTED
) -> Path:
    """An instance that was instantiated and is now to be `state`."""
    world.release(script)
    world.want()
    assert world.run("instance").returncode == 0
    world.want(state=state, timestamp="2")
    world.master.told.clear()
    return world.partition()


def sent(world: World) -> list[str]:
    return [form["use_string"] for call, form in world.master.told if call == "useComputer"]


def reporting(world: World, document: str = CONSUMPTION) -> str:
    body = f"#!/bin/sh\ncat > $1 <<'DOCUMENT'\n{document}\nDOCUMENT\n"
    return world.installing("usage", body, folder="etc/report")


def test_what_an_instance_used_is_sent_once(world: World) -> None:
    instance(world, reporting(world))
    assert world.run("report").returncode == 0
    [journal] = sent(world)
    root = etree.fromstring(journal.encode())
    assert root.findtext("transaction/movement/resource") == "CPU & memory"
    assert root.findtext("transaction/movement/reference") == "slappart0"
    assert root.findtext("transaction/reference") == "node"
    assert not list((world.partition() / "var" / "xml_report").iterdir())


def test_what_the_master_does_not_take_is_kept_and_sent_later(world: World) -> None:
    instance(world, reporting(world))
    world.master.failures["useComputer"] = (500, b"")
    answer = world.run("report")
    assert answer.returncode == 1
    assert "kept here and sent later" in answer.stdout
    world.master.failures.clear()
    (world.partition() / "etc" / "report" / "usage").unlink()
    assert world.run("report").returncode == 0
    assert len(sent(world)) == 1
    assert world.run("report").returncode == 0
    assert len(sent(world)) == 1


@pytest.mark.parametrize("document", ["no XML", "<consumption/>", CONSUMPTION.replace("42", "x")])
def test_what_is_no_consumption_is_left_where_it_is(world: World, document: str) -> None:
    instance(world, reporting(world, document))
    assert world.run("report").returncode == 0
    assert sent(world) == []
    assert len(list((world.partition() / "var" / "xml_report").iterdir())) == 1


def test_a_link_in_the_place_of_a_report_is_not_read(world: World) -> None:
    instance(world, "mkdir -p var/xml_report; ln -s /etc/passwd var/xml_report/a")
    answer = world.run("report")
    assert answer.returncode == 0
    assert "is not sent" in answer.stdout
    assert Path("/etc/passwd").exists()


def test_a_destroyed_instance_leaves_only_its_addresses(world: World) -> None:
    world.run("format", "--now")
    script = world.installing("web") + "mkdir -p srv/data; touch srv/data/file"
    script += "\n" + world.installing("destroy", "#!/bin/sh\necho $PWD >&2; exit 0\n", "sbin")
    folder = instance(world, script, InstanceState.DESTROYED)
    answer = world.run("report")
    assert answer.returncode == 0, answer.stdout
    assert [path.name for path in folder.iterdir()] == [".slapos-resource"]
    assert world.master.calls() == [
        "stoppedComputerPartition slappart0",
        "destroyedComputerPartition slappart0",
    ]
    left = json.loads(world.run("status", "--processes", "--json").stdout)
    assert [process["group"] for process in left] == ["watchdog"]


def test_the_instance_pass_only_stops_what_is_destroyed(world: World) -> None:
    folder = instance(world, world.installing("web"), InstanceState.DESTROYED)
    assert world.run("instance").returncode == 0
    assert world.master.calls() == ["stoppedComputerPartition slappart0"]
    assert (folder / "etc" / "service" / "web").exists()


def test_a_destroy_program_that_fails_keeps_the_data(world: World) -> None:
    script = world.installing("destroy", "#!/bin/sh\necho no way; exit 4\n", "sbin")
    folder = instance(world, script, InstanceState.DESTROYED)
    answer = world.run("report")
    assert answer.returncode == 1
    assert "no way" in answer.stdout
    assert (folder / "sbin" / "destroy").exists()


def test_retention_keeps_the_data(world: World) -> None:
    folder = instance(world, "true", InstanceState.DESTROYED)
    (folder / ".slapos-retention-lock-delay").write_text("7.0")
    answer = world.run("report")
    assert answer.returncode == 0
    assert "7.0 days more" in answer.stdout
    date = (folder / ".slapos-retention-lock-date").read_text()
    world.run("report")
    assert (folder / ".slapos-retention-lock-date").read_text() == date
    (folder / ".slapos-retention-lock-date").write_text("1.0")
    world.run("report")
    assert list(folder.iterdir()) == []


def test_last_programs_run_once_and_are_waited_for(world: World) -> None:
    body = "#!/bin/sh\necho run >> ../prerm-ran\nwhile [ -e hold ]; do sleep 0.05; done\n"
    script = "touch hold\n" + world.installing("backup", body, "etc/prerm")
    folder = instance(world, script, InstanceState.DESTROYED)
    ran = world.root / "inst" / "prerm-ran"
    ran.touch()
    world.own(ran)
    answer = world.run("report")
    assert "backup in etc/prerm has not ended yet" in answer.stdout
    world.run("report")
    (folder / "hold").unlink()
    until(lambda: world.run("report").returncode == 0 and not (folder / "etc").exists())
    assert ran.read_text() == "run\n"


def test_nothing_of_a_destroyed_instance_goes_on_running(world: World) -> None:
    """Also what has detached itself from its service, and what was started by nobody known."""
    service = (
        "#!/bin/sh\nsetsid sh -c 'echo $$ > here; exec sleep 600' &\n"
        "cd /; setsid sh -c 'echo $$ > $HOME/elsewhere; exec sleep 600' & wait\n"
    )
    folder = instance(world, world.installing("web", service), InstanceState.DESTROYED)
    files = (folder / "here", folder / "elsewhere")
    until(lambda: all(file.exists() and file.read_text() for file in files), "the daemons run")
    daemons = [Path("/proc", file.read_text().strip()) for file in files]
    assert world.run("report").returncode == 0
    until(lambda: not any(daemon.exists() for daemon in daemons), "they are ended")
    assert world.master.calls()[-1] == "destroyedComputerPartition slappart0"
