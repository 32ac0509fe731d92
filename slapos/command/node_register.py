"""Join a master: make this machine one of its nodes, with a certificate.

Whoever runs the master makes a join token, which counts for 15 minutes, once, for one name. This
makes a key, which never leaves the machine, sees by the token that the master is the right one,
gets a certificate, and writes all into the settings file; what else is in there stays. It may be
interrupted and run again. The certificate is renewed by `slapos node run` and the other commands.

examples:
  slapos node register --master https://master.example.com --token sj1.…
  slapos node register --master https://master.example.com --token - --name edge-7 < token

exit status: 0 registered, 1 refused or failed (the settings are as they were), 5 root is needed
"""

import argparse
import json
import os
import platform
from pathlib import Path

from slapos.command.node_options import may_run
from slapos.command.secret_option import read_secret
from slapos.node.enrolment.join import Joined, JoinOrder, join
from slapos.node.outcome import ExitStatus
from slapos.protocol.errors import InvalidConfiguration
from slapos.protocol.join_token import JoinToken
from slapos.system.clock import SystemClock
from slapos.system.settings import DEFAULT_NODE_CONFIGURATION, environment

_FRESH = """\
# Written by `slapos node register`; all settings: docs/reference/node.md
[slapos]
software_root = {software_root}
instance_root = {instance_root}
root_check = {as_root}

[slapformat]
partition_amount = {partitions}
ipv4_local_network = {network}
{interface}alter_user = {as_root}
alter_network = {as_root}
create_tap = false
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--master", "--master-url", required=True, metavar="URL", help="its URL")
    parser.add_argument(
        "--token", metavar="TOKEN", help="the join token; - reads it from standard input"
    )
    parser.add_argument("--name", help="the name that the token is for (default: the host name)")
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help="the settings file that is written (default: $SLAPOS_CONFIGURATION, else "
        f"{DEFAULT_NODE_CONFIGURATION}); keys and certificates are put into ssl/ beside it",
    )
    parser.add_argument(
        "--force", action="store_true", help="give up another registration of this machine"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    group = parser.add_argument_group("settings, where there is no settings file yet")
    group.add_argument("--software-root", metavar="FOLDER", help="where releases are built")
    group.add_argument("--instance-root", metavar="FOLDER", help="where the partitions are")
    group.add_argument("--partition-number", type=int, default=10, metavar="N", help="how many")


def run(arguments: argparse.Namespace) -> int:
    """Join."""
    named = arguments.cfg or environment().get("SLAPOS_CONFIGURATION")
    path = Path(named).expanduser().absolute() if named else Path(DEFAULT_NODE_CONFIGURATION)
    if named is None and not may_run(root_check=True):
        return ExitStatus.NOT_ROOT
    if not 0 < arguments.partition_number < 10_000:
        raise InvalidConfiguration("--partition-number must be 1 to 9999")
    os.umask(0o022)
    order = JoinOrder(
        master_url=arguments.master.strip(),
        token=JoinToken.parse(read_secret(arguments.token, "join token")),
        name=arguments.name or platform.node(),
        configuration=path,
        fresh=_fresh(arguments, path),
        force=arguments.force,
    )
    joined = join(order, SystemClock())
    print(json.dumps(_document(joined), indent=2) if arguments.json else _text(joined))
    return 0


def _fresh(arguments: argparse.Namespace, path: Path) -> str:
    """Return what a new settings file says: for root as usual, for others beside the file."""
    as_root = os.geteuid() == 0
    software = "/opt/slapgrid" if as_root else f"{path.parent}/software"
    instances = "/srv/slapgrid" if as_root else f"{path.parent}/instances"
    return _FRESH.format(
        software_root=_folder(arguments.software_root or software),
        instance_root=_folder(arguments.instance_root or instances),
        as_root=str(as_root).lower(),
        partitions=arguments.partition_number,
        network="10.0.0.0/16" if as_root else "127.66.6.0/24",
        interface="interface_name = lo\n" if as_root else "",
    )


def _folder(name: str) -> Path:
    if "\n" in name:
        raise InvalidConfiguration("the name of a folder may not have a line break in it")
    return Path(name).expanduser().absolute()


def _document(joined: Joined) -> dict[str, str | bool]:
    return {
        "reference": joined.reference,
        "project": joined.project,
        "master_url": joined.master_url,
        "configuration": str(joined.configuration),
        "folder": str(joined.folder),
        "not_after": joined.not_after.isoformat(),
        "has_own_authority": joined.has_own_authority,
    }


def _text(joined: Joined) -> str:
    option = f" --cfg {joined.configuration}"
    if joined.configuration == Path(DEFAULT_NODE_CONFIGURATION):
        option = ""
    project = f" in {joined.project}" if joined.project else ""
    return (
        f"this machine is {joined.reference}{project} of {joined.master_url}\n"
        f"settings: {joined.configuration}, certificate until {joined.not_after:%Y-%m-%d %H:%M} "
        "UTC, renewed in time while the node works\n"
        "next:\n"
        f"  slapos node format{option}            (users, partitions, addresses: see "
        "[slapformat] there before)\n"
        f"  slapos node install-service{option}   (systemd runs the agent; or: slapos node "
        f"run{option})\n"
        f"  slapos node doctor{option}            (what is missing, if anything)"
    )
