"""Files that are whole at any moment: written beside, synced, then put in place."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def write_if_changed(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    synced: bool = True,
) -> bool:
    """Make `path` hold `content` with `mode` (and `owner`: uid, gid); return whether it changed.

    A reader, and a crash at any point, sees either the old file or the new one; when it is not
    `synced` and the machine loses its power, perhaps neither.
    """
    data = content.encode() if isinstance(content, str) else content
    if _is_already(path, data, mode, owner):
        return False
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            if synced:
                os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return True


def _is_already(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> bool:
    try:
        # Another user may own the folder: no link is followed, no pipe or endless file read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != mode:
            return False
        if owner is not None and (status.st_uid, status.st_gid) != owner:
            return False
        return status.st_size == len(data) and stream.read(len(data) + 1) == data


def sync_folder(path: Path) -> None:
    """Have it on disk which files a folder holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds, read-only folders included.

    No link is followed, not even one that is put there meanwhile.
    """
    try:
        is_folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        path.unlink()
        return
    if os.geteuid() != 0:  # root needs no leave, and chmod would follow a link
        for folder in folders_of(path):
            with suppress(PermissionError):  # an empty one goes also when it is another's
                folder.chmod(0o700)
    shutil.rmtree(path)


def folders_of(path: Path) -> Iterator[Path]:
    """Yield a folder, and then what folders are in it, links not followed."""
    yield path
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            yield from folders_of(Path(entry.path))
