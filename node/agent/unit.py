"""The agent as a service of systemd: its unit file, put in place, enabled, started, or removed."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from slapos.protocol.errors import SlapOSError
from slapos.system.files import write_if_changed
from slapos.system.runner import CommandFailed

logger = logging.getLogger(__name__)

TEMPLATE = "slapos-node.service.in"
#: The first line of a file that is ours: with the digest of what follows it.
HEADER = (
    "# Written by `slapos node install-service`, digest {digest}. Changes are kept: see --force."
)
NAME = "slapos-node.service"
_SYSTEM_FOLDER = Path("/etc/systemd/system")
#: Seconds that `node format` gets before the agent starts: a silent master must not hold it up.
FORMAT_TIME = 120

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


def unit_path(environment: Mapping[str, str], *, is_user: bool) -> Path:
    """Return where the unit file is: for the machine's systemd, or that of the user."""
    if not is_user:
        return _SYSTEM_FOLDER / NAME
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "systemd", "user", NAME)


def has_systemd(environment: Mapping[str, str], *, is_user: bool) -> bool:
    """Return whether the machine's systemd runs, or that of the user."""
    if not is_user:
        return Path("/run/systemd/system").is_dir()
    return Path(environment.get("XDG_RUNTIME_DIR", "/nonexistent"), "systemd").is_dir()


def render(
    node: str, command: Sequence[str], roots: Sequence[Path], *, is_user: bool, formats: bool
) -> str:
    """Return the text of a unit; with `formats`, addresses are put on interfaces before.

    `command` is how `slapos` is started, without what follows that.
    """
    # The configuration file is the last word, whatever the command.
    *slapos, configuration = command
    before = ""
    if formats:
        words = ["/usr/bin/timeout", str(FORMAT_TIME), *slapos, "node", "format", "--now"]
        before = f"ExecStartPre=-{_line([*words, '--cfg', configuration])}\n"
    template = files(__package__).joinpath(TEMPLATE).read_text()
    text = template.format(
        node=_plain(node),
        roots=" ".join(_quoted(_plain(str(root))) for root in roots),
        before=before,
        command=_line([*slapos, "node", "run", "--cfg", configuration]),
        target="default.target" if is_user else "multi-user.target",
    )
    return f"{HEADER.format(digest=_digest(text))}\n{text}"


def is_untouched(text: str) -> bool:
    """Return whether a unit is as it was written by us, of this version or an earlier one."""
    first, _, rest = text.partition("\n")
    return first == HEADER.format(digest=_digest(rest))


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
    """End the agent, and remove the unit; return whether there was one. Services run on.

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


def _line(words: Sequence[str]) -> str:
    """Return a command line as systemd reads it."""
    return " ".join(_quoted(_plain(word).replace("$", "$$")) for word in words)


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if not word or any(c in word for c in " \t\"'\\;") else escaped


def _plain(text: str) -> str:
    return text.replace("%", "%%")
