"""Check of the resident agent: whether it runs, hears of the master, and is started at boot."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from slapos.node.condition import SILENCE, is_hidden, last_answer, lock_holder
from slapos.node.doctor.finding import Examined
from slapos.system.finding import Finding, ok, problem, warning
from slapos.system.systemd_unit import is_untouched

INSTALL = (
    "'slapos node install-service' has systemd run it; without systemd, have what starts programs "
    "here run 'slapos node run'"
)


def check_agent(examined: Examined) -> Iterator[Finding]:
    """See that the agent runs, that the master answers it, and that something starts it."""
    layout = examined.doors.settings.layout
    lock, unit = layout.agent_pidfile, examined.unit
    if is_hidden(lock):
        yield warning(f"whether it runs is not known: {lock} cannot be read", "run this as root")
        return
    holder = lock_holder(lock)
    if holder is not None:
        yield _heard(examined, holder)
    elif unit is not None and unit.exists():
        yield problem(
            f"it does not run, although there is {unit}",
            f"'systemctl status {unit.name}' and 'journalctl -u {unit.name}' say why "
            "(with --user for a user's)",
        )
    elif lock.exists():
        yield problem(
            "it has ended: services that end are not started again, and no change is made",
            f"{INSTALL}; where cron runs the passes instead: rm {lock}",
        )
    else:
        yield warning(
            "none has ever run here: unless cron runs the passes, nothing happens by itself",
            INSTALL,
        )
    if unit is not None:
        yield from _unit(unit)


def _heard(examined: Examined, holder: int) -> Finding:
    answered = last_answer(examined.doors.settings.layout)
    runs = f"it runs, process {holder}"
    remedy = "see what the check 'master' finds; the services run on meanwhile"
    if answered is None:
        return warning(f"{runs}; the master has never answered it", remedy)
    when = datetime.fromtimestamp(int(answered), UTC)
    if examined.doors.now() - answered > SILENCE:
        return warning(f"{runs}; the master has not answered it since {when:%F %T} UTC", remedy)
    return ok(f"{runs}; the master answered it at {when:%F %T} UTC")


def _unit(unit: Path) -> Iterator[Finding]:
    try:
        text = unit.read_text()
    except FileNotFoundError:
        yield warning(f"nothing starts it with the machine: there is no {unit}", INSTALL)
        return
    if is_untouched(text):
        yield ok(f"{unit} is as it was written")
    else:
        yield warning(
            f"{unit} was changed by somebody, so upgrades leave it as it is",
            "compare it with 'slapos node install-service --dry-run'; --force puts that there. A "
            f"change of your own is kept in {unit}.d/",
        )
