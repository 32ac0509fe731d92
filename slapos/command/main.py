"""`slapos`: find the command, run it, turn errors into an exit status.

Nothing is imported here that `slapos --help` does not need: a command's module is imported when
the command is asked for, and brings what it needs itself.
"""

import argparse
import atexit
import difflib
import errno
import gc
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from slapos.protocol.errors import SlapOSError

#: Name of a command (one or two words) → (module, summary). The module has
#: `add_arguments(parser)` and `run(arguments) -> int`, and is imported only when it is asked for:
#: so `slapos --help` is quick, and a node needs no Flask.
COMMANDS: dict[str, tuple[str, str]] = {
    "standalone": (
        "slapos.command.standalone",
        "master, node and supervisor in one directory: start, stop, status, remove",
    ),
    "request": ("slapos.command.request", "order a service, or change it"),
    "supply": ("slapos.command.supply", "have a software release built on a node"),
    "remove": ("slapos.command.remove", "have a software release removed from a node"),
    "service list": ("slapos.command.service_list", "list the services"),
    "service info": ("slapos.command.service_info", "show a service"),
    "service logs": ("slapos.command.service_logs", "show what a service's processes print"),
    "service destroy": ("slapos.command.service_destroy", "give a service up, with all it holds"),
    "configure client": (
        "slapos.command.configure_client",
        "have these commands ask a master, as yourself",
    ),
    "computer list": ("slapos.command.computer_list", "list the nodes"),
    "computer info": ("slapos.command.computer_info", "show a node"),
    "node": ("slapos.command.node_status", "the same as `node status`"),
    "node register": ("slapos.command.node_register", "join a master, and get a certificate"),
    "node format": ("slapos.command.node_format", "prepare this machine: users, partitions"),
    "node run": ("slapos.command.node_run", "be the resident agent: do all of it, for ever"),
    "node install-service": (
        "slapos.command.node_install_service",
        "have systemd run the resident agent",
    ),
    "node software": ("slapos.command.node_software", "build the assigned software releases"),
    "node instance": ("slapos.command.node_instance", "bring the instances to what is wanted"),
    "node report": ("slapos.command.node_report", "report usage, remove destroyed instances"),
    "node collect": ("slapos.command.node_collect", "measure what partitions use, once"),
    "node promise": ("slapos.command.node_promise", "check the promises of started instances"),
    "node status": ("slapos.command.node_status", "show how the instances here do"),
    "node doctor": ("slapos.command.node_doctor", "say what keeps this node from its work"),
    "node logs": ("slapos.command.node_logs", "show the logs of partitions, or of builds"),
    "node start": ("slapos.command.node_start", "start processes"),
    "node stop": ("slapos.command.node_stop", "stop processes"),
    "node restart": ("slapos.command.node_restart", "restart processes"),
    "node tail": ("slapos.command.node_tail", "show what a process prints"),
    "node supervisorctl": ("slapos.command.node_supervisorctl", "speak with supervisord"),
    "node supervisord": ("slapos.command.node_supervisord", "start supervisord"),
    "proxy start": ("slapos.command.proxy_start", "run the master with its local profile"),
    "proxy show": ("slapos.command.proxy_show", "show what the local master knows"),
    "master init": ("slapos.command.master_init", "make what a master for many customers needs"),
    "master start": ("slapos.command.master_start", "run the master for many customers"),
    "master upgrade": ("slapos.command.master_upgrade", "bring the database to this version"),
    "master backup": ("slapos.command.master_backup", "back up all that the master knows"),
    "master restore": ("slapos.command.master_restore", "put a backup back"),
    "master user": (
        "slapos.command.master_user",
        "list people, invite and suspend them, give and take roles, reset passwords",
    ),
    "master ca": (
        "slapos.command.master_ca",
        "certificate authorities: show, rotate, retire; certificates: list, revoke",
    ),
    "master project": ("slapos.command.master_project", "list projects, make new ones"),
    "master node": ("slapos.command.master_node", "list nodes, say what may be placed on them"),
    "master remote-node": (
        "slapos.command.master_remote_node",
        "have other masters take instances of a project",
    ),
    "master product": ("slapos.command.master_product", "what may be ordered: releases, types"),
    "master supply": ("slapos.command.master_supply", "which releases go on which nodes"),
    "master doctor": ("slapos.command.master_doctor", "say what keeps a master from its work"),
    "master install-service": (
        "slapos.command.master_install_service",
        "have systemd run the master",
    ),
    "master tasks": ("slapos.command.master_tasks", "show what the master does by itself"),
}

EXIT_FAILURE = 1
EXIT_UNKNOWN_COMMAND = 5
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

#: Options that may also stand before the command, and that have a value.
LEADING_WITH_VALUE = ("--cfg", "--log-file", "--logfile", "--log_file")

# At its end Python looks through everything for what is garbage, half a second with the master's
# modules; the process gives all of it back anyway.
atexit.register(gc.freeze)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        _open_missing_streams()
        status = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader (`| head`) has gone: what is still buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        print(f"slapos: what it prints cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def _open_missing_streams() -> None:
    """Let output that was closed (`>&-`) go nowhere: its number would be given to another file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _main(words: list[str]) -> int:
    leading, words = split_leading_options(words)
    if "--version" in leading:
        print(version())
        return 0
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"] if words[1:] else []
    if not words:
        print(overview())
        return 0
    name = find_command(words)
    if name is None:
        return _no_command(words, help_wanted=bool({"-h", "--help"} & {*leading, *words}))
    return _run(name, [*leading, *words[len(name.split()) :]])


def _run(name: str, options: list[str]) -> int:
    """Run a command with its options; what is raised on purpose is one line on stderr."""
    arguments = argparse.Namespace()
    try:
        module = importlib.import_module(COMMANDS[name][0])
        arguments = parser_of(name, module).parse_args(options)
        configure_logging(arguments)
        return int(module.run(arguments) or 0)
    except SlapOSError as error:
        logging.getLogger(__name__).debug("%s failed", name, exc_info=True)
        details = getattr(error, "details", {})
        return _failed(name, arguments, str(error), code=error.code, **details)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "slapos":
            raise
        extras = {"proxy": "master", "master": "master", "configure": "client"}
        extra = extras.get(name.partition(" ")[0], "node")
        message = f"the Python package {missing} is not installed: pip install 'slapos[{extra}]'"
        return _failed(name, arguments, message, code="missing_package")
    except BrokenPipeError:
        raise
    except OSError as error:
        if getattr(arguments, "verbose", 0):
            raise
        where = f": {error.filename}" if error.filename else ""
        return _failed(name, arguments, f"{error.strerror or error}{where}", code="system")


def _failed(name: str, arguments: argparse.Namespace, message: str, **details: Any) -> int:
    """Say why a command failed; with --json also on stdout, for the program that reads it."""
    print(f"slapos {name}: {message}", file=sys.stderr)
    if getattr(arguments, "json", False):
        print(json.dumps({"error": {"message": message, **details}}, indent=2))
    return EXIT_FAILURE


def split_leading_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options that stand before the command, with their values, and the rest."""
    count = 0
    while count < len(words) and words[count].startswith("-"):
        count += 2 if words[count] in LEADING_WITH_VALUE else 1
    return list(words[:count]), list(words[count:])


def find_command(words: Sequence[str]) -> str | None:
    """Return the longest command that the words begin with.

    A word that could be a command of a group is never an argument of the group's own command:
    `node statsu` is a slip, not `node` with an argument.
    """
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS and count <= len(words):
            following = words[count : count + 1]
            slip = bool(following) and not following[0].startswith("-")
            help_wanted = following in (["--help"], ["-h"])
            return None if _members(name) and (slip or help_wanted) else name
    return None


def _members(group: str) -> list[str]:
    return [name for name in COMMANDS if name.startswith(f"{group} ")]


def _no_command(words: list[str], *, help_wanted: bool) -> int:
    """Show a group's commands, or say what may have been meant."""
    members = _members(words[0])
    if members and (help_wanted or len(words) == 1):
        print(overview(words[0]), file=sys.stdout if help_wanted else sys.stderr)
        return 0 if help_wanted else EXIT_UNKNOWN_COMMAND
    asked = " ".join(words[: 2 if members else 1])
    meant = suggestions(words)
    hint = f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    print(f"slapos: there is no command {asked!r}{hint}", file=sys.stderr)
    if not meant:
        print(f"\n{overview(words[0] if members else '')}", file=sys.stderr)
    return EXIT_UNKNOWN_COMMAND


def suggestions(words: Sequence[str]) -> list[str]:
    """Return the commands that look most like the words, the best first, three at most."""
    found = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=3, cutoff=0.7)
    found += difflib.get_close_matches(words[0], COMMANDS, n=2, cutoff=0.7)
    # `slapos info` for `slapos service info`
    found += [name for name in COMMANDS if name.endswith(f" {words[0]}")]
    return list(dict.fromkeys(found))[:3]


def overview(group: str = "") -> str:
    """Return the list of commands, or of those of one group."""
    names = _members(group) or list(COMMANDS)
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name][1]}" for name in names]
    usage = f"usage: slapos {group + ' ' if group else ''}COMMAND [OPTION ...]"
    more = "slapos COMMAND --help tells more, with examples."
    return "\n".join([usage, "", *lines, "", more])


def version() -> str:
    """Return the name and version of this distribution."""
    from importlib import metadata  # noqa: PLC0415 - slow, and seldom needed

    return f"slapos {metadata.version('slapos')}"


class _Version(argparse.Action):
    """Prints the version, found out only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version())
        parser.exit()


def parser_of(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """Return the parser of a command: its own arguments and those that every command has.

    The module's docstring is the help: its first paragraph above the options, the rest below.
    """
    summary, _, details = (module.__doc__ or COMMANDS[name][1]).strip().partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=f"slapos {name}",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = parser.add_argument_group("options of every command")
    common.add_argument("-v", "--verbose", action="count", default=0, help="say more on stderr")
    common.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
    common.add_argument("--version", action=_Version, nargs=0, help="show the version")
    common.add_argument(
        *("--log-file", "--logfile", "--log_file"), metavar="FILE", help="write all that is said to"
    )
    for ignored in ("--debug", "--log-color", "--log-time"):  # of slapos.core; scripts give them
        common.add_argument(ignored, action="store_true", help=argparse.SUPPRESS)
    module.add_arguments(parser)
    return parser


def configure_logging(arguments: argparse.Namespace) -> None:
    """Send log messages to stderr, as many as asked for, and all of them to the log file."""
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    levels = (logging.INFO, logging.DEBUG)
    console.setLevel(logging.WARNING if arguments.quiet else levels[min(arguments.verbose, 1)])
    handlers: list[logging.Handler] = [console]
    if arguments.log_file:
        file = logging.FileHandler(os.path.expanduser(arguments.log_file), delay=True)
        file.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)-8s %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.DEBUG, handlers=handlers, force=True)
    # What it says of its attempts to reach somebody is for developers; we say how they ended.
    logging.getLogger("urllib3").setLevel(logging.INFO if arguments.verbose else logging.ERROR)
