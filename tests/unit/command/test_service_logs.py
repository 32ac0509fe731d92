"""Reading the logs of a service's instances."""

import os
from pathlib import Path

from slapos.command.client_settings import ClientSettings
from slapos.command.log_view import Log, LogTail, instance_logs, last_lines, partition_logs
from slapos.node.layout import release_digest


def test_an_instance_has_the_logs_of_its_build_of_its_buildout_and_of_its_processes(
    tmp_path: Path,
) -> None:
    release = "https://example.com/software.cfg"
    settings = ClientSettings(
        path=tmp_path / "slapos.cfg",
        master_url="http://127.0.0.1/",
        node="local",
        instance_root=tmp_path / "inst",
        software_root=tmp_path / "soft",
    )
    assert instance_logs(settings, "blog", "local", "slappart0", release) == []
    partition, software = tmp_path / "inst/slappart0", tmp_path / "soft" / release_digest(release)
    for folder, log in ((partition, "instance.log"), (software, "build.log")):
        (folder / ".slapgrid/log").mkdir(parents=True)
        (folder / ".slapgrid/log" / log).touch()
    for name in (".slappart0_kinto-on-watch.log", ".slappart0_cron.log", ".other.log", "x.log"):
        (partition / name).touch()
    assert [
        log.path.name for log in instance_logs(settings, "blog", "local", "slappart0", release)
    ] == [
        "build.log",
        "instance.log",
        ".slappart0_cron.log",
        ".slappart0_kinto-on-watch.log",
    ]
    assert instance_logs(settings, "blog", "elsewhere", "slappart0", release) == []


def test_the_last_lines_of_a_long_file_are_read(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert last_lines(Log("a", tmp_path, log.name), 2) == ["line 9998", "line 9999"]
    assert last_lines(Log("a", tmp_path, log.name), 0) == []


def test_what_is_added_is_followed_through_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    tail = LogTail(Log("a", tmp_path, log.name))
    with log.open("a") as stream:
        stream.write("one\ntw")
    assert list(tail.new_lines()) == ["one"]
    with log.open("a") as stream:
        stream.write("o\n")
    assert list(tail.new_lines()) == ["two"]
    os.rename(log, tmp_path / "a.log.1")
    assert list(tail.new_lines()) == []
    log.write_text("three\n")
    assert list(tail.new_lines()) == ["three"]


def test_an_emptied_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("much that was there\n")
    tail = LogTail(Log("a", tmp_path, log.name))
    log.write_text("new\n")
    assert list(tail.new_lines()) == ["new"]


def test_what_came_just_before_a_rotation_is_not_lost(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    tail = LogTail(Log("a", tmp_path, "a.log"))
    with log.open("a") as stream:
        stream.write("last\n")
    os.rename(log, tmp_path / "a.log.1")
    log.write_text("first\n")
    assert list(tail.new_lines()) == ["last", "first"]


def test_a_link_in_a_partition_is_not_followed(tmp_path: Path) -> None:
    partition = tmp_path / "slappart0"
    (partition / ".slapgrid").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "log").mkdir()
    (tmp_path / "log/instance.log").write_text("secret\n")
    (partition / ".slappart0_web.log").symlink_to(tmp_path / "secret")
    (partition / ".slapgrid/log").symlink_to(tmp_path / "log")
    assert partition_logs("slappart0", partition) == []
    assert last_lines(Log("a", partition, ".slappart0_web.log"), 5) == []
    (partition / ".slappart0_web.log").unlink()
    log = partition / ".slappart0_web.log"
    log.write_text("own\n")
    tail = LogTail(Log("a", partition, log.name))
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    assert list(tail.new_lines()) == []
