"""Have systemd run this node's agent, now and at each start of the machine.

It writes a unit file for `slapos node run`, enables it and starts it. The agent is started again
whenever it ends; ending it, or installing it anew, touches no service. A unit file that somebody
has changed is left alone unless --force is given.

With --user it is a unit of the user's own systemd, for a node with root_check = false; for it to
run while the user is not logged in: loginctl enable-linger.

examples:
  slapos node install-service --dry-run
  slapos node install-service --cfg /etc/opt/slapos/slapos.cfg
  slapos node install-service --undo

exit status: 0 done, 1 failed or refused, 5 root is needed
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from slapos.command.machine_configuration import is_standalone, machine_configuration
from slapos.command.node_options import add_configuration
from slapos.node.agent.unit import render, unit_path
from slapos.node.outcome import ExitStatus
from slapos.node.settings import NodeSettings, read_format_settings, read_node_settings
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.runner import SystemRunner
from slapos.system.settings import environment
from slapos.system.systemd_unit import ServiceManagerFailed, Unit, has_systemd, install, remove

logger = logging.getLogger(__name__)

#: Seconds that systemd gets: the agent tells it when it is at work.
TIME = 360.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("--user", action="store_true", help="as a service of this user")
    parser.add_argument("--dry-run", action="store_true", help="show the unit, change nothing")
    parser.add_argument("--undo", action="store_true", help="end the agent and remove the unit")
    parser.add_argument("--force", action="store_true", help="also a unit that was changed")


def run(arguments: argparse.Namespace) -> int:
    """Install the service, or remove it."""
    configuration = Path(os.path.abspath(machine_configuration(arguments.cfg, environment())))
    settings = read_node_settings(configuration, {}, quiet=True)
    unit = _unit(configuration, settings, is_user=arguments.user)
    if arguments.dry_run:
        print(f"# {unit.path}\n{unit.text}", end="")
        return ExitStatus.DONE
    if not arguments.user and os.geteuid() != 0:
        logger.error("this is for root: run it as root, or install it with --user")
        return ExitStatus.NOT_ROOT
    _check_systemd(unit, configuration)
    if arguments.undo:
        if remove(unit, _run, force=arguments.force):
            logger.info("%s is removed; supervisord and the services run on", unit.path)
        else:
            logger.info("there is no %s", unit.path)
        return ExitStatus.DONE
    _check_settings(configuration, settings, is_user=arguments.user)
    changed = install(unit, _run, force=arguments.force)
    logger.info("%s %s; the agent runs", unit.path, "is written" if changed else "is as it was")
    return ExitStatus.DONE


def _unit(configuration: Path, settings: NodeSettings, *, is_user: bool) -> Unit:
    text = render(
        settings.computer_id,
        [sys.executable, "-m", "slapos.command", str(configuration)],
        (settings.software_root, settings.instance_root),
        is_user=is_user,
        formats=not is_user and _puts_addresses(configuration),
    )
    return Unit(path=unit_path(environment(), is_user=is_user), text=text, is_user=is_user)


def _puts_addresses(configuration: Path) -> bool:
    try:
        return read_format_settings(configuration, {}).on_interfaces
    except InvalidConfiguration:
        return False


def _check_settings(configuration: Path, settings: NodeSettings, *, is_user: bool) -> None:
    if is_standalone(configuration):
        raise InvalidConfiguration(
            f"{configuration} is a standalone's, which runs an agent of its own: name the settings "
            "of a node with --cfg"
        )
    if is_user and settings.root_check and os.geteuid() != 0:
        raise InvalidConfiguration(
            f"the agent would refuse to run as this user: set root_check = false in {configuration}"
        )


def _check_systemd(unit: Unit, configuration: Path) -> None:
    if not has_systemd(environment(), is_user=unit.is_user):
        words = [sys.executable, "-m", "slapos.command", "node", "run", "--cfg", str(configuration)]
        whose = "of this user " if unit.is_user else ""
        raise ServiceManagerFailed(
            f"no systemd {whose}runs here: have what starts programs on this machine run "
            f"'{shlex.join(words)}', and start it again when it ends"
        )


def _run(words: Sequence[str]) -> None:
    SystemRunner().run(words, cwd=Path("/"), environment=environment(), timeout=TIME)
