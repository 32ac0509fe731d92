"""Directories: made, and given their mode and owner, where they have not got them."""

import logging
import os
import stat
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration

logger = logging.getLogger(__name__)


def ensure_folder(
    path: Path, mode: int, owner: tuple[int, int] | None = None, *, dry_run: bool = False
) -> None:
    """Have the folder `path` with `mode` and `owner` (uid, gid). Raises InvalidConfiguration."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        logger.info("%s %s", "would make" if dry_run else "making", path)
        if dry_run:
            return
        path.mkdir(parents=True)
        status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidConfiguration(f"{path} is no directory of its own: remove it")
    if dry_run:
        return
    if owner is not None and (status.st_uid, status.st_gid) != owner:
        logger.info("giving %s to %s:%s", path, *owner)
        os.lchown(path, *owner)
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)
