"""List the projects of a master, and make new ones.

It works on the database itself; the master need not be running. The owner manages the project and
may order in it.

examples:
  slapos master project list
  slapos master project create "shop" --owner somebody@example.com

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from slapos.command.columns import aligned, plain
from slapos.command.master_options import add_master_arguments, opened_master
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.offline import OfflineMaster

HEADER = ("REFERENCE", "TITLE", "STATE", "OWNER")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=("list", "create"), help="what to do")
    parser.add_argument("title", metavar="TITLE", nargs="?", help="of the new project")
    parser.add_argument("--owner", metavar="PERSON", help="an e-mail address, or P-n")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show the projects; with `create` the one that was made."""
    if arguments.action == "create" and not (arguments.title and arguments.owner):
        raise InvalidRequest("create needs a TITLE and --owner PERSON")
    with opened_master(arguments) as master:
        found = (_create if arguments.action == "create" else _list)(master, arguments)
    if arguments.json:
        print(json.dumps({"projects": found}, indent=2))
    else:
        rows = [[plain(str(value)) for value in each.values()] for each in found]
        print("\n".join(aligned([HEADER, *rows])))
    return 0


def _list(master: "OfflineMaster", _arguments: argparse.Namespace) -> list[dict[str, str]]:
    from sqlalchemy.orm import joinedload  # noqa: PLC0415 - not for `--help`

    from slapos.master.identity import service  # noqa: PLC0415
    from slapos.master.identity.model import Project  # noqa: PLC0415

    statement = service.projects
    return master.read(
        lambda session: [
            _document(each)
            for each in session.scalars(
                statement(session).options(joinedload(Project.owner)).order_by(Project.id)
            )
        ]
    )


def _create(master: "OfflineMaster", arguments: argparse.Namespace) -> list[dict[str, str]]:
    from slapos.master.identity import service  # noqa: PLC0415

    def work(session: "Session") -> list[dict[str, str]]:
        owner = service.named_person(session, arguments.owner)
        project = service.create_project(session, master.clock, arguments.title, owner=owner)
        return [_document(project)]

    return master.write(work)


def _document(project: Any) -> dict[str, str]:
    return {
        "reference": project.reference,
        "title": project.title,
        "state": str(project.state),
        "owner": project.owner.reference,
    }
