import math
import os
import threading
from pathlib import Path

import pytest

from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import remove_tree, write_if_changed
from slapos.system.process_lock import AlreadyRunning, process_lock
from slapos.system.settings import clean_environment, read_configuration


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_if_changed(path, "text", mode=0o600)
    number = path.stat().st_ino
    assert not write_if_changed(path, "text", mode=0o600)
    assert path.stat().st_ino == number
    assert write_if_changed(path, "text", mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_if_changed(path, "\udc80")
    target = tmp_path / "directory"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_if_changed(target, "new")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    assert path.read_text() == "old"


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("keep")
    link.symlink_to(victim)
    write_if_changed(link, "new")
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("keep", "new", False)


def test_a_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with process_lock(path), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        process_lock(path).__enter__()
    with process_lock(path):
        pass


def test_who_has_patience_gets_the_lock_when_its_holder_ends(tmp_path: Path) -> None:
    path, is_held = tmp_path / "lock", threading.Event()
    give_up = threading.Event()

    def hold() -> None:
        with process_lock(path):
            is_held.set()
            give_up.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(10)
    with pytest.raises(AlreadyRunning):
        process_lock(path, patience=0.05).__enter__()
    give_up.set()
    for patience in (10.0, math.inf):
        with process_lock(path, patience=patience):
            pass
    holder.join()


def test_a_lock_file_left_by_the_dead_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1")
    with process_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_settings_file_is_read_without_interpolation(tmp_path: Path) -> None:
    path = tmp_path / "slapos.cfg"
    path.write_text("[slapos]\nmaster_url = http://x/%20\n")
    assert read_configuration(path) == {"slapos": {"master_url": "http://x/%20"}}


@pytest.mark.parametrize("content", ["no section", "[a]\nx = 1\nx = 2\n", None])
def test_a_settings_file_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "slapos.cfg"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidConfiguration, match=str(path)):
        read_configuration(path)


def test_secrets_of_the_caller_stay_out_of_builds() -> None:
    given = {"PATH": "/bin", "AWS_SECRET": "x", "https_proxy": "p", "PYTHONPATH": "/evil"}
    kept = clean_environment(given)
    assert kept == {"PATH": "/bin", "https_proxy": "p", "PYTHONNOUSERSITE": "1"}


def test_the_address_of_a_package_index_is_for_builds_only() -> None:
    given = {"PATH": "/bin", "PIP_INDEX_URL": "https://me:password@example.com/", "UV_OFFLINE": "1"}
    assert "PIP_INDEX_URL" in clean_environment(given)
    assert "password" not in str(clean_environment(given, installs=False))


def test_a_pipe_or_an_endless_file_is_replaced_and_not_read(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    assert write_if_changed(pipe, "new")
    assert pipe.read_text() == "new"
    large.touch()
    large.chmod(0o644)
    os.truncate(large, 2**40)
    assert write_if_changed(large, "new")
    assert large.read_text() == "new"


def test_a_tree_is_removed_though_its_folders_are_closed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)
    remove_tree(tree)
    remove_tree(tree)
    assert os.listdir(tmp_path) == ["outside"]
