"""Whether another user gets to a file: so that a failure says which folder bars the way."""

import os
import sys
from pathlib import Path

import slapos.protocol
from slapos.node.users import Account
from slapos.protocol.errors import SlapOSError


class Unreachable(SlapOSError):
    """A user that has to cannot get to a file."""

    code = "unreachable"


def check_python(account: Account, python: str) -> None:
    """See that a user can start the Python of the node with the package slapos in it.

    Raises Unreachable.
    """
    package = Path(next(iter(slapos.protocol.__path__)))
    for path in (Path(python), Path(sys.prefix), Path(sys.base_prefix), package):
        check_reachable(account, path, "install slapos where every user can read it (as in /opt)")


def check_reachable(account: Account, path: Path, remedy: str) -> None:
    """See that a user can get to `path`, which need not exist. Raises Unreachable."""
    if account.user is None:
        return
    for shown in dict.fromkeys((path, Path(os.path.realpath(path)))):
        barrier = find_barrier(account, shown)
        if barrier is not None:
            raise Unreachable(
                f"the user {account.name} cannot get to {shown}, because {barrier} is closed to "
                f"it: open it with 'chmod o+x {barrier}', or {remedy}"
            )


def find_barrier(account: Account, path: Path) -> Path | None:
    """Return the first folder on the way to `path` that the user may not enter."""
    for folder in reversed(path.parents):
        try:
            status = folder.stat()
        except OSError:
            return None
        groups = account.user.groups if account.user is not None else ()
        if status.st_uid == account.uid:
            bit = 0o100
        elif status.st_gid in (account.gid, *groups):
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return folder
    return None
