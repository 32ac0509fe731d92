"""Files below a folder that a less trusted user owns: opened without following a link anywhere.

The node runs as root and works in folders of users who may put a link where a file or folder was.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.files import write_if_changed

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafePath(SlapOSError):
    """A link, a device or the like stands where a plain file or folder has to be."""

    code = "unsafe_path"


def open_folder(root: Path, relative: str, *, owner: tuple[int, int] | None = None) -> int:
    """Return a descriptor of the folder `relative` below `root`.

    With `owner` (uid, gid) what is missing is made, mode 0755, and given to the owner.
    Raises FileNotFoundError without an owner, UnsafePath.
    """
    current = os.open(root, FOLDER)
    try:
        for part in Path(relative).parts:
            is_new = False
            if owner is not None:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
                    is_new = True
            following = _open_part(part, current, root / relative)
            os.close(current)
            current = following
            if is_new:
                os.fchmod(current, 0o755)  # whatever the umask is
            if owner is not None and os.fstat(current).st_uid != owner[0] and os.geteuid() == 0:
                os.fchown(current, *owner)
    except BaseException:
        os.close(current)
        raise
    return current


def _open_part(part: str, folder: int, shown: Path) -> int:
    try:
        return os.open(part, FOLDER, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsafePath(
            f"{shown} cannot be used: {part!r} in it is no folder of its own "
            f"({error.strerror}); remove it"
        ) from error


def open_file(folder: int, name: str, flags: int, mode: int = 0o640) -> int:
    """Return a descriptor of the plain file `name` in an open folder. Raises UnsafePath."""
    try:
        descriptor = os.open(
            name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=folder
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsafePath(f"{name!r} cannot be opened: {error.strerror}; remove it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePath(f"{name!r} is no plain file; remove it")
    return descriptor


def read_beneath(root: Path, relative: str, limit: int = 1_000_000) -> bytes | None:
    """Return the first `limit` bytes of a file below `root`, None where there is none.

    Raises UnsafePath.
    """
    path = Path(relative)
    try:
        folder = open_folder(root, str(path.parent))
    except FileNotFoundError:
        return None
    try:
        with os.fdopen(open_file(folder, path.name, os.O_RDONLY), "rb") as stream:
            return stream.read(limit)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)


def write_beneath(
    root: Path,
    relative: str,
    content: str | bytes,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
) -> bool:
    """Do what `write_if_changed` does, for a file below `root` in a folder that is there.

    Raises UnsafePath.
    """
    path = Path(relative)
    folder = open_folder(root, str(path.parent))
    try:
        # The kernel takes this for the very folder that is open, whatever its path leads to now.
        here = Path(f"/proc/self/fd/{folder}")
        return write_if_changed(here / path.name, content, mode=mode, owner=owner)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / relative)) from error
    finally:
        os.close(folder)
