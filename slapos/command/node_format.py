"""Prepare this machine: a user, a directory and an address for each partition; tell the master.

As root, what is missing is made and what is there is left alone. As an ordinary user, with
alter_user = false in [slapformat], only directories are made, and all instances run as that user.

With interface_name in [slapformat], addresses, IPv6 ranges, taps and tuns are put on interfaces;
see them before with --dry-run, take them away again with --undo.

exit status: 0 done, 1 failed, 2 done, but the master could not be told
"""

import argparse

from slapos.command.machine_configuration import machine_configuration
from slapos.command.node_options import add_configuration, may_run, wait_by_chance
from slapos.node.assembly import make_client, make_firewall
from slapos.node.enrolment.renewal import renew_in_passing
from slapos.node.format.format import format_node, undo
from slapos.node.outcome import ExitStatus
from slapos.node.settings import read_format_settings
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from slapos.system.runner import SystemRunner
from slapos.system.settings import clean_environment, environment

_BOOLEAN = ("True", "False", "true", "false")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("--now", action="store_true", help="begin at once")
    parser.add_argument(
        *("-n", "--dry-run", "--dry_run"),
        action="store_true",
        help="say what would be done, and do nothing",
    )
    parser.add_argument(
        "--undo",
        action="store_true",
        help="remove the addresses, routes, taps and tuns that format added, nothing else",
    )
    parser.add_argument("-x", "--computer_xml", metavar="FILE", help="write what the node has, XML")
    parser.add_argument("--computer_json", metavar="FILE", help="the same as JSON")
    parser.add_argument(
        *("-i", "--input_definition_file"), metavar="FILE", help="take users and addresses from it"
    )
    parser.add_argument(
        *("-o", "--output_definition_file"), metavar="FILE", help="write such a file"
    )
    parser.add_argument("--alter_user", choices=_BOOLEAN, help="make users (needs root)")
    parser.add_argument("--alter_network", choices=_BOOLEAN, help="add addresses to interfaces")
    parser.add_argument("-c", "--console", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Format the node."""
    names = ("computer_xml", "computer_json", "input_definition_file", "output_definition_file")
    options = {name: getattr(arguments, name) for name in (*names, "alter_user", "alter_network")}
    if arguments.dry_run:
        options["dry_run"] = True
    settings = read_format_settings(machine_configuration(arguments.cfg, environment()), options)
    if settings.alter_user and not may_run(settings.root_check):
        return ExitStatus.NOT_ROOT
    if arguments.undo:
        if not settings.dry_run:
            make_firewall(settings, is_wanted=False).remove()
        return undo(settings)
    wait_by_chance(0 if arguments.now else settings.maximal_delay)
    if not settings.dry_run:
        renew_in_passing(settings, SystemClock(), SystemIdentifiers())
    return format_node(
        settings,
        make_client(settings),
        SystemRunner(),
        clean_environment(environment()),
        SystemClock(),
    )
