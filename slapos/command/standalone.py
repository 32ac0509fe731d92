"""Master, node and supervisor in one directory: SlapOS on a laptop, as root or not.

`start` makes what is missing, starts what does not run, and waits until it works; a second start
changes nothing. `stop` ends all of it, the services too; their data stays for the next start.
`remove` stops it and removes the directory with all data, and the users that were made for it.
As root, each partition has a user of its own; as an ordinary user, all run as that user. No network
interface is touched: each partition has a loopback address of its own.

examples:
  slapos standalone start
  slapos standalone start --directory /tmp/try --partitions 4
  slapos standalone status --json
  slapos standalone stop
  slapos standalone remove --yes

exit status: 0 done (status: all runs), 1 failed, 3 (status) something does not run
"""

import argparse
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from slapos.command.client_settings import add_json_argument, default_standalone_directory
from slapos.command.standalone_site import DEFAULT_PARTITIONS, DEFAULT_PORT, Site
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.system.process_lock import process_lock

EXIT_NOT_RUNNING = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("action", choices=("start", "stop", "status", "remove"))
    parser.add_argument(
        "--directory",
        type=Path,
        default=default_standalone_directory(),
        help="where everything is (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=int,
        metavar="N",
        help=f"how many instances it can hold (default: as before, at first {DEFAULT_PARTITIONS})",
    )
    parser.add_argument(
        "--port",
        type=int,
        help=f"where the master listens (default: as before, at first {DEFAULT_PORT})",
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start, stop, or tell."""
    # Imported here, so that `--help` needs nothing of the node.
    from slapos.command.standalone_control import describe, remove, start, stop  # noqa: PLC0415

    site = Site.at(arguments.directory, arguments.port, arguments.partitions)
    match arguments.action:
        case "start":
            site.write()
            with process_lock(site.lock, patience=math.inf):
                start(site, lambda text: _say(arguments, text))
            _tell_start(arguments, site, describe(site))
            return 0
        case "stop":
            if site.configuration.exists():
                with process_lock(site.lock, patience=math.inf):
                    stop(site, lambda text: _say(arguments, text))
            _tell_stop(arguments, site)
            return 0
        case "remove":
            _confirm_removal(arguments, site)
            with process_lock(site.lock):
                stop(site, lambda text: _say(arguments, text))
                remove(site, lambda text: _say(arguments, text))
            if arguments.json:
                print(json.dumps({"directory": str(site.directory), "removed": True}, indent=2))
            else:
                print(f"{site.directory} and all that was made for it is gone")
            return 0
        case _:
            state = describe(site)
            if site.configuration.exists() or arguments.json:
                _tell_status(arguments, state)
            else:
                print(_nothing_there(site))
            return 0 if state["running"] else EXIT_NOT_RUNNING


def _confirm_removal(arguments: argparse.Namespace, site: Site) -> None:
    if not site.configuration.exists():
        raise NotFound(f"there is no standalone in {site.directory}: nothing is removed")
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"to remove {site.directory} with all its data, add --yes")
    answer = input(f"Remove {site.directory} with all its data? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise InvalidRequest("nothing is removed")


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(text, file=sys.stderr, flush=True)


def _tell_start(arguments: argparse.Namespace, site: Site, state: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(state, indent=2))
        return
    print(
        f"SlapOS runs in {site.directory}: its master at {site.master_url}, "
        f"its node with {site.partitions} partitions.\n\n"
        "Next steps:\n"
        f"  export SLAPOS_CLIENT_CONFIGURATION={shlex.quote(str(site.configuration))}\n"
        "  slapos request hello software/helloworld --wait\n"
        f"  slapos standalone status{_option(site)}\n"
        f"  slapos standalone stop{_option(site)}"
    )


def _option(site: Site) -> str:
    default = site.directory == default_standalone_directory()
    return "" if default else f" --directory {shlex.quote(str(site.directory))}"


def _nothing_there(site: Site) -> str:
    return (
        f"there is no standalone in {site.directory}: "
        f"`slapos standalone start{_option(site)}` makes one"
    )


def _tell_stop(arguments: argparse.Namespace, site: Site) -> None:
    if arguments.json:
        print(json.dumps({"directory": str(site.directory), "running": False}, indent=2))
    elif site.configuration.exists():
        print(f"nothing runs any more in {site.directory}; its data is kept")
    else:
        print(_nothing_there(site))


def _tell_status(arguments: argparse.Namespace, state: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(state, indent=2))
        return
    master, node = state["master"], state["node"]
    print(f"standalone in {state['directory']}")
    print(f"  master  {master['state'].lower():<10} {master['url']}")
    last = (node["last_answer"] or "none yet").partition(".")[0]
    print(f"  node    {node['state'].lower():<10} last answer of the master: {last}")
    print(f"  partitions: {len(state['partitions'])}")
    for partition in state["partitions"]:
        if partition["instance"]:
            print(f"    {partition['reference']:<12} {partition['instance']}")
    print(f"  processes of services: {len(state['processes'])}")
    width = max((len(process["name"]) for process in state["processes"]), default=0)
    for process in state["processes"]:
        shown_state = process["state"].lower()
        print(f"    {process['name']:<{width}}  {shown_state:<10} {process['description']}")
