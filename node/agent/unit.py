"""The agent as a service of systemd: what is in its unit file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from slapos.system import systemd_unit
from slapos.system.systemd_unit import headed, line, plain, quoted

PROGRAM = "node"
TEMPLATE = "slapos-node.service.in"
#: Seconds that `node format` gets before the agent starts: a silent master must not hold it up.
FORMAT_TIME = 120


def unit_path(environment: Mapping[str, str], *, is_user: bool) -> Path:
    """Return where the unit file is: for the machine's systemd, or that of the user."""
    return systemd_unit.unit_path(PROGRAM, environment, is_user=is_user)


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
        before = f"ExecStartPre=-{line([*words, '--cfg', configuration])}\n"
    template = files(__package__).joinpath(TEMPLATE).read_text()
    text = template.format(
        node=plain(node),
        roots=" ".join(quoted(plain(str(root))) for root in roots),
        before=before,
        command=line([*slapos, "node", "run", "--cfg", configuration]),
        target="default.target" if is_user else "multi-user.target",
    )
    return headed(text, PROGRAM)
