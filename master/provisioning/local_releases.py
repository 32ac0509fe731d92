"""Releases that are files here: when their folder has moved, so have they."""

from os.path import isfile
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import LocalReleaseRoot, SoftwareInstallation
from slapos.master.provisioning.model import SoftwareInstance
from slapos.system.clock import Clock

#: What paths go by as long as no folder was named.
EVERYWHERE = Path("/")


def follow_local_releases(session: Session, clock: Clock, root: Path | None) -> list[str]:
    """Make the paths of releases go by a new folder, and return those that were changed.

    Nothing changes when the folder is the one of last time, or one of the two is in the other.
    """
    remembered = session.scalar(select(LocalReleaseRoot))
    old = Path(remembered.path) if remembered is not None else EVERYWHERE
    new = root or EVERYWHERE
    if old == new:
        return []
    if remembered is None:
        session.add(LocalReleaseRoot(path=str(new)))
    else:
        remembered.path = str(new)
    if new.is_relative_to(old) or old.is_relative_to(new):
        return []
    return _move(session, clock, old, new)


def _move(session: Session, clock: Clock, old: Path, new: Path) -> list[str]:
    moved = set()
    for installation in session.scalars(select(SoftwareInstallation)).all():
        url = _moved(installation.url, old, new)
        if url != installation.url:
            moved.add(installation.url)
            installation.url = url
    for instance in session.scalars(select(SoftwareInstance)).all():
        url = _moved(instance.software_url, old, new)
        if url != instance.software_url:
            moved.add(instance.software_url)
            instance.software_url = url
            instance.mark_changed(clock.now())
    session.flush()
    return sorted(moved)


def _moved(url: str, old: Path, new: Path) -> str:
    """Return the path of a release below the new folder, or as it is if it has not moved there."""
    if urlsplit(url).scheme or not Path(url).is_relative_to(old):
        return url
    moved = str(new / Path(url).relative_to(old))
    return url if isfile(url) and not isfile(moved) else moved
