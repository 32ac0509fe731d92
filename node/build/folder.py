"""What the node puts into a release's folder: buildout.cfg, bin/buildout, `.completed`."""

import os
from pathlib import Path

from slapos.node.beneath import open_folder, read_beneath, write_beneath
from slapos.node.settings import NodeSettings
from slapos.node.users import Account
from slapos.protocol.errors import InvalidRequest
from slapos.system.files import remove_tree

COMPLETED = ".completed"

_SCRIPT = """\
#!{python}
import sys

from slapos.recipes.buildout.main import main

if __name__ == "__main__":
    sys.exit(main())
"""


def prepare_folder(folder: Path, account: Account) -> None:
    """Make a release's folder, owned by the software user. Raises UnsafePath."""
    root = folder.parent.resolve()
    for name in (folder.name, f"{folder.name}/bin", f"{folder.name}/extends-cache"):
        os.close(open_folder(root, name, owner=account.owner))


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
    write_beneath(folder, "buildout.cfg", text, owner=owner)
    write_beneath(folder, "bin/buildout", buildout_script(python), mode=0o755, owner=owner)


def buildout_script(python: str) -> str:
    """Return the `bin/buildout` of a release that is built with `python`."""
    return _SCRIPT.format(python=python)


def copy_netrc(folder: Path, account: Account, home: Path) -> None:
    """Give a build the software user's `.netrc`, for downloads that want a password.

    The home is writable for builds: a link in it is not followed to what only root may read.
    """
    content = read_beneath(home.resolve(), ".netrc")
    if content is None:
        (folder / ".netrc").unlink(missing_ok=True)
        return
    owner = account.owner if account.user is not None else None
    write_beneath(folder, ".netrc", content, mode=0o600, owner=owner)


def forget_extends(folder: Path) -> None:
    """Have remote profiles fetched anew."""
    remove_tree(folder / "extends-cache")


def remove_release(folder: Path) -> None:
    """Remove a release.

    Its mark of completion goes first: what is left by a removal that was cut short is no release.
    """
    if folder.is_dir() and not folder.is_symlink():
        (folder / COMPLETED).unlink(missing_ok=True)
    remove_tree(folder)
