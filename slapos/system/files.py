"""Files that are whole at any moment: written beside, synced, then put in place."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_if_changed(
    path: Path, content: str | bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> bool:
    """Make `path` hold `content` with `mode` (and `owner`: uid, gid); return whether it changed.

    A reader, and a crash at any point, sees either the old file or the new one.
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
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return True


def _is_already(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> bool:
    try:
        status = path.lstat()
        if (status.st_mode & 0o7777) != mode or path.is_symlink():
            return False
        if owner is not None and (status.st_uid, status.st_gid) != owner:
            return False
        return path.read_bytes() == data
    except OSError:
        return False
