"""Have systemd run this master, now and at each start of the machine.

It writes a unit file for `slapos master start`, enables it and starts it; `systemctl reload` then
takes over new settings, certificates and code without a lost request. The master runs as the owner
of its data directory. A unit file that somebody has changed is left alone unless --force is given.

With --user it is a unit of the user's own systemd; for it to run while the user is not logged in:
loginctl enable-linger.

examples:
  slapos master install-service --dry-run
  slapos master install-service
  slapos master install-service --undo

exit status: 0 done, 1 failed or refused
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from slapos.command.master_options import (
    add_master_arguments,
    master_configuration,
    master_settings,
)
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.runner import SystemRunner
from slapos.system.settings import environment
from slapos.system.systemd_unit import ServiceManagerFailed, Unit, has_systemd, install, remove

logger = logging.getLogger(__name__)

#: Seconds that systemd gets: the master tells it when it listens.
TIME = 360.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("--user", action="store_true", help="as a service of this user")
    parser.add_argument("--dry-run", action="store_true", help="show the unit, change nothing")
    parser.add_argument("--undo", action="store_true", help="end the master and remove the unit")
    parser.add_argument("--force", action="store_true", help="also a unit that was changed")


def run(arguments: argparse.Namespace) -> int:
    """Install the service, or remove it."""
    unit = _unit(arguments)
    if arguments.dry_run:
        print(f"# {unit.path}\n{unit.text}", end="")
        return 0
    if not arguments.user and os.geteuid() != 0:
        raise InvalidConfiguration("this is for root: run it as root, or install it with --user")
    if not has_systemd(environment(), is_user=unit.is_user):
        whose = "of this user " if unit.is_user else ""
        raise ServiceManagerFailed(
            f"no systemd {whose}runs here: have what starts programs on this machine run "
            f"'{shlex.join(_start(arguments))}', and start it again when it ends"
        )
    if arguments.undo:
        done = remove(unit, _run, force=arguments.force)
        logger.info("%s is removed" if done else "there is no %s", unit.path)
        return 0
    changed = install(unit, _run, force=arguments.force)
    logger.info("%s %s; the master runs", unit.path, "is written" if changed else "is as it was")
    return 0


def _unit(arguments: argparse.Namespace) -> Unit:
    from slapos.master.unit import render, unit_path  # noqa: PLC0415 - not for `--help`

    settings = master_settings(arguments)
    data = settings.data_directory
    assert data is not None
    if not data.is_dir():
        raise InvalidConfiguration(f"there is no {data}: `slapos master init` makes it")
    # By number: the owner need not have a name here.
    owner = "" if arguments.user or data.stat().st_uid == 0 else str(data.stat().st_uid)
    text = render(_start(arguments), [data], user=owner, is_user=arguments.user)
    path = unit_path(environment(), is_user=arguments.user)
    return Unit(path=path, text=text, is_user=arguments.user)


def _start(arguments: argparse.Namespace) -> list[str]:
    configuration = str(master_configuration(arguments))
    return [sys.executable, "-m", "slapos.command", "master", "start", "--cfg", configuration]


def _run(words: Sequence[str]) -> None:
    SystemRunner().run(words, cwd=Path("/"), environment=environment(), timeout=TIME)
