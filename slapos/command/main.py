"""`slapos`: find the command, run it, turn errors into an exit status."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from slapos.protocol.errors import SlapOSError

#: Name of a command (one or two words) → (module, summary). The module has
#: `add_arguments(parser)` and `run(arguments) -> int`, and is imported only when it is asked for:
#: so `slapos --help` is quick, and a node needs no Flask.
COMMANDS: dict[str, tuple[str, str]] = {
    "standalone": (
        "slapos.command.standalone",
        "master, node and supervisor in one directory: start, stop, status",
    ),
    "request": ("slapos.command.request", "order a service, or change it"),
    "supply": ("slapos.command.supply", "have a software release built on a node"),
    "remove": ("slapos.command.remove", "have a software release removed from a node"),
    "service list": ("slapos.command.service_list", "list the services"),
    "service info": ("slapos.command.service_info", "show a service"),
    "service logs": ("slapos.command.service_logs", "show what a service's processes print"),
    "service destroy": ("slapos.command.service_destroy", "give a service up, with all it holds"),
    "computer list": ("slapos.command.computer_list", "list the nodes"),
    "computer info": ("slapos.command.computer_info", "show a node"),
    "node": ("slapos.command.node_status", "the same as `node status`"),
    "node format": ("slapos.command.node_format", "prepare this machine: users, partitions"),
    "node software": ("slapos.command.node_software", "build the assigned software releases"),
    "node instance": ("slapos.command.node_instance", "bring the instances to what is wanted"),
    "node report": ("slapos.command.node_report", "report usage, remove destroyed instances"),
    "node promise": ("slapos.command.node_promise", "check the promises of started instances"),
    "node status": ("slapos.command.node_status", "show the processes of the instances"),
    "node start": ("slapos.command.node_start", "start processes"),
    "node stop": ("slapos.command.node_stop", "stop processes"),
    "node restart": ("slapos.command.node_restart", "restart processes"),
    "node tail": ("slapos.command.node_tail", "show what a process prints"),
    "node supervisorctl": ("slapos.command.node_supervisorctl", "speak with supervisord"),
    "node supervisord": ("slapos.command.node_supervisord", "start supervisord"),
    "proxy start": ("slapos.command.proxy_start", "run the master with its local profile"),
    "proxy show": ("slapos.command.proxy_show", "show what the local master knows"),
}

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_UNKNOWN_COMMAND = 5
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0] in ("-h", "--help", "help") and len(words) == 1):
        print(overview())
        return 0
    name = find_command(words)
    if name is None:
        print(f"slapos: there is no command {words[0]!r}\n\n{overview()}", file=sys.stderr)
        return EXIT_UNKNOWN_COMMAND
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"slapos {name}", description=_description(module, summary)
    )
    module.add_arguments(parser)
    arguments = parser.parse_args(words[len(name.split()) :])
    try:
        return int(module.run(arguments))
    except SlapOSError as error:
        print(f"slapos {name}: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def find_command(words: Sequence[str]) -> str | None:
    """Return the longest command that the words begin with."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name
    return None


def overview() -> str:
    """Return the list of commands."""
    width = max((len(name) for name in COMMANDS), default=0)
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        ["usage: slapos COMMAND [OPTION ...]", "", *lines, "", "slapos COMMAND --help tells more."]
    )


def _description(module: ModuleType, summary: str) -> str:
    return (module.__doc__ or summary).strip()
