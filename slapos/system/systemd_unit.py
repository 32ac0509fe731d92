"""A program of ours as a service of systemd: its unit file, put in place, started, or removed."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.files import write_if_changed
from slapos.system.runner import CommandFailed

logger = logging.getLogger(__name__)

#: The first line of a file that is ours: with the digest of what follows it.
HEADER = (
    "# Written by `slapos {program} install-service`, digest {digest}. "
    "Changes are kept: see --force."
)
PROGRAMS = ("node", "master")
_SYSTEM_FOLDER = Path("/etc/systemd/system")

#: Runs a program, and returns nothing. Raises CommandFailed.
Run = Callable[[Sequence[str]], None]


class UnitRefused(SlapOSError):
    """A unit file is somebody else's, or was changed by somebody."""

    code = "unit_refused"


class ServiceManagerFailed(SlapOSError):
    """There is no systemd here, or it does not do what was asked of it."""

    code = "service_manager_failed"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit: which file it is, what is in it; `is_user` for the systemd of one user."""

    path: Path
    text: str
    is_user: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.name

    def control(self, *words: str) -> list[str]:
        """Return a command line of systemctl."""
        return ["systemctl", *(("--user",) if self.is_user else ()), *words]


def unit_path(program: str, environment: Mapping[str, str], *, is_user: bool) -> Path:
    """Return where a program's unit file is: for the machine's systemd, or that of the user."""
    name = f"slapos-{program}.service"
    if not is_user:
        return _SYSTEM_FOLDER / name
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "systemd", "user", name)


def has_systemd(environment: Mapping[str, str], *, is_user: bool) -> bool:
    """Return whether the machine's systemd runs, or that of the user."""
    if not is_user:
        return Path("/run/systemd/system").is_dir()
    return Path(environment.get("XDG_RUNTIME_DIR", "/nonexistent"), "systemd").is_dir()


def headed(text: str, program: str) -> str:
    """Return the text of a unit with the line that says that it is ours."""
    return f"{HEADER.format(program=program, digest=_digest(text))}\n{text}"


def is_untouched(text: str) -> bool:
    """Return whether a unit is as it was written by us, of this version or an earlier one."""
    first, _, rest = text.partition("\n")
    return any(first == HEADER.format(program=each, digest=_digest(rest)) for each in PROGRAMS)


def install(unit: Unit, run: Run, *, force: bool) -> bool:
    """Write the unit, enable it and have it run; return whether the file changed.

    Raises UnitRefused, ServiceManagerFailed, OSError.
    """
    _check_ours(unit, force)
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    changed = write_if_changed(unit.path, unit.text)
    try:
        run(unit.control("daemon-reload"))
        run(unit.control("enable", unit.name))
        run(unit.control("restart" if changed else "start", unit.name))
    except CommandFailed as error:
        raise ServiceManagerFailed(
            f"{unit.path} is there, but systemd does not run it: {error.output.strip() or error}; "
            f"see '{' '.join(unit.control('status', unit.name))}', and run this again"
        ) from error
    return changed


def remove(unit: Unit, run: Run, *, force: bool) -> bool:
    """End the program, and remove the unit; return whether there was one.

    Raises UnitRefused, ServiceManagerFailed, OSError.
    """
    if not unit.path.exists():
        return False
    _check_ours(unit, force)
    try:
        run(unit.control("disable", "--now", unit.name))
        unit.path.unlink()
        run(unit.control("daemon-reload"))
    except CommandFailed as error:
        raise ServiceManagerFailed(
            f"systemd does not let go of {unit.name}: {error.output.strip() or error}"
        ) from error
    return True


def _check_ours(unit: Unit, force: bool) -> None:
    try:
        text = unit.path.read_text()
    except FileNotFoundError:
        return
    if not force and not is_untouched(text):
        raise UnitRefused(
            f"{unit.path} was changed, or written by somebody else: it is left as it is; look at "
            "what --dry-run shows, and overwrite or remove it with --force"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def line(words: Sequence[str]) -> str:
    """Return a command line as systemd reads it."""
    return " ".join(quoted(plain(word).replace("$", "$$")) for word in words)


def quoted(word: str) -> str:
    """Return a word of a unit, in quotes where it needs them."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if not word or any(c in word for c in " \t\"'\\;") else escaped


def plain(text: str) -> str:
    """Return a text without what systemd would replace."""
    return text.replace("%", "%%")
