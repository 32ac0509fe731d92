"""List the nodes of a master, show one, say where instances may be placed, remove one.

It works on the database itself; the master need not be running. NODE is a reference such as COMP-1.
`list` takes --project, --title (a part of it), --scope and --category; `set` changes what is given,
`--capacity none` and `--network none` take the bound and the network away, `--category region=`
takes that category away. A node with instances is not removed: set its scope to close/forever, and
it goes once it is empty. `token` takes a name instead of NODE: it prints, once, what a machine of
that name joins --project with, within 15 minutes.

examples:
  slapos master node list --scope open --category region=eu
  slapos master node show COMP-1 --json
  slapos master node set COMP-1 --scope close/maintenance
  slapos master node set COMP-1 --capacity 40 --category region=eu --category cpu_core=8
  slapos master node remove COMP-1
  slapos master node token "rack 1" --project PROJ-1

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slapos.command.columns import plain
from slapos.command.master_options import act, add_master_arguments, show_rows
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.nodes.model import ComputeNode
    from slapos.master.nodes.operate import NodeChange
    from slapos.master.offline import OfflineMaster

COLUMNS = {
    "reference": "REFERENCE",
    "title": "TITLE",
    "project": "PROJECT",
    "allocation_scope": "SCOPE",
    "capacity": "CAPACITY",
    "categories": "CATEGORIES",
    "contact": "LAST CONTACT",
}
NONE = "none"
Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("node", metavar="NODE", nargs="?", help="such as COMP-1; token: a name")
    parser.add_argument("--title", metavar="TEXT", help="what it is called")
    parser.add_argument(
        "--scope", metavar="SCOPE", help="open, close/noallocation, close/maintenance, …"
    )
    parser.add_argument("--capacity", metavar="COUNT", help="how much its instances may weigh")
    parser.add_argument("--network", metavar="NET-n", help="the network that it is in")
    parser.add_argument(
        "--category", metavar="NAME=VALUE", action="append", default=[], help="what it is like"
    )
    parser.add_argument("--project", metavar="PROJ-n", help="whose nodes")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and show the nodes that it is about."""
    report = act(arguments, ACTIONS, "node")
    if arguments.json:
        print(json.dumps(report, indent=2))
    elif "nodes" in report:
        show_rows(report["nodes"], COLUMNS, _text)
    else:
        print("\n".join(f"{name}: {plain(_text(value))}" for name, value in report.items()))
    return 0


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items()) or "-"
    return "-" if value is None else str(value)


def _list(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from sqlalchemy.orm import joinedload, selectinload  # noqa: PLC0415 - not for `--help`

    from slapos.master.nodes import operate  # noqa: PLC0415
    from slapos.master.nodes.model import ComputeNode  # noqa: PLC0415

    wanted = operate.NodeFilter(
        title=arguments.title,
        scope=_scope(arguments.scope),
        project=arguments.project,
        network=arguments.network,
        categories=category_words(arguments.category),
    )

    def read(session: "Session") -> Report:
        statement = operate.matching(session, wanted).order_by(ComputeNode.id)
        statement = statement.options(
            joinedload(ComputeNode.project),
            joinedload(ComputeNode.network),
            selectinload(ComputeNode.categories),
        )
        return {"nodes": [_document(node) for node in session.scalars(statement)]}

    return master.read(read)


def _show(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.nodes import operate, service  # noqa: PLC0415

    def read(session: "Session") -> Report:
        node = service.find_node(session, arguments.node)
        counts = operate.count_partitions(session, node.id)
        shown = _whole(node) | {f"{state} partitions": count for state, count in counts.items()}
        left = operate.left_instances(session, node.id)
        return shown | ({"unknown instances": left} if left else {})

    return master.read(read)


def _set(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.nodes import operate, service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        node = service.find_node(session, arguments.node)
        wanted = node_change(arguments, node)
        if not wanted:
            raise InvalidRequest("say what to set: --scope, --capacity, --category, …")
        return _whole(operate.change(session, arguments.node, wanted))

    return master.write(work)


def _remove(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.nodes import operate  # noqa: PLC0415

    def work(session: "Session") -> Report:
        operate.remove(session, arguments.node)
        return {"removed": arguments.node}

    return master.write(work)


def _token(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.command.master_ca import issuing_of  # noqa: PLC0415
    from slapos.master.certificates import authorities, joining  # noqa: PLC0415
    from slapos.master.identity.service import find_project  # noqa: PLC0415

    if arguments.project is None:
        raise InvalidRequest("token needs --project PROJ-n")
    issuing = issuing_of(master)

    def work(session: "Session") -> Report:
        authorities.ensure_authority(session, issuing)
        project = find_project(session, arguments.project)
        text, row = joining.make_join_token(
            session, issuing, master.identifiers, project, arguments.node
        )
        return {
            "name": row.title,
            "project": project.reference,
            "token": text,
            "expires": row.expires_at.isoformat(timespec="seconds"),
            "command": joining.command(master.settings.public_url, text, row.title),
        }

    return master.write(work)


def node_change(arguments: argparse.Namespace, node: "ComputeNode") -> "NodeChange":
    """Return what options say is to be changed of a node."""
    wanted: NodeChange = {}
    if arguments.title is not None:
        wanted["title"] = arguments.title
    scope = _scope(arguments.scope)
    if scope is not None:
        wanted["allocation_scope"] = scope
    if arguments.capacity is not None:
        wanted["capacity"] = _capacity(arguments.capacity)
    if arguments.network is not None:
        wanted["network"] = None if arguments.network == NONE else arguments.network
    if arguments.category:
        present = {category.name: category.value for category in node.categories}
        merged = {**present, **category_words(arguments.category)}
        wanted["categories"] = {name: value for name, value in merged.items() if value}
    return wanted


def _scope(text: str | None) -> Any:
    from slapos.master.nodes.model import AllocationScope  # noqa: PLC0415

    try:
        return None if text is None else AllocationScope(text)
    except ValueError:
        known = ", ".join(AllocationScope)
        raise InvalidRequest(f"--scope is {text}; it can be {known}") from None


def _capacity(text: str) -> int | None:
    if text == NONE:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequest(f"--capacity is {text}; it can be a number, or {NONE}")
    return int(text)


def category_words(words: list[str], option: str = "--category") -> dict[str, str]:
    """Return what words such as region=eu say; raises InvalidRequest."""
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InvalidRequest(f"{option} is {word}; it is such as region=eu")
        found[name] = value
    return found


def _document(node: "ComputeNode") -> Report:
    return {
        "reference": node.reference,
        "title": node.title,
        "project": node.project.reference,
        "allocation_scope": node.allocation_scope,
        "capacity": node.capacity,
        "network": node.network.reference if node.network else None,
        "categories": {category.name: category.value for category in node.categories},
        "contact": node.contacted_at.isoformat(timespec="seconds") if node.contacted_at else None,
    }


def _whole(node: "ComputeNode") -> Report:
    return _document(node) | {
        "os_type": node.os_type,
        "public_address": node.public_address,
        "slapos_version": node.slapos_version,
        "invalidated_at": node.invalidated_at.isoformat() if node.invalidated_at else None,
    }


ACTIONS: dict[str, Callable[["OfflineMaster", argparse.Namespace], Report]] = {
    "list": _list,
    "show": _show,
    "set": _set,
    "remove": _remove,
    "token": _token,
}
