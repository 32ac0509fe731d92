"""Look whether this master can do its work, and say what to do where it cannot.

It looks at the settings, disk space, certificate, web server, secret file, database, clock,
certificate authority, tasks, nodes and administrators. It changes nothing.

examples:
  slapos master doctor
  slapos master doctor --json

exit status: 0 no problem (perhaps warnings), 1 a problem
"""

import argparse
from collections.abc import Iterator

from slapos.command.findings import show_findings
from slapos.command.master_options import (
    add_master_arguments,
    master_configuration,
    master_settings,
)
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.clock import SystemClock
from slapos.system.finding import Finding, ok, problem, warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Make the checks, and show what each found as soon as it has."""
    return show_findings(_findings(arguments), as_json=arguments.json, quiet=arguments.quiet)


def _findings(arguments: argparse.Namespace) -> Iterator[tuple[str, Finding]]:
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master.doctor.examine import examine  # noqa: PLC0415

    path = master_configuration(arguments)
    try:
        settings = master_settings(arguments)
    except InvalidConfiguration as error:
        yield "configuration", problem(str(error), f"correct {path}, or name another with --cfg")
        return
    if path.stat().st_mode & 0o077:
        yield (
            "configuration",
            warning(
                f"others may read {path}, which may hold the database's password",
                f"chmod 600 {path}",
            ),
        )
    else:
        yield "configuration", ok(f"{path} can be used")
    yield from examine(settings, SystemClock())
