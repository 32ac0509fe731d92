"""Releases and instances that are their author's to mend, with the real buildout: each failure is
told with its cause and its log, and all others are built and served.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.protocol.messages import ReleaseAssignment
from tests.integration.node.test_instance_pass import processes
from tests.integration.node.world import World
from tests.integration.recipes.buildouts import served

DOWNLOAD = "[buildout]\nparts = file\n[file]\nrecipe = slapos:download\n"
GOOD = """\
[buildout]
parts = instance.cfg
[instance.cfg]
recipe = slapos:template
url = ${:_profile_base_location_}/instance.cfg.in
output = ${buildout:directory}/instance.cfg
"""
INSTANCE = """\
[buildout]
parts = web
[web]
recipe = slapos:wrapper
wrapper-path = $${buildout:directory}/etc/service/web
command-line = /bin/sleep 600
"""
#: What is wrong → the profile, and what is told of it.
BAD = {
    "syntax": ("[buildout]\nparts =\nnonsense\n", ["syntax/software.cfg", "line 3: 'nonsense"]),
    "section": ("[buildout]\nparts = ${gone:parts}\n", ["${gone:parts}", "no section [gone]"]),
    "recipe": (
        "[buildout]\nparts = a\n[a]\nrecipe = slapos:nonsense\n",
        ["recipe = slapos:nonsense", "it has: ", "wrapper"],
    ),
    "package": (
        "[buildout]\nparts = a\nindex = {url}\n[a]\nrecipe = no.such.package:x\n",
        ["recipe = no.such.package:x", "[a]"],
    ),
    "gone": (
        f"{DOWNLOAD}url = {{url}}/gone\nsha256 = {'0' * 64}\n",
        ["file: {url}/gone cannot be downloaded", "404"],
    ),
    "hash": (f"{DOWNLOAD}url = {{url}}/file\nsha256 = {'0' * 64}\n", [f"{'0' * 64} is expected"]),
}


@pytest.fixture
def remote(world: World) -> Iterator[str]:
    folder = world.root / "remote"
    folder.mkdir()
    (folder / "file").write_text("content")
    with served(folder) as (url, _):
        yield url


def release(world: World, name: str, profile: str, instance: str = INSTANCE) -> str:
    """Write a release, have the master want it, and return its URL."""
    folder = world.root / "releases" / name
    folder.mkdir(parents=True)
    for path, text in ((folder / "software.cfg", profile), (folder / "instance.cfg.in", instance)):
        path.write_text(text)
    url = str(folder / "software.cfg")
    world.master.releases.append(ReleaseAssignment(url=url, node="node"))
    return url


def line_about(output: str, subject: str) -> str:
    return next(line for line in output.splitlines() if f"failed: {subject} (" in line)


def test_bad_releases_are_told_and_the_others_are_built(world: World, remote: str) -> None:
    urls = {
        name: release(world, name, text.replace("{url}", remote)) for name, (text, _) in BAD.items()
    }
    good = release(world, "good", GOOD)
    answer = world.run("software")
    assert answer.returncode == 1
    for name, url in urls.items():
        line = line_about(answer.stdout, url)
        for told in BAD[name][1]:
            assert told.replace("{url}", remote) in line
        log = Path(line.partition(" — log: ")[2].partition(" — ")[0])
        assert log.is_file()
        assert "slapos node software" in line
        assert not (world.layout.release(url) / ".completed").exists()
    assert "Traceback" not in answer.stdout
    assert (world.layout.release(good) / ".completed").exists()
    assert len(world.master.errors()) == len(BAD)
    assert "availableSoftwareRelease" in world.master.calls()
    # Nothing is tried again before its time; to try now is said.
    assert "next try in" in world.run("software").stdout
    # Mended, they are built at once: what is remembered of the failure is of another profile.
    Path(urls["syntax"]).write_text(GOOD)
    assert world.run("software").returncode == 1
    assert (world.layout.release(urls["syntax"]) / ".completed").exists()


def test_what_a_build_says_is_shown_once(world: World) -> None:
    url = release(world, "syntax", BAD["syntax"][0])
    answer = world.run("software")
    said = [line for line in answer.stdout.splitlines() if "line 3: 'nonsense" in line]
    assert len(said) == 2, "as it came, and in the summary"
    assert line_about(answer.stdout, url) == said[-1]


def test_a_bad_instance_is_told_and_the_others_are_served(world: World) -> None:
    texts = {
        "slappart0": "[buildout]\nparts = web\nnonsense\n",
        "slappart1": INSTANCE.replace("slapos:wrapper", "slapos:nonsense"),
        "slappart2": INSTANCE,
    }
    for reference, text in texts.items():
        world.want(reference, url=release(world, reference, GOOD, text))
    assert world.run("software").returncode == 0
    answer = world.run("instance")
    assert answer.returncode == 1
    for reference, told in (("slappart0", "'nonsense"), ("slappart1", "no recipe 'nonsense'")):
        line = line_about(answer.stdout, reference)
        assert told in line
        assert f"{world.partition(reference)}/.slapgrid/log/instance.log" in line
        assert "slapos node instance" in line
    assert "Traceback" not in answer.stdout
    assert processes(world)["slappart2:web-on-watch"]["state"] == "RUNNING"
    assert len(world.master.errors()) == 2
    assert world.master.calls("startedComputerPartition") == ["startedComputerPartition slappart2"]
