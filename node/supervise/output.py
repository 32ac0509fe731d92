"""Where what services print is kept.

supervisord opens these files as root, and opens them again whenever a service starts. In a folder
that the partition's user may write to, a link there would have it write anywhere, and a pipe would
stop it. So they are in a folder of root's, and the partition has links to them.
"""

import os
from contextlib import suppress
from pathlib import Path

from slapos.node.users import Account

#: Its user may read, through the group; other users may not even look.
MODE = 0o750


def make_output_folder(folder: Path, account: Account) -> None:
    """Make the folder of one group of services."""
    folder.parent.mkdir(exist_ok=True)
    folder.parent.chmod(0o755)
    folder.mkdir(exist_ok=True)
    if account.user is not None:
        os.chown(folder, 0, account.gid)
    folder.chmod(MODE)


def link_output(directory: Path, log: Path) -> None:
    """Have a link in the partition that leads to a log."""
    link = directory / log.name
    with suppress(OSError):
        if os.readlink(link) == str(log):
            return
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(log)
