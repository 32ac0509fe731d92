"""List the supplies of a master's catalogue, add one, enable and disable it, give it nodes.

It works on the database itself; the master need not be running. A supply says which releases and
types may be placed on which nodes. SUPPLY is a reference such as SUPPLY-1, for `add` the title of
the new one, which allows every release and type that --product has now, or those that --url and
--type name. What is placed stays when a supply changes or goes.

examples:
  slapos master supply list
  slapos master supply add "all of it" --product PROD-1 --all-nodes
  slapos master supply add "for one" --product PROD-1 --type large --node COMP-1 --customer P-3
  slapos master supply add-nodes SUPPLY-1 --node COMP-2 --node COMP-3
  slapos master supply disable SUPPLY-1

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slapos.command.master_options import act, add_master_arguments, show_rows
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.catalog.model import AllocationSupply, SoftwareProduct
    from slapos.master.catalog.supplies import Cell, SupplyChange
    from slapos.master.offline import OfflineMaster

COLUMNS = {
    "reference": "REFERENCE",
    "title": "TITLE",
    "project": "PROJECT",
    "enabled": "ENABLED",
    "customer": "CUSTOMER",
    "nodes": "NODES",
    "cells": "CELLS",
}
Supplies = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("supply", metavar="SUPPLY", nargs="?", help="such as SUPPLY-1, or a title")
    parser.add_argument("--project", metavar="PROJ-n", help="only the supplies of this project")
    parser.add_argument("--product", metavar="PROD-n", help="what it allows")
    parser.add_argument("--url", metavar="URL", action="append", help="only this release of it")
    parser.add_argument("--type", metavar="NAME", action="append", help="only this type of it")
    parser.add_argument("--node", metavar="COMP-n", action="append", default=[], help="where")
    parser.add_argument("--all-nodes", action="store_true", help="each that the project has now")
    parser.add_argument("--customer", metavar="P-n", help="only for this person")
    parser.add_argument(
        "--shared-in-same-tree",
        action="store_true",
        help="have instances host shared ones of their own tree",
    )
    parser.add_argument(
        "--no-install-by-need",
        action="store_true",
        help="place only where the release is installed already",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and show the supplies that it is about."""
    found = act(arguments, ACTIONS, "supply")
    if arguments.json:
        print(json.dumps({"supplies": found}, indent=2))
    else:
        show_rows(found, COLUMNS, _text)
    return 0


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"{cell['type']} of {cell['release']}" for cell in value) or "-"
    return "-" if value is None else str(value)


def _list(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415 - not for `--help`
    from slapos.master.catalog.model import AllocationSupply  # noqa: PLC0415

    def read(session: "Session") -> Supplies:
        statement = supplies.matching(session, arguments.project).order_by(AllocationSupply.id)
        return [_document(session, supply) for supply in session.scalars(statement)]

    return master.read(read)


def _show(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    return master.read(
        lambda session: [_document(session, supplies.find_supply(session, arguments.supply))]
    )


def _add(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import products, supplies  # noqa: PLC0415

    if arguments.product is None:
        raise InvalidRequest("add needs --product PROD-n: what it allows")

    def work(session: "Session") -> Supplies:
        product = products.find_product(session, arguments.product)
        wanted: SupplyChange = {
            "customer": arguments.customer,
            "shared_in_same_tree": arguments.shared_in_same_tree,
            "installs_by_need": not arguments.no_install_by_need,
            "cells": _cells(product, arguments),
        }
        made = supplies.create(
            session,
            master.clock,
            project=product.project.reference,
            title=arguments.supply,
            wanted=wanted,
        )
        nodes = None if arguments.all_nodes else arguments.node
        supplies.add_nodes(session, made.reference, nodes)
        return [_document(session, made)]

    return master.write(work)


def _cells(product: "SoftwareProduct", arguments: argparse.Namespace) -> "list[Cell]":
    from slapos.master.catalog.supplies import Cell  # noqa: PLC0415

    urls = arguments.url or [release.url for release in product.releases]
    types = arguments.type or [each.name for each in product.types]
    if not urls or not types:
        missing = "types" if urls else "releases"
        raise InvalidRequest(f"the product {product.reference} has no {missing} to be allowed")
    return [
        Cell(product=product.reference, release=url, type=kind) for url in urls for kind in types
    ]


def _add_nodes(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    if not arguments.node and not arguments.all_nodes:
        raise InvalidRequest("add-nodes needs --node COMP-n or --all-nodes")

    def work(session: "Session") -> Supplies:
        nodes = None if arguments.all_nodes else arguments.node
        supplies.add_nodes(session, arguments.supply, nodes)
        return [_document(session, supplies.find_supply(session, arguments.supply))]

    return master.write(work)


def _remove_nodes(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    if not arguments.node:
        raise InvalidRequest("remove-nodes needs --node COMP-n")

    def work(session: "Session") -> Supplies:
        for node in arguments.node:
            supplies.remove_node(session, arguments.supply, node)
        return [_document(session, supplies.find_supply(session, arguments.supply))]

    return master.write(work)


def _enable(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    return _set_enabled(master, arguments.supply, enabled=True)


def _disable(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    return _set_enabled(master, arguments.supply, enabled=False)


def _set_enabled(master: "OfflineMaster", reference: str, *, enabled: bool) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    return master.write(
        lambda session: [
            _document(session, supplies.change(session, reference, {"enabled": enabled}))
        ]
    )


def _remove(master: "OfflineMaster", arguments: argparse.Namespace) -> Supplies:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    def work(session: "Session") -> Supplies:
        shown = _document(session, supplies.find_supply(session, arguments.supply))
        supplies.remove(session, arguments.supply)
        return [shown]

    return master.write(work)


def _document(session: "Session", supply: "AllocationSupply") -> dict[str, Any]:
    from slapos.master.catalog import supplies  # noqa: PLC0415

    return {
        "reference": supply.reference,
        "title": supply.title,
        "project": supply.project.reference,
        "enabled": supply.enabled,
        "customer": supply.customer.reference if supply.customer else None,
        "shared_in_same_tree": supply.shared_in_same_tree,
        "installs_by_need": supply.installs_by_need,
        "nodes": supplies.count_nodes(session, supply),
        "cells": [{"release": cell.release.url, "type": cell.type.name} for cell in supply.cells],
    }


ACTIONS: dict[str, Callable[["OfflineMaster", argparse.Namespace], Supplies]] = {
    "list": _list,
    "show": _show,
    "add": _add,
    "add-nodes": _add_nodes,
    "remove-nodes": _remove_nodes,
    "enable": _enable,
    "disable": _disable,
    "remove": _remove,
}
