"""Users and groups: what is missing is made, what is there is left alone."""

import grp
import logging
import pwd
from collections.abc import Mapping
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.runner import CommandFailed, Runner

logger = logging.getLogger(__name__)

#: Seconds that a command which changes the user database may take: it waits for its lock.
TIME = 60.0


class UserNotMade(SlapOSError):
    """A user or group could not be made."""

    code = "user_not_made"


class Accounts:
    """The user database of this machine; `dry_run` only says what would be done."""

    def __init__(self, runner: Runner, environment: Mapping[str, str], *, dry_run: bool) -> None:
        self._runner = runner
        self._environment = environment
        self._dry_run = dry_run

    def ensure(self, name: str, home: Path, *, group: str | None = None) -> None:
        """Have a user with a group of its own, and a member of `group`. Raises UserNotMade."""
        if not _has_group(name):
            self._run("groupadd", "--system", name)
        if not _has_user(name):
            more = ["--groups", group] if group else []
            self._run(
                *("useradd", "--system", "--home-dir", str(home), "--gid", name),
                *("--shell", "/bin/sh", "--no-create-home", *more, name),
            )
        elif group is not None and not _is_member(name, group):
            self._run("usermod", "--append", "--groups", group, name)

    def owner(self, name: str) -> tuple[int, int] | None:
        """Return uid and gid of a user, None where there is no such user (yet)."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return entry.pw_uid, entry.pw_gid

    def _run(self, *words: str) -> None:
        logger.info("%s%s", "would run: " if self._dry_run else "", " ".join(words))
        if self._dry_run:
            return
        try:
            self._runner.run(words, cwd=Path("/"), environment=self._environment, timeout=TIME)
        except CommandFailed as error:
            raise UserNotMade(f"'{' '.join(words)}' failed: {error.output or error}") from error


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _is_member(name: str, group: str) -> bool:
    try:
        return name in grp.getgrnam(group).gr_mem
    except KeyError:
        return False
