"""All checks, in the order in which they are shown."""

from collections.abc import Iterator
from pathlib import Path

from slapos.node.doctor.addresses import check_addresses
from slapos.node.doctor.agent import check_agent
from slapos.node.doctor.finding import Check, Examined
from slapos.node.doctor.folders import (
    check_partitions,
    check_reach,
    check_roots,
    check_space,
    check_users,
)
from slapos.node.doctor.isolation import check_firewall, check_limits
from slapos.node.doctor.master import ask_master, check_certificates, check_clock, check_master
from slapos.node.doctor.records import check_instances, check_releases, check_reports
from slapos.node.doctor.supervision import check_leftovers, check_processes, check_supervisord
from slapos.node.doors import Doors
from slapos.node.outcome import described
from slapos.node.settings import read_node_settings, unknown_keys
from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.system.finding import Finding, ok, problem, warning

CHECKS: tuple[tuple[str, Check], ...] = (
    ("disk", check_space),
    ("roots", check_roots),
    ("partitions", check_partitions),
    ("users", check_users),
    ("reach", check_reach),
    ("addresses", check_addresses),
    ("master", check_master),
    ("clock", check_clock),
    ("certificates", check_certificates),
    ("agent", check_agent),
    ("supervisord", check_supervisord),
    ("processes", check_processes),
    ("limits", check_limits),
    ("firewall", check_firewall),
    ("releases", check_releases),
    ("instances", check_instances),
    ("reports", check_reports),
    ("leftovers", check_leftovers),
)
#: Folders of the instance root that are no partitions.
_OWN = ("etc", "var")


def check_configuration(path: Path) -> Iterator[Finding]:
    """See that the settings file can be used: without it, nothing else can be looked at."""
    try:
        read_node_settings(path, {}, quiet=True)
        unknown = unknown_keys(path)
    except InvalidConfiguration as error:
        yield problem(str(error), f"correct {path}; its keys are in docs/reference/node.md")
        return
    for said in unknown:
        yield warning(said, "correct its name, or remove it")
    yield ok(f"{path} can be used")


def examine(doors: Doors, unit: Path | None = None) -> Iterator[tuple[str, Finding]]:
    """Make all checks; yield their names with what they found. `unit` is as in Examined.

    A check that cannot be made is a problem too, and does not hinder the others.
    """
    settings = doors.settings
    examined = Examined(
        doors=doors,
        partitions=partition_folders(settings.instance_root),
        answer=ask_master(doors.client, settings.computer_id, doors.clock),
        unit=unit,
    )
    for name, check in CHECKS:
        try:
            for finding in check(examined):
                yield name, finding
        except (OSError, SlapOSError) as error:
            yield name, problem(f"it could not be checked: {described(error)}", "run it as root")


def partition_folders(instance_root: Path) -> tuple[Path, ...]:
    """Return what is there of partitions, whatever it is."""
    try:
        return tuple(
            path
            for path in sorted(instance_root.iterdir())
            if path.name not in _OWN
            and not path.name.startswith(".")
            and (path.is_symlink() or path.is_dir())
        )
    except OSError:
        return ()
