"""Checks of disk and folders: space, roots, partitions, whom they belong to, who gets where."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from slapos.node.doctor.finding import Examined
from slapos.node.reachability import Unreachable, check_python, check_reachable
from slapos.node.users import Account, WrongOwner, owner_of, user_name
from slapos.system.finding import Finding, ok, problem, warning

#: The part of a disk's inodes below which little will fit any more, whatever space is free.
FEW_INODES = 0.02
PARTITION_MODE = 0o750


def check_space(examined: Examined) -> Iterator[Finding]:
    """See that both roots have the space that the settings want, and inodes."""
    settings = examined.doors.settings
    for root, least, key in (
        (settings.software_root, settings.software_min_free_space, "software_min_free_space"),
        (settings.instance_root, settings.instance_min_free_space, "instance_min_free_space"),
    ):
        if not root.is_dir():
            continue  # told by check_roots
        status = os.statvfs(root)
        free = status.f_bavail * status.f_frsize
        said = f"{root}: {free >> 20} MiB free, {least >> 20} MiB wanted ({key})"
        if free < least:
            yield problem(said, f"make room, or lower {key} in [slapos]")
        else:
            yield ok(said)
        # Some file systems count no inodes, and say 0.
        if status.f_files and status.f_favail < FEW_INODES * status.f_files:
            left = f"{root}: {status.f_favail} of {status.f_files} inodes are free"
            advice = "remove many small files"
            yield warning(left, advice) if status.f_favail else problem(left, advice)


def check_roots(examined: Examined) -> Iterator[Finding]:
    """See that the roots are there, and the software root belongs to who builds."""
    settings = examined.doors.settings
    for root in (settings.software_root, settings.instance_root):
        if not root.is_dir():
            yield problem(f"{root} is no directory", "run 'slapos node format'")
    if settings.software_root.is_dir():
        try:
            builder = owner_of(settings.software_root)
        except WrongOwner as error:
            yield problem(str(error), "run 'slapos node format'")
        else:
            yield ok(f"{settings.software_root}: releases are built as {builder.name}")


def check_partitions(examined: Examined) -> Iterator[Finding]:
    """See that each partition has its folder, with the right mode and owner."""
    known = examined.answer.information
    there = {folder.name for folder in examined.partitions}
    for reference in sorted({p.reference for p in known.partitions} - there if known else ()):
        yield problem(
            f"{reference}: the master knows it, and it has no folder here",
            "run 'slapos node format', with the partition_amount that it was formatted with",
        )
    well = 0
    for folder in examined.partitions:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            yield problem(f"{folder} is no directory of its own", "remove it, then format the node")
            continue
        mode = stat.S_IMODE(status.st_mode)
        if mode != PARTITION_MODE:
            said = f"{folder} has the mode {mode:04o} instead of {PARTITION_MODE:04o}"
            yield problem(said, f"chmod {PARTITION_MODE:04o} {folder}")
            continue
        try:
            owner_of(folder)
        except WrongOwner as error:
            yield problem(str(error), "run 'slapos node format'")
            continue
        well += 1
    if not there:
        yield warning("this node has no partitions", "run 'slapos node format'")
    else:
        yield ok(f"{well} of {len(there)} partitions have a folder of the right mode and owner")


def check_users(examined: Examined) -> Iterator[Finding]:
    """See that the users and groups whom the folders belong to exist."""
    if os.geteuid() != 0:
        yield ok(f"everything runs as {user_name(os.geteuid())}, there are no users to look for")
        return
    owners = {}
    for folder in (examined.doors.settings.software_root, *examined.partitions):
        if folder.is_dir():
            status = folder.lstat()
            owners[status.st_uid, status.st_gid] = folder
    missing = 0
    for (uid, gid), folder in owners.items():
        if not _is_known(pwd.getpwuid, uid):
            missing += 1
            yield problem(f"{folder} belongs to the user {uid}, who does not exist", _FORMAT)
        if not _is_known(grp.getgrgid, gid):
            missing += 1
            yield problem(f"{folder} belongs to the group {gid}, which does not exist", _FORMAT)
    if not missing:
        yield ok("the users and groups of all folders exist")


_FORMAT = "run 'slapos node format', which makes the users"


def check_reach(examined: Examined) -> Iterator[Finding]:
    """See that those users get to the Python of the node, to the releases, to their folders."""
    settings = examined.doors.settings
    accounts: dict[int, tuple[Account, Path]] = {}
    for folder in (settings.software_root, *examined.partitions):
        try:
            account = owner_of(folder)
        except (WrongOwner, OSError):
            continue  # told by other checks
        accounts.setdefault(account.uid, (account, folder))
    barred = 0
    for account, folder in accounts.values():
        try:
            check_python(account, examined.doors.python)
            check_reachable(account, settings.software_root / "release", "move software_root")
            check_reachable(account, folder / "file", "move instance_root")
        except Unreachable as error:
            barred += 1
            yield problem(str(error), "then run 'slapos node doctor' again")
    if not barred:
        yield ok(f"{examined.doors.python} and the roots can be reached by all who need them")


def _is_known(look_up: Callable[[int], object], number: int) -> bool:
    try:
        look_up(number)
    except KeyError:
        return False
    return True
