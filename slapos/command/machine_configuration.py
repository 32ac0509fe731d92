"""Which settings file says how the node and the master of this machine are set up."""

from collections.abc import Mapping
from pathlib import Path

from slapos.command.client_settings import default_standalone_directory
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings import DEFAULT_NODE_CONFIGURATION, read_configuration

DEFAULT_TEXT = (
    f"$SLAPOS_CONFIGURATION, else {DEFAULT_NODE_CONFIGURATION}, else that of a standalone "
    "that is at hand"
)


def machine_configuration(
    option: str | None, environment: Mapping[str, str], standalone: Path | None = None
) -> Path:
    """Return the settings file: the option, else $SLAPOS_CONFIGURATION, else the machine's.

    A machine without one may have a standalone: the one that the environment's
    SLAPOS_CLIENT_CONFIGURATION names, else the one in `standalone` (its default place). Raises
    InvalidConfiguration when there is none at all.
    """
    machine = Path(DEFAULT_NODE_CONFIGURATION)
    named = option or environment.get("SLAPOS_CONFIGURATION")
    if named:
        return Path(named).expanduser()
    if machine.exists():
        return machine
    client = environment.get("SLAPOS_CLIENT_CONFIGURATION")
    for name in (client, f"{standalone or default_standalone_directory()}/etc/slapos.cfg"):
        if name and _sets_up_a_node(path := Path(name).expanduser()):
            return path
    raise InvalidConfiguration(
        "this machine is not configured: `slapos standalone start` makes a master and a node on "
        "it; else name the settings file with --cfg or in the environment's SLAPOS_CONFIGURATION "
        f"(there is no {machine})"
    )


def _sets_up_a_node(path: Path) -> bool:
    try:
        return "instance_root" in read_configuration(path).get("slapos", {})
    except InvalidConfiguration:
        return False


def is_standalone(configuration: Path) -> bool:
    """Return whether settings are those of a standalone, which runs an agent of its own."""
    return (configuration.parent / "supervisord.conf").exists()
