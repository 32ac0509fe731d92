"""Runs the buildout of the node on a configuration, as root or as an ordinary user."""

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from slapos.system.runner import Result, SystemRunner, User
from slapos.system.settings import clean_environment, environment

HEAD = """
[buildout]
offline = true
newest = false
eggs-directory-version =
download-cache = {directory}/cache
shared-part-list = {directory}/shared
"""


def nobody() -> User:
    """Return the user nobody; skip where he cannot be or cannot read this checkout."""
    if os.getuid():
        pytest.skip("only root can become another user")
    entry = pwd.getpwnam("nobody")
    user = User(entry.pw_uid, entry.pw_gid)
    readable = SystemRunner().run(
        [sys.executable, "-c", "import slapos.recipes.part"],
        cwd=Path("/"),
        environment=clean_environment(environment()),
        user=user,
        check=False,
    )
    if readable.status:
        pytest.skip("this checkout cannot be read by nobody")
    return user


def build(
    directory: Path,
    configuration: str,
    *arguments: str,
    user: User | None = None,
    variables: Mapping[str, str] | None = None,
) -> Result:
    """Run buildout in `directory`, with what every run needs put before `configuration`."""
    for name in ("cache", "shared"):
        (directory / name).mkdir(exist_ok=True)
    text = HEAD.format(directory=directory) + configuration
    (directory / "buildout.cfg").write_text(text)
    if user is not None:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return SystemRunner().run(
        [
            sys.executable,
            "-c",
            "import sys; from slapos.recipes.buildout.main import main; sys.exit(main())",
            *arguments,
        ],
        cwd=directory,
        environment={**clean_environment(environment()), **(variables or {})},
        user=user,
        timeout=300,
        check=False,
    )
