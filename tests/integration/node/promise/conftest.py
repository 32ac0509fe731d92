"""A partition in a temporary directory whose promises are checked by the real launcher."""

import os
import stat
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from slapos.node.promise.check import ProcessPromiseChecker, PromiseContext, PromiseResult
from slapos.node.promise.result import Mode
from slapos.system.runner import SystemRunner, User

PLUGIN = """\
import sys
sys.path[0:0] = []
extra_config_dict = {extra}
import os, signal, time
from slapos.node.promise.generic import GenericPromise

class RunPromise(GenericPromise):
    def __init__(self, config):
        super().__init__(config)
{setup}

    def sense(self):
{sense}
"""


@dataclass
class Partition:
    """A partition directory; `options` are those of PromiseContext."""

    directory: Path
    user: User | None = None
    options: dict[str, Any] = field(default_factory=lambda: {"timeout": 20.0})

    def plugin(
        self, name: str, sense: str = "pass", *, setup: str = "pass", extra: Any = None
    ) -> None:
        """Write a plugin whose promise has these bodies for `__init__` and `sense`."""
        body = PLUGIN.format(
            extra=repr(extra or {}),
            setup=textwrap.indent(textwrap.dedent(setup), " " * 8),
            sense=textwrap.indent(textwrap.dedent(sense), " " * 8),
        )
        self.file(f"etc/plugin/{name}", body)

    def executable(self, name: str, script: str) -> None:
        """Write a shell script."""
        self.file(f"etc/promise/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def file(self, name: str, text: str) -> Path:
        """Write a file, for the partition's user."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if self.user is not None:
            for one in (path, *path.parents):
                if one == self.directory:
                    break
                os.chown(one, self.user.uid, self.user.gid)
        return path

    def check(self, mode: Mode = "test", *, force: bool = True) -> dict[str, PromiseResult]:
        """Check the promises and return the results by title."""
        checker = ProcessPromiseChecker(SystemRunner(), {"PATH": os.environ["PATH"]})
        values: dict[str, Any] = {
            "partition_directory": self.directory,
            "partition": "slappart0",
            "node": "COMP-1",
            "master_url": "http://127.0.0.1:1",
            "python": sys.executable,
            "user": self.user,
            **self.options,
        }
        results = checker.check(PromiseContext(**values), mode=mode, force=force).results
        found = {result.title: result for result in results}
        assert len(found) == len(results)
        return found

    def state(self, name: str) -> Path:
        """Return a path below `.slapgrid/promise`."""
        return self.directory / ".slapgrid" / "promise" / name


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    """A partition of the user who runs the tests."""
    return Partition(tmp_path)


@pytest.fixture
def nobodys_partition() -> Iterator[Partition]:
    """A partition of the user nobody, for tests run by root."""
    user = User(65534, 65534)
    with tempfile.TemporaryDirectory(prefix="slapos-") as name:
        directory = Path(name)
        os.chown(directory, user.uid, user.gid)
        directory.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP)
        yield Partition(directory, user)
