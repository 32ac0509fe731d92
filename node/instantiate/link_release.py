"""See that the release is built, and let the partition point at it."""

import os
from contextlib import suppress

from slapos.node.build.folder import COMPLETED
from slapos.node.doors import Doors
from slapos.node.instantiate.step import ReleaseNotBuilt, Work

NAME = "software_release"


def link_release(work: Work, doors: Doors) -> None:
    """Refresh the link `software_release`. Raises ReleaseNotBuilt."""
    release = work.software()
    if not (release / COMPLETED).is_file():
        raise ReleaseNotBuilt(
            f"its software release {work.wanted.software_url} is not built yet ({release})",
            remedy="build it with 'slapos node software', which says what is wrong if it cannot",
        )
    link = work.folder / NAME
    if link.is_symlink():
        if os.readlink(link) == str(release):
            return
    elif link.exists():
        return  # the instance keeps something of its own under this name
    fresh = work.folder / f".{NAME}.new"
    with suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(release)
    fresh.replace(link)
