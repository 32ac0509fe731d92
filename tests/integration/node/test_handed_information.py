"""Recipes of an instance get to know what the node knows, and ask the master for nothing more."""

import sys
from dataclasses import replace

import pytest

from slapos.node.build.folder import buildout_script
from slapos.node.instantiate.hand_over import FILE, VARIABLE
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import PartitionInformation
from slapos.recipes.connection import INFORMATION, PUBLISHED
from tests.integration.node.world import IS_ROOT, NOBODY, World

PUBLISH = "setComputerPartitionConnectionXml"
REGISTER = "registerComputerPartition"
REQUEST = "requestComputerPartition"
PROFILE = """
[buildout]
parts = publish

[slap-configuration]
recipe = slapos:slapconfiguration

[publish]
recipe = slapos:publish
url = ${slap-configuration:configuration.text}
"""
EARLY = """
[buildout]
parts = publish

[password]
recipe = slapos:generate.password
storage-path =

[early]
recipe = slapos:publish-early
-init = secret password:passwd

[publish]
recipe = slapos:publish.serialised
-extends = early
"""


@pytest.fixture
def remembering(world: World) -> World:
    """A world whose master remembers what is published."""

    def remember(call: str, form: dict[str, str]) -> None:
        if call == PUBLISH:
            connection = loads(form["connection_xml"].encode())
            partition = world.master.partitions["slappart0"]
            world.master.partitions["slappart0"] = replace(partition, connection=connection)

    world.master.reaction = remember
    return world


def want(world: World, profile: str = PROFILE, **more: object) -> None:
    folder = world.release(profile=profile)
    world.script(folder / "bin" / "buildout", buildout_script(sys.executable))
    kept = world.master.partitions["slappart0"].connection
    world.want(**more)  # type: ignore[arg-type]
    wanted = world.master.partitions["slappart0"]
    world.master.partitions["slappart0"] = replace(wanted, connection=kept)


def apply(world: World) -> None:
    answer = world.run("instance", "--force")
    assert answer.returncode == 0, answer.stdout


def published(world: World) -> dict[str, object]:
    return world.master.partitions["slappart0"].connection


def test_both_sides_mean_the_same_variable() -> None:
    assert VARIABLE == INFORMATION


def test_a_buildout_with_nothing_new_asks_and_tells_nothing(remembering: World) -> None:
    want(remembering, text="one")
    apply(remembering)
    assert remembering.master.calls(PUBLISH) == [f"{PUBLISH} slappart0"]
    apply(remembering)
    assert remembering.master.calls(PUBLISH) == [f"{PUBLISH} slappart0"]
    assert {*remembering.master.asked} == {"getFullComputerInformation"}
    want(remembering, text="two", timestamp="2")
    apply(remembering)
    assert published(remembering) == {"url": "two"}
    assert REGISTER not in remembering.master.asked


def test_what_the_master_lost_is_published_again(remembering: World) -> None:
    want(remembering, text="one")
    apply(remembering)
    lost = replace(remembering.master.partitions["slappart0"], connection={})
    remembering.master.partitions["slappart0"] = lost
    apply(remembering)
    assert published(remembering) == {"url": "one"}


def test_an_older_answer_of_the_master_does_not_hide_a_change(remembering: World) -> None:
    """The node was told that `one` is published before `two` was, and then has to go back."""
    want(remembering, text="one")
    apply(remembering)
    older = remembering.master.partitions["slappart0"]
    want(remembering, text="two", timestamp="2")
    apply(remembering)
    remembering.master.partitions["slappart0"] = older
    apply(remembering)
    assert len(remembering.master.calls(PUBLISH)) == 3


def test_a_secret_is_never_made_anew_because_of_an_older_answer(remembering: World) -> None:
    want(remembering, EARLY)
    nothing_yet = remembering.master.partitions["slappart0"]
    apply(remembering)
    secret = published(remembering)
    (remembering.partition() / ".installed.cfg").unlink()
    remembering.master.asked.clear()
    apply(remembering)
    assert published(remembering) == secret
    assert REGISTER not in remembering.master.asked
    # Now the node is told what was so before anything was published; asked, the master knows.
    remembering.master.failures["getFullComputerInformation"] = (
        200,
        _document(remembering, nothing_yet),
    )
    (remembering.partition() / ".installed.cfg").unlink()
    apply(remembering)
    assert REGISTER in remembering.master.asked
    assert published(remembering) == secret


def test_only_the_partitions_user_may_read_it(remembering: World) -> None:
    want(remembering, text="one")
    apply(remembering)
    for name in (FILE, PUBLISHED):
        status = (remembering.partition() / name).stat()
        assert not status.st_mode & 0o007
        assert not IS_ROOT or status.st_gid == NOBODY.pw_gid
    assert not IS_ROOT or (remembering.partition() / FILE).stat().st_uid == 0


def test_of_a_master_that_says_too_little_the_recipes_ask(remembering: World) -> None:
    want(remembering, text="one")
    wanted = remembering.master.partitions["slappart0"]
    short = replace(wanted, instance_guid=None)
    remembering.master.failures["getFullComputerInformation"] = (
        200,
        _document(remembering, short),
    )
    apply(remembering)
    assert REGISTER in remembering.master.asked
    assert not (remembering.partition() / FILE).exists()


def test_all_requests_of_a_buildout_go_over_one_connection(remembering: World) -> None:
    remembering.master.failures[REQUEST] = (408, b"")
    counts = []
    for number in (1, 5):
        parts = [f"child{index}" for index in range(number)]
        text = f"[buildout]\nparts = {' '.join(parts)}\n"
        text += "".join(f"[{part}]\nrecipe = slapos:requestoptional\n" for part in parts)
        want(remembering, text)
        before = remembering.master.connections
        apply(remembering)
        counts.append(remembering.master.connections - before)
    assert counts[0] == counts[1]


def _document(world: World, partition: PartitionInformation) -> bytes:
    """Return what a node is told, with this in place of its partition."""
    told = world.master.information()
    others = [each for each in told.partitions if each.reference != "slappart0"]
    return dumps(replace(told, partitions=(partition, *others)).to_marshalled())
