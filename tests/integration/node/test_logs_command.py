"""`slapos node logs` on a node whose partitions and releases have logs."""

import json
import subprocess
import sys
import threading
from pathlib import Path

from slapos.node.record import ReleaseRecord, write_record
from tests.integration.node.world import MAIN, URL, World, until


def log(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_all_partitions_or_those_that_are_named_are_shown(world: World) -> None:
    log(world.partition("slappart0") / ".slapgrid/log/instance.log", "made\n")
    log(world.partition("slappart1") / ".slappart1_web.log", "old\nserving\n")
    text = world.run("logs", "-n", "1").stdout
    assert "==> slappart0: " in text
    assert "\nmade\n" in text
    assert "\nserving\n" in text
    assert "old" not in text
    [one] = json.loads(world.run("logs", "--json", "slappart1").stdout)
    assert (one["partition"], one["lines"]) == ("slappart1", ["old", "serving"])
    answer = world.run("logs", "slappart9")
    assert answer.returncode == 1
    assert "there are: slappart0, slappart1, slappart2" in answer.stdout


def test_builds_are_shown_under_the_url_of_their_release(world: World) -> None:
    assert world.run("logs", "--software").returncode == 1
    log(world.layout.release(URL) / ".slapgrid/log/build.log", "built\n")
    write_record(world.layout.release_record(URL), ReleaseRecord(url=URL))
    assert f"==> {URL}: " in world.run("logs", "--software").stdout


def test_new_and_rotated_files_are_followed(world: World) -> None:
    web = log(world.partition("slappart0") / ".slappart0_web.log", "before\n")
    command = (sys.executable, "-c", MAIN, "node", "logs", "-f", "--cfg", str(world.configuration))
    seen: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=seen.extend, args=(process.stdout,))
        reader.start()
        try:
            until(lambda: "before\n" in seen)
            web.rename(web.with_name(web.name + ".1"))
            web.write_text("after\n")
            until(lambda: "after\n" in seen)
            log(world.partition("slappart2") / ".slapgrid/log/instance.log", "made anew\n")
            until(lambda: "made anew\n" in seen)
        finally:
            process.terminate()
            reader.join()
