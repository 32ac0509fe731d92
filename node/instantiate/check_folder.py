"""See that a partition's folder is there, and closed to others."""

import stat
from pathlib import Path

from slapos.node.instantiate.step import StepFailed
from slapos.node.users import Account, owner_of

MODE = 0o750


def check_folder(folder: Path) -> Account:
    """Return whom the partition belongs to. Raises StepFailed, WrongOwner."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        raise StepFailed(
            f"its directory {folder} is not there", remedy="make it with 'slapos node format'"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StepFailed(f"{folder} is no directory", remedy="remove it, then 'slapos node format'")
    mode = stat.S_IMODE(status.st_mode)
    if mode != MODE:
        raise StepFailed(
            f"its directory {folder} has the mode {mode:04o}, and {MODE:04o} is needed",
            remedy=f"chmod {MODE:04o} {folder}",
        )
    return owner_of(folder)
