"""What the commands of the node share: options, settings, locks, the check for root."""

import argparse
import logging
import os
from collections.abc import Callable

from slapos.command.machine_configuration import DEFAULT_TEXT, machine_configuration
from slapos.node.assembly import make_doors
from slapos.node.doors import Doors
from slapos.node.enrolment.renewal import renew_in_passing
from slapos.node.outcome import ExitStatus
from slapos.node.settings import NodeSettings, read_node_settings
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from slapos.system.process_lock import AlreadyRunning, process_lock
from slapos.system.settings import environment

logger = logging.getLogger(__name__)

#: Seconds that a command waits for another one, mostly a pass of the node's loop, to end.
PATIENCE = 5.0

#: Options of a command line that stand for keys of [slapos]: flag, key, kind, help.
_SETTINGS: tuple[tuple[str, type, str], ...] = (
    ("--instance-root", str, "where the partitions are"),
    ("--software-root", str, "where the software releases are"),
    ("--master-url", str, "the master's URL"),
    ("--computer-id", str, "this node's reference"),
    ("--pidfile", str, "the file that keeps the command from running twice"),
    ("--key_file", str, "the node's private key"),
    ("--cert_file", str, "the node's certificate"),
    ("--master_ca_file", str, "the certificate of the master's authority"),
    ("--certificate_repository_path", str, "where the partitions' certificates are"),
    ("--maximum-periodicity", int, "seconds after which an instance is processed again"),
    ("--promise-timeout", float, "seconds that a promise may take"),
    ("--partition-timeout", float, "seconds that an instance's buildout may take"),
    ("--maximal_delay", int, "wait so many seconds at most, by chance, before beginning"),
)
#: Options of slapos.core that mean nothing here; scripts give them.
_IGNORED = (
    "--supervisord-socket",
    "--supervisord-configuration-path",
    "--buildout",
    "--signature_private_key_file",
)


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add `--cfg`."""
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help=f"the settings file (default: {DEFAULT_TEXT})",
    )


def add_pass_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the commands which make a pass share."""
    parser.add_argument("--now", action="store_true", help="begin at once, and try failures again")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--cfg`, and the options that go before the settings in the file."""
    add_configuration(parser)
    group = parser.add_argument_group("settings, instead of those in the file")
    for flag, kind, text in _SETTINGS:
        group.add_argument(flag, type=kind, metavar="VALUE", help=text)
    for flag in _IGNORED:
        group.add_argument(flag, help=argparse.SUPPRESS)


def node_settings(arguments: argparse.Namespace) -> NodeSettings:
    """Return the settings: the file's, and over them the options."""
    options = {
        name: getattr(arguments, name, None)
        for name in (flag.lstrip("-").replace("-", "_") for flag, _, _ in _SETTINGS)
    }
    return read_node_settings(machine_configuration(arguments.cfg, environment()), options)


def words(text: str | None) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def may_run(root_check: bool) -> bool:
    """Return whether we are root, or need not be; else say so."""
    if not root_check or os.geteuid() == 0:
        return True
    logger.error("this is for root: run it as root, or set root_check = false in [slapos]")
    return False


def run_pass(arguments: argparse.Namespace, kind: str, work: Callable[[Doors], int]) -> int:
    """Do `work` with the doors of the node, while no other command `sr`, `cp` or `ur` runs."""
    settings = node_settings(arguments)
    if not may_run(settings.root_check):
        return ExitStatus.NOT_ROOT
    wait_by_chance(0 if arguments.now else settings.maximal_delay)
    os.umask(0o027)
    try:
        with process_lock(settings.lock(kind), patience=PATIENCE):
            renew_in_passing(settings, SystemClock(), SystemIdentifiers())
            return work(make_doors(settings))
    except AlreadyRunning as error:
        logger.error("%s", error)
        return ExitStatus.ALREADY_RUNNING


def wait_by_chance(longest: int) -> None:
    """Wait, so that a thousand nodes do not ask one master in the same second."""
    if longest > 0:
        seconds = SystemIdentifiers().fraction() * longest
        logger.info("beginning in %.0f s", seconds)
        SystemClock().sleep(seconds)
