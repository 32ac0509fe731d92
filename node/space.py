"""Free space on disk."""

import os
from pathlib import Path

from slapos.protocol.errors import SlapOSError


class DiskFull(SlapOSError):
    """There is too little free space to begin."""

    code = "disk_full"


def check_free_space(path: Path, least: int, setting: str) -> None:
    """See that a folder, or the nearest one above it, has `least` bytes free. Raises DiskFull."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < least:
        raise DiskFull(
            f"only {free // 1024**2} MiB are free at {path}, {least // 1024**2} MiB are wanted: "
            f"make room, or lower {setting} in [slapos]"
        )
