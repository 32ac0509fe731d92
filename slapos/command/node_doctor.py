"""Look whether this node can do its work, and say what to do where it cannot.

It looks at the settings, disk space, folders, users, addresses, the master, the clock,
certificates, the agent, supervisord and its processes, at releases and instances that failed, and
for processes that were left behind. It changes nothing. As root it sees most.

examples:
  slapos node doctor
  slapos node doctor --json

exit status: 0 no problem (perhaps warnings), 1 a problem
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from slapos.command.findings import show_findings
from slapos.command.machine_configuration import is_standalone, machine_configuration
from slapos.command.node_options import add_configuration
from slapos.node.agent.unit import unit_path
from slapos.node.assembly import make_doors
from slapos.node.doctor.examine import check_configuration, examine
from slapos.node.settings import NodeSettings, read_node_settings
from slapos.system.finding import Finding, Level
from slapos.system.settings import environment
from slapos.system.systemd_unit import has_systemd

#: Seconds that the master may be silent here.
PATIENCE = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Make the checks, and show what each found as soon as it has."""
    return show_findings(_findings(arguments), as_json=arguments.json, quiet=arguments.quiet)


def _findings(arguments: argparse.Namespace) -> Iterator[tuple[str, Finding]]:
    path = machine_configuration(arguments.cfg, environment())
    found = list(check_configuration(path))
    yield from (("configuration", finding) for finding in found)
    if any(finding.level is Level.PROBLEM for finding in found):
        return
    settings = read_node_settings(path, {}, quiet=True)
    patience = min(settings.request_timeout, PATIENCE)
    doors = make_doors(replace(settings, request_timeout=patience))
    yield from examine(doors, _unit_file(path, settings))


def _unit_file(configuration: Path, settings: NodeSettings) -> Path | None:
    """Return where the unit file of the agent belongs, None where systemd is not to run it."""
    is_user = os.geteuid() != 0 and not settings.root_check
    if is_standalone(configuration) or not has_systemd(environment(), is_user=is_user):
        return None
    return unit_path(environment(), is_user=is_user)
