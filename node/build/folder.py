"""What the node puts into a release's folder: buildout.cfg, bin/buildout, `.completed`."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from slapos.node.settings import NodeSettings
from slapos.node.users import Account
from slapos.protocol.errors import InvalidRequest
from slapos.system.files import write_if_changed

COMPLETED = ".completed"

_SCRIPT = """\
#!{python}
import sys

from slapos.recipes.buildout.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def prepare_folder(folder: Path, account: Account) -> None:
    """Make a release's folder, owned by the software user."""
    if folder.is_symlink():
        raise InvalidRequest(f"{folder} is a link, not a folder of its own: remove it")
    for path in (folder, folder / "bin", folder / "extends-cache"):
        if not path.is_dir():
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            if account.user is not None:
                os.chown(path, *account.owner)


def write_files(
    folder: Path, url: str, settings: NodeSettings, account: Account, python: str
) -> None:
    """Write buildout.cfg and bin/buildout as the settings want them now."""
    if any(ord(character) < 32 for character in url):
        raise InvalidRequest(f"the release URL {url!r} has control characters")
    text = f"[buildout]\nextends = {url}\n"
    for name, paths in (
        ("shared-part-list", settings.shared_part_list),
        ("build-time-part-list", settings.build_time_part_list),
    ):
        text += f"{name} ={''.join(f'{chr(10)}  {path}' for path in paths)}\n"
    owner = account.owner if account.user is not None else None
    write_if_changed(folder / "buildout.cfg", text, owner=owner)
    script = _SCRIPT.format(python=python)
    write_if_changed(folder / "bin" / "buildout", script, mode=0o755, owner=owner)


def copy_netrc(folder: Path, account: Account, home: Path) -> None:
    """Give a build the software user's `.netrc`, for downloads that want a password."""
    target = folder / ".netrc"
    try:
        content = (home / ".netrc").read_bytes()
    except OSError:
        target.unlink(missing_ok=True)
        return
    owner = account.owner if account.user is not None else None
    write_if_changed(target, content, mode=0o600, owner=owner)


def forget_extends(folder: Path) -> None:
    """Have remote profiles fetched anew."""
    shutil.rmtree(folder / "extends-cache", ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a release, or any folder, with all that is in it, read-only folders included.

    Its mark of completion goes first: what is left by a removal that was cut short is no release.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    (folder / COMPLETED).unlink(missing_ok=True)
    if not folder.exists():
        return
    if os.geteuid() != 0:  # root needs no leave, and must not follow a link that is put here now
        for path, _folders, _files in os.walk(folder):
            with suppress(PermissionError):
                os.chmod(path, 0o700)
    shutil.rmtree(folder)
