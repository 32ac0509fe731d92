"""Whom things run as: the owner of the folder they work in."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.runner import User


class WrongOwner(SlapOSError):
    """A folder belongs to somebody it must not belong to."""

    code = "wrong_owner"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of this machine. `user` is what a Runner takes: None when it is ourselves."""

    name: str
    uid: int
    gid: int
    user: User | None

    @property
    def owner(self) -> tuple[int, int]:
        """Return uid and gid."""
        return self.uid, self.gid


def owner_of(folder: Path) -> Account:
    """Return the user that works in a folder: its owner.

    Raises WrongOwner when that is root, or when we are not root and it is somebody else.
    """
    status = folder.stat()
    if os.geteuid() == 0:
        if status.st_uid == 0:
            raise WrongOwner(
                f"{folder} belongs to root, and nothing is run as root in it: give it to its user "
                "with 'slapos node format', or with chown"
            )
    elif status.st_uid != os.geteuid():
        raise WrongOwner(
            f"{folder} belongs to {user_name(status.st_uid)}, not to {user_name(os.geteuid())}: "
            "run this as its owner or as root, or give it to yourself with chown"
        )
    return account_of(status.st_uid, status.st_gid)


def account_of(uid: int, gid: int) -> Account:
    """Return the user of that number, with all its groups where we may take them on."""
    name = user_name(uid)
    if os.geteuid() != 0:
        return Account(name=name, uid=uid, gid=gid, user=None)
    try:
        groups = tuple(os.getgrouplist(name, gid))
    except OSError:
        groups = (gid,)
    return Account(name=name, uid=uid, gid=gid, user=User(uid, gid, groups))


def user_name(uid: int) -> str:
    """Return the name of a user, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
