"""List the products of a master's catalogue, add one with its release and types, publish it.

It works on the database itself; the master need not be running. PRODUCT is a reference such as
PROD-1, for `add` the title of the new one. A type weighs 1 on a node unless it is said how much:
--type large=4. What is not published cannot be ordered; withdrawn, it cannot be ordered any more,
and what runs goes on.

examples:
  slapos master product list --project PROJ-2
  slapos master product add "web server" --project PROJ-2 --url https://example.org/software.cfg --type default --publish
  slapos master product add-release PROD-1 --url https://example.org/2/software.cfg --release-version 2
  slapos master product withdraw PROD-1
  slapos master product remove PROD-1

exit status: 0 done, 1 failed or refused
"""  # noqa: E501 - commands stand in one line

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slapos.command.master_options import act, add_master_arguments, show_rows
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.catalog.model import SoftwareProduct
    from slapos.master.offline import OfflineMaster

COLUMNS = {
    "reference": "REFERENCE",
    "title": "TITLE",
    "project": "PROJECT",
    "state": "STATE",
    "releases": "RELEASES",
    "types": "TYPES",
}
Products = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("product", metavar="PRODUCT", nargs="?", help="such as PROD-1, or a title")
    parser.add_argument("--project", metavar="PROJ-n", help="whose product it is")
    parser.add_argument("--url", metavar="URL", help="of a release's software.cfg")
    parser.add_argument("--release-version", metavar="TEXT", default="", help="of that release")
    parser.add_argument("--schema-url", metavar="URL", help="of its software.cfg.json")
    parser.add_argument(
        "--type", metavar="NAME[=WEIGHT]", action="append", default=[], help="a type it offers"
    )
    parser.add_argument("--publish", action="store_true", help="have it ordered from now on")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and show the products that it is about."""
    found = act(arguments, ACTIONS, "product")
    if arguments.json:
        print(json.dumps({"products": found}, indent=2))
    else:
        show_rows(found, COLUMNS, _text)
    return 0


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)


def _list(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    from sqlalchemy.orm import selectinload  # noqa: PLC0415 - not for `--help`

    from slapos.master.catalog import products  # noqa: PLC0415
    from slapos.master.catalog.model import SoftwareProduct  # noqa: PLC0415

    wanted = products.ProductFilter(project=arguments.project, url=arguments.url)

    def read(session: "Session") -> Products:
        statement = products.matching(session, wanted).order_by(SoftwareProduct.id)
        statement = statement.options(
            selectinload(SoftwareProduct.project),
            selectinload(SoftwareProduct.releases),
            selectinload(SoftwareProduct.types),
        )
        return [_document(master, product) for product in session.scalars(statement)]

    return master.read(read)


def _show(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    from slapos.master.catalog import products  # noqa: PLC0415

    return master.read(
        lambda session: [_document(master, products.find_product(session, arguments.product))]
    )


def _add(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    from slapos.master.catalog import products  # noqa: PLC0415

    if arguments.project is None:
        raise InvalidRequest("add needs --project PROJ-n")

    def work(session: "Session") -> Products:
        made = products.create(
            session, master.clock, project=arguments.project, title=arguments.product
        )
        return [_extend(master, session, made.reference, arguments)]

    return master.write(work)


def _add_release(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    if arguments.url is None:
        raise InvalidRequest("add-release needs --url URL")
    return master.write(lambda session: [_extend(master, session, arguments.product, arguments)])


def _extend(
    master: "OfflineMaster", session: "Session", reference: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Give a product what the options name."""
    from slapos.master.catalog import products  # noqa: PLC0415
    from slapos.master.catalog.model import ProductState  # noqa: PLC0415

    if arguments.url is not None:
        products.add_release(
            session,
            master.clock,
            reference,
            url=arguments.url,
            version=arguments.release_version,
            schema_url=arguments.schema_url,
        )
    for word in arguments.type:
        name, weight = _weighed(word)
        products.add_type(session, reference, name=name, weight=weight)
    if arguments.publish:
        products.change(session, reference, {"state": ProductState.PUBLISHED})
    return _document(master, products.find_product(session, reference))


def _weighed(word: str) -> tuple[str, int]:
    name, sign, weight = word.rpartition("=")
    if not sign:
        return word, 1
    if not (weight.isascii() and weight.isdigit()):
        raise InvalidRequest(f"--type is {word}; it is such as large=4")
    return name, int(weight)


def _publish(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    return _become(master, arguments, "published")


def _withdraw(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    return _become(master, arguments, "withdrawn")


def _become(master: "OfflineMaster", arguments: argparse.Namespace, state: str) -> Products:
    from slapos.master.catalog import products  # noqa: PLC0415
    from slapos.master.catalog.model import ProductState  # noqa: PLC0415

    return master.write(
        lambda session: [
            _document(
                master,
                products.change(session, arguments.product, {"state": ProductState(state)}),
            )
        ]
    )


def _remove(master: "OfflineMaster", arguments: argparse.Namespace) -> Products:
    from slapos.master.catalog import products  # noqa: PLC0415

    def work(session: "Session") -> Products:
        shown = _document(master, products.find_product(session, arguments.product))
        products.remove(session, arguments.product)
        return [shown | {"state": "removed"}]

    return master.write(work)


def _document(master: "OfflineMaster", product: "SoftwareProduct") -> dict[str, Any]:
    from slapos.master.catalog import service  # noqa: PLC0415

    releases = service.best_first(product.releases, master.clock.now())
    return {
        "reference": product.reference,
        "title": product.title,
        "project": product.project.reference,
        "state": str(product.state),
        "releases": [release.url for release in releases],
        "types": [each.name for each in product.types],
    }


ACTIONS: dict[str, Callable[["OfflineMaster", argparse.Namespace], Products]] = {
    "list": _list,
    "show": _show,
    "add": _add,
    "add-release": _add_release,
    "publish": _publish,
    "withdraw": _withdraw,
    "remove": _remove,
}
