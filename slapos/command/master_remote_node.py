"""Have another master take instances of a project: add, list, show, change, remove remote nodes.

It works on the database itself; the master need not be running. NODE is a reference such as
REMOTE-1; `add` takes a title instead. The other master is asked as a person of it, by a token
(`--token -` reads it from standard input) or a certificate and its key; nobody is told these
again. --partitions is how many instances may be there; any number of shared ones may. Put the node
into a supply by `slapos master supply add-nodes`. `set` changes what is given; --filter and
--category NAME= take one away. A node is removed when nothing is behind it any more.

examples:
  slapos master remote-node add "the other site" --project PROJ-1 \\
      --master https://master.example.com/ --project-there PROJ-7 --token - < token
  slapos master remote-node add "cloud" --project PROJ-1 --master https://cloud.example.com/ \\
      --cert-file me.crt --key-file me.key --master-ca-file cloud.crt --partitions 50
  slapos master remote-node set REMOTE-9 --scope close/noallocation
  slapos master remote-node set REMOTE-9 --filter region=eu
  slapos master remote-node list

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slapos.command.columns import plain
from slapos.command.master_node import category_words, node_change
from slapos.command.master_options import act, add_master_arguments, show_rows
from slapos.command.secret_option import read_secret
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.nodes.model import ComputeNode
    from slapos.master.offline import OfflineMaster
    from slapos.master.remote.asking import Credentials
    from slapos.master.remote.service import RemoteChange

COLUMNS = {
    "reference": "REFERENCE",
    "title": "TITLE",
    "project": "PROJECT",
    "master": "MASTER",
    "allocation_scope": "SCOPE",
    "answered": "LAST ANSWER",
    "error": "ERROR",
}
Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("node", metavar="NODE", nargs="?", help="such as REMOTE-1; add: a title")
    parser.add_argument("--project", metavar="PROJ-n", help="whose it is")
    parser.add_argument("--master", metavar="URL", help="where the other master is")
    parser.add_argument("--project-there", metavar="PROJ-n", help="the project of that master")
    parser.add_argument("--token", metavar="TOKEN", help="of a person there; - reads it")
    parser.add_argument("--cert-file", metavar="FILE", type=Path, help="of a person there (PEM)")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="of that certificate (PEM)")
    parser.add_argument(
        "--master-ca-file", metavar="FILE", type=Path, help="whom that master is checked by (PEM)"
    )
    parser.add_argument(
        "--filter", metavar="NAME=VALUE", action="append", default=[], help="sent with each order"
    )
    parser.add_argument("--partitions", metavar="COUNT", type=int, help="how many places it has")
    parser.add_argument("--title", metavar="TEXT", help="what it is called")
    parser.add_argument("--scope", metavar="SCOPE", help="open, close/noallocation, …")
    parser.add_argument("--capacity", metavar="COUNT", help="how much its instances may weigh")
    parser.add_argument("--network", metavar="NET-n", help="the network that it counts to")
    parser.add_argument(
        "--category", metavar="NAME=VALUE", action="append", default=[], help="what it is like"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and show the remote nodes that it is about."""
    report = act(arguments, ACTIONS, "node")
    if arguments.json:
        print(json.dumps(report, indent=2))
    elif "remote_nodes" in report:
        show_rows(report["remote_nodes"], COLUMNS, _text)
    else:
        print("\n".join(f"{name}: {plain(_text(value))}" for name, value in report.items()))
    return 0


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items()) or "-"
    return "-" if value in (None, "") else str(value)


def _list(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.nodes.model import ComputeNode  # noqa: PLC0415 - not for `--help`
    from slapos.master.remote import service  # noqa: PLC0415

    def read(session: "Session") -> Report:
        statement = service.matching(session, arguments.project).options(*service.WHOLE)
        found = session.scalars(statement.order_by(ComputeNode.id))
        return {"remote_nodes": [_document(node) for node in found]}

    return master.read(read)


def _show(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.remote import service  # noqa: PLC0415

    return master.read(lambda session: _whole(session, service.find(session, arguments.node)))


def _add(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.remote import service, talks  # noqa: PLC0415
    from slapos.master.remote.asking import Reach  # noqa: PLC0415

    if arguments.project is None or arguments.master is None:
        raise InvalidRequest("add needs --project PROJ-n and --master URL")
    wanted = _wanted(arguments, {})
    if "credentials" not in wanted:
        raise InvalidRequest("add needs --token -, or --cert-file and --key-file")

    def work(session: "Session") -> Report:
        node = service.create(
            session,
            master.clock,
            partial(talks.seal, master.settings),
            Reach(master.settings.remote_networks),
            project=arguments.project,
            title=arguments.node,
            wanted=wanted,
        )
        return _whole(session, node)

    return master.write(work)


def _set(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.remote import service, talks  # noqa: PLC0415
    from slapos.master.remote.asking import Reach  # noqa: PLC0415

    def work(session: "Session") -> Report:
        node = service.find(session, arguments.node)
        assert node.remote is not None
        wanted = _wanted(arguments, node.remote.filters)
        of_node = node_change(arguments, node)
        if not wanted and not of_node:
            raise InvalidRequest("say what to set: --scope, --filter, --token, …")
        changed = service.change(
            session,
            master.clock,
            partial(talks.seal, master.settings),
            Reach(master.settings.remote_networks),
            arguments.node,
            wanted,
            of_node,
        )
        return _whole(session, changed)

    return master.write(work)


def _remove(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.remote import service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        service.remove(session, arguments.node)
        return {"removed": arguments.node}

    return master.write(work)


def _wanted(arguments: argparse.Namespace, filters: Mapping[str, Any]) -> "RemoteChange":
    wanted: RemoteChange = {}
    if arguments.master is not None:
        wanted["url"] = arguments.master
    if arguments.project_there is not None:
        wanted["project_there"] = arguments.project_there
    if arguments.master_ca_file is not None:
        wanted["authority"] = _read(arguments.master_ca_file)
    if arguments.filter:
        merged = {**filters, **category_words(arguments.filter, "--filter")}
        wanted["filters"] = {name: value for name, value in merged.items() if value}
    if arguments.partitions is not None:
        wanted["partitions"] = arguments.partitions
    credentials = _credentials(arguments)
    if credentials is not None:
        wanted["credentials"] = credentials
    return wanted


def _credentials(arguments: argparse.Namespace) -> "Credentials | None":
    from slapos.master.remote.asking import Credentials  # noqa: PLC0415

    if arguments.token is not None:
        return Credentials(token=read_secret(arguments.token, "token"))
    if arguments.cert_file is None and arguments.key_file is None:
        return None
    if arguments.cert_file is None or arguments.key_file is None:
        raise InvalidRequest("--cert-file and --key-file are given together")
    return Credentials(certificate=_read(arguments.cert_file), key=_read(arguments.key_file))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read as PEM: {error}") from error


def _document(node: "ComputeNode") -> Report:
    assert node.remote is not None
    answered = node.remote.answered_at
    return {
        "reference": node.reference,
        "title": node.title,
        "project": node.project.reference,
        "master": node.remote.url,
        "allocation_scope": node.allocation_scope,
        "answered": answered.isoformat(timespec="seconds") if answered else None,
        "error": node.remote.error,
    }


def _whole(session: "Session", node: "ComputeNode") -> Report:
    from slapos.master.remote import service  # noqa: PLC0415

    assert node.remote is not None
    counts, until = service.count_partitions(session, node), node.remote.credentials_until
    return _document(node) | {
        "project_there": node.remote.project_reference,
        "credentials_until": until.isoformat(timespec="seconds") if until else None,
        "filters": node.remote.filters,
        "capacity": node.capacity,
        "network": node.network.reference if node.network else None,
        "categories": {category.name: category.value for category in node.categories},
        **{f"{state} partitions": count for state, count in counts.items()},
    }


ACTIONS: dict[str, Callable[["OfflineMaster", argparse.Namespace], Report]] = {
    "list": _list,
    "show": _show,
    "add": _add,
    "set": _set,
    "remove": _remove,
}
