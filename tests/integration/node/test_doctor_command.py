"""`slapos node doctor` on a node with a real supervisord and a real HTTP master."""

import json
import os

from tests.integration.node.world import World


def findings(world: World) -> tuple[int, dict[str, list[str]]]:
    """Return the exit status, and what each check found that is not well."""
    answer = world.run("doctor", "--json")
    found: dict[str, list[str]] = {}
    for one in json.loads(answer.stdout):
        bad = found.setdefault(one["check"], [])
        if one["level"] != "ok":
            bad.append(f"{one['level']}: {one['found']} -> {one['remedy']}")
    return answer.returncode, found


def test_a_node_that_works_has_no_problem(world: World) -> None:
    world.run("format", "--now")
    world.release(world.installing("web"))
    world.want()
    assert world.run("instance", "--now").returncode == 0
    status, found = findings(world)
    assert status == 0, found
    # The passes of this node are made by hand.
    assert {name: bad for name, bad in found.items() if bad}.keys() == {"agent"}
    assert "none has ever run here" in found["agent"][0]
    assert {"disk", "users", "addresses", "clock", "agent", "supervisord", "leftovers"} <= set(
        found
    )


def test_each_thing_that_is_wrong_is_told_with_what_to_do(world: World) -> None:
    world.run("format", "--now")
    world.release("echo broken; exit 3")
    world.want()
    assert world.run("instance", "--now").returncode == 1
    world.partition("slappart1").chmod(0o777)
    world.master.failures["getFullComputerInformation"] = (500, b"out of order")
    status, found = findings(world)
    assert status == 1
    assert "out of order" in found["master"][0]
    assert "chmod 0750" in found["partitions"][0]
    assert "slappart0" in found["instances"][0]
    assert "next try in" in found["instances"][0]
    text = world.run("doctor", "-q").stdout
    assert "problem  master" in text
    assert "problems: 3" in text


def test_settings_that_cannot_be_used_are_all_that_is_told(world: World) -> None:
    world.configure(software_root="")
    status, found = findings(world)
    assert (status, list(found)) == (1, ["configuration"])
    assert "software_root is missing" in found["configuration"][0]


def test_it_changes_nothing(world: World) -> None:
    world.run("format", "--now")
    before = sorted(os.fspath(path) for path in world.root.rglob("*"))
    world.run("doctor")
    assert sorted(os.fspath(path) for path in world.root.rglob("*")) == before
    assert not world.layout.supervisor_socket.exists()
