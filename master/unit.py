"""The master as a service of systemd: what is in its unit file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from slapos.system import systemd_unit
from slapos.system.systemd_unit import headed, line, plain, quoted

PROGRAM = "master"
TEMPLATE = "slapos-master.service.in"


def unit_path(environment: Mapping[str, str], *, is_user: bool) -> Path:
    """Return where the unit file is: for the machine's systemd, or that of the user."""
    return systemd_unit.unit_path(PROGRAM, environment, is_user=is_user)


def render(start: Sequence[str], folders: Sequence[Path], *, user: str = "", is_user: bool) -> str:
    """Return the text of a unit: `start` is run as `user`, once the folders are mounted."""
    template = files(__package__).joinpath(TEMPLATE).read_text()
    text = template.format(
        folders=" ".join(quoted(plain(str(folder))) for folder in folders),
        user=f"User={plain(user)}\n" if user else "",
        start=line(start),
        target="default.target" if is_user else "multi-user.target",
    )
    return headed(text, PROGRAM)
