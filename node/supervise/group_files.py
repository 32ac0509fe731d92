"""The files of groups, as supervisord itself reads them: one by one."""

import configparser
import sys
from pathlib import Path
from typing import Any

from supervisor.options import UnhosedConfigParser

from slapos.node.layout import Layout


def layout_of(options: Any) -> Layout:
    """Return the layout of the node that supervisord with these options belongs to."""
    root = Path(options.configfile).parent.parent
    return Layout(root, root)


def read_group(options: Any, name: str) -> Any:
    """Return the configuration of a group, None where it has none. Raises ValueError."""
    path = layout_of(options).supervisor_groups / f"{name}.conf"
    if not path.exists():
        return None
    return next((group for group in read_groups(options, path) if group.name == name), None)


def read_groups(options: Any, path: Path) -> list[Any]:
    """Return the configurations of the groups of one file. Raises ValueError."""
    parser = UnhosedConfigParser()
    parser.expansions = options.environ_expansions
    try:
        with path.open() as stream:
            parser.read_file(stream)
        parser.expand_here(str(path.parent))
        groups: list[Any] = options.process_groups_from_parser(parser)
    except (OSError, ValueError, configparser.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    for group in groups:
        _share_values(group, options.configroot.supervisord.environment)
    return groups


def _share_values(group: Any, environment: dict[str, str]) -> None:
    """Keep once what the programs of a group have in common, and what all groups have."""
    shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for process in group.process_configs:
        whole = {**environment, **process.environment}
        whole = {sys.intern(name): sys.intern(value) for name, value in whole.items()}
        process.environment = shared.setdefault(tuple(whole.items()), whole)
        process.name = sys.intern(process.name)
        if process.directory is not None:
            process.directory = sys.intern(process.directory)
