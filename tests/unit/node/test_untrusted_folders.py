"""What users put into their folders, where the node works as root."""

import os
from pathlib import Path

import pytest

from slapos.node.beneath import UnsafePath, open_folder, read_beneath, write_beneath
from slapos.node.build.folder import copy_netrc, prepare_folder, remove_release
from slapos.node.buildout_program import buildout_command, python_of
from slapos.node.promise.result import from_document
from slapos.node.supervise.configuration import Program, render_group
from slapos.node.users import Account
from slapos.protocol.errors import InvalidConfiguration

SELF = Account(name="me", uid=os.geteuid(), gid=os.getegid(), user=None)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the user's business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_nothing_is_written_through_a_link_in_place_of_a_folder(
    folder: Path, outside: Path
) -> None:
    (folder / "bin").symlink_to(outside)
    with pytest.raises(UnsafePath, match="bin"):
        write_beneath(folder, "bin/buildout", "text")
    with pytest.raises(UnsafePath, match="bin"):
        prepare_folder(folder, SELF)
    assert os.listdir(outside) == ["secret"]


def test_a_file_beneath_is_written_as_a_whole(folder: Path) -> None:
    (folder / "bin").mkdir()
    assert write_beneath(folder, "bin/buildout", "text", mode=0o755)
    assert not write_beneath(folder, "bin/buildout", "text", mode=0o755)
    assert (folder / "bin" / "buildout").read_text() == "text"
    assert os.listdir(folder / "bin") == ["buildout"]


def test_an_error_beneath_names_the_file(folder: Path) -> None:
    (folder / "file").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_beneath(folder, "file", "text")
    assert caught.value.filename == str(folder / "file")


def test_a_folder_is_made_with_its_mode_whatever_the_umask_is(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        os.close(open_folder(folder, "a/b", owner=SELF.owner))
    finally:
        os.umask(before)
    assert (folder / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_netrc_that_is_a_link_is_not_given_to_builds(folder: Path, outside: Path) -> None:
    home = folder.parent / "home"
    home.mkdir()
    (home / ".netrc").symlink_to(outside / "secret")
    with pytest.raises(UnsafePath):
        copy_netrc(folder, SELF, home)
    assert os.listdir(folder) == []
    (home / ".netrc").unlink()
    (home / ".netrc").write_text("machine example.com")
    copy_netrc(folder, SELF, home)
    assert (folder / ".netrc").read_text() == "machine example.com"


def test_a_pipe_in_place_of_a_buildout_script_is_not_waited_for(folder: Path) -> None:
    (folder / "bin").mkdir()
    os.mkfifo(folder / "bin" / "buildout")
    with pytest.raises(UnsafePath):
        buildout_command(folder / "bin" / "buildout")
    assert python_of(folder / "bin" / "buildout") is None


def test_a_release_that_is_a_link_is_removed_and_not_what_it_leads_to(
    folder: Path, outside: Path
) -> None:
    (outside / ".completed").touch()
    (folder / "release").symlink_to(outside)
    remove_release(folder / "release")
    assert sorted(os.listdir(outside)) == [".completed", "secret"]
    assert read_beneath(folder, "release") is None


def test_a_service_whose_name_is_no_utf_8_is_refused(folder: Path) -> None:
    path = Path(os.fsdecode(b"/srv/etc/service/\xff"))
    with pytest.raises(InvalidConfiguration, match="cannot be a service") as caught:
        render_group("slappart0", [Program(name=path.name, path=path)], folder, folder, SELF)
    str(caught.value).encode()


def test_what_a_promise_says_can_be_sent_and_is_short(folder: Path) -> None:
    inner = {
        "type": "Test Result",
        "failed": True,
        "date": "2026-03-01T12:00:00+0000",
        "message": "\udcff" + "x" * 100_000,
    }
    result = from_document({"title": "\udcff", "execution-time": 1, "result": inner})
    assert len(result.message.encode()) < 10_000
    assert result.title == "\\udcff"
