"""Who holds a lock, found out without taking it."""

import os
from pathlib import Path

import pytest

from slapos.node.condition import is_hidden, lock_holder
from slapos.system.process_lock import process_lock


def test_the_holder_of_a_lock_is_seen_while_it_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.pid"
    assert lock_holder(path) is None
    with process_lock(path):
        assert lock_holder(path) == os.getpid()
    assert path.read_text() == str(os.getpid())
    assert lock_holder(path) is None


def test_another_lock_of_the_same_process_is_not_this_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.pid"
    path.write_text(str(os.getpid()))
    with process_lock(tmp_path / "other.pid"):
        assert lock_holder(path) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_lock_that_may_not_be_read_is_hidden_and_not_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_hidden(path)
    path.touch(mode=0)
    assert is_hidden(path)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0)
    assert is_hidden(folder / "lock")
