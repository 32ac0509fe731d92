"""The file with the key of what is encrypted in the database, and nothing else.

It is one line of letters and digits, readable by its owner only, and the same on all machines of
a master. Whoever has it and the database can act as the master; without it, what is encrypted is
lost.
"""

import os
import stat
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.identifier import Identifiers

#: Characters of a secret that is made; of letters and digits, so about 380 bits.
LENGTH = 64
#: A secret that somebody made has to have so many.
SHORTEST = 32


class SecretUnusable(SlapOSError):
    """The secret file is missing, empty, or others may read it."""

    code = "secret_unusable"


def make_secret_file(path: Path, identifiers: Identifiers) -> bool:
    """Make the file unless it is there; return whether it was made. Never half, never replaced."""
    beside = path.with_name(f".{path.name}.{identifiers.token(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"{identifiers.token(LENGTH)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(beside, path)  # fails where there is one, which another process may just have made
    except FileExistsError:
        return False
    finally:
        beside.unlink()
    return True


def read_secret(path: Path) -> bytes:
    """Return the secret; raise SecretUnusable when others may read it, or there is none."""
    remedy = (
        "copy it from another machine of this master, or from a backup: what is encrypted cannot "
        "be read without"
    )
    return read_private(path, "secret file", SHORTEST, f"; {remedy}")


def read_private(path: Path, what: str, shortest: int, remedy: str = "") -> bytes:
    """Return what is in a file, without space around; raise SecretUnusable when it is missing.

    Likewise when others than its owner may read it, or when it is shorter than `shortest`.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            secret = stream.read().strip()
    except OSError as error:
        raise SecretUnusable(
            f"the {what} {path} cannot be read: {error.strerror}{remedy}"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise SecretUnusable(
            f"others than its owner may read the {what} {path} (mode "
            f"{stat.S_IMODE(mode):o}): see who could have read it, then: chmod 600 {path}"
        )
    if len(secret) < shortest:
        raise SecretUnusable(
            f"the {what} {path} has {len(secret)} characters, at least {shortest} are needed"
            f"{remedy}"
        )
    return secret
