"""List the people of a master, invite and suspend them, give and take roles, reset passwords.

It works on the database itself; the master need not be running. PERSON is an e-mail address or a
reference such as P-2. A role is had in a project, or everywhere without --project, as an
administrator's always is. Links are printed once: give them to the person that they are
for. Invitations are sent by e-mail as well where the settings name a mail server (smtp_url).

examples:
  slapos master user list
  slapos master user invite somebody@example.com --role customer --project PROJ-2
  slapos master user invite somebody@example.com --role administrator
  slapos master user add-role P-2 --role production_agent --project PROJ-2
  slapos master user remove-role P-2 --role administrator
  slapos master user suspend P-2
  slapos master user admit P-2
  slapos master user reset-password P-2
  slapos master user remove-second-factor P-2

exit status: 0 done, 1 failed or refused
"""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slapos.command.columns import plain
from slapos.command.master_options import act, add_master_arguments, show_rows
from slapos.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from slapos.master.offline import OfflineMaster

COLUMNS = {
    "reference": "REFERENCE",
    "email": "E-MAIL",
    "name": "NAME",
    "state": "STATE",
    "roles": "ROLES",
}
Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("person", metavar="PERSON", nargs="?", help="an e-mail address, or P-n")
    parser.add_argument("--role", metavar="ROLE", help="customer, production_manager, …")
    parser.add_argument("--project", metavar="PROJ-n", help="where the role is; else everywhere")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what there is then."""
    report = act(arguments, ACTIONS, "person")
    if arguments.json:
        print(json.dumps(report, indent=2))
    elif "persons" in report:
        show_rows(report["persons"], COLUMNS, str)
    else:
        print("\n".join(f"{key}: {plain(str(value))}" for key, value in report.items()))
    return 0


def _list(master: "OfflineMaster", _arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415 - not for `--help`

    return {
        "persons": master.read(
            lambda session: [
                {
                    "reference": person.reference,
                    "email": person.email or "",
                    "name": person.name,
                    "state": str(person.state),
                    "roles": ", ".join(sorted(_role(each) for each in person.memberships)),
                }
                for person in service.everybody(session)
            ]
        )
    }


def _role(membership: Any) -> str:
    project = membership.project
    return f"{membership.role} of {project.reference}" if project else str(membership.role)


def _invite(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import invitations  # noqa: PLC0415
    from slapos.master.mail import outbox  # noqa: PLC0415

    def invite(session: "Session") -> Report:
        invitation, secret = invitations.invite(
            session,
            master.clock,
            master.identifiers,
            email=arguments.person,
            role=_wanted_role(arguments),
            project=_project(session, arguments),
        )
        link = invitations.link_of(secret, _url(master))
        outbox.invite(session, master.clock, master.settings, invitation, link)
        return {
            "invitation": invitation.reference,
            "link": link,
            "expires": invitation.expires_at.isoformat(),
        }

    return master.write(invite)


def _suspend(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415

    return _on_person(master, arguments, service.suspend_person)


def _admit(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415

    return _on_person(master, arguments, service.admit_person)


def _on_person(
    master: "OfflineMaster",
    arguments: argparse.Namespace,
    change: "Callable[[Session, Any], None]",
) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        person = service.named_person(session, arguments.person)
        change(session, person)
        return {"person": person.reference, "state": str(person.state)}

    return master.write(work)


def _reset_password(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import links, service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        person = service.named_person(session, arguments.person)
        link = links.make_reset_link(
            session, master.clock, master.identifiers, person, _url(master)
        )
        return {"person": person.reference, "link": link, "good for": "24 hours, once"}

    return master.write(work)


def _remove_second_factor(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import second_factor  # noqa: PLC0415

    return _on_person(master, arguments, second_factor.remove)


def _add_role(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        person = service.named_person(session, arguments.person)
        project, role = _project(session, arguments), _wanted_role(arguments)
        return _told(person, service.add_role(session, master.clock, person, project, role))

    return master.write(work)


def _remove_role(master: "OfflineMaster", arguments: argparse.Namespace) -> Report:
    from slapos.master.identity import service  # noqa: PLC0415

    def work(session: "Session") -> Report:
        person = service.named_person(session, arguments.person)
        project, role = _project(session, arguments), _wanted_role(arguments)
        service.remove_role(session, person, project, role)
        return {"person": person.reference, "removed": str(role)}

    return master.write(work)


def _told(person: Any, membership: Any) -> Report:
    return {"person": person.reference, "role": _role(membership)}


def _wanted_role(arguments: argparse.Namespace) -> Any:
    from slapos.master.identity.caller import Role  # noqa: PLC0415

    try:
        return Role(arguments.role)
    except ValueError:
        raise InvalidRequest(f"--role is {arguments.role}; it can be {', '.join(Role)}") from None


def _project(session: "Session", arguments: argparse.Namespace) -> Any:
    from slapos.master.identity import service  # noqa: PLC0415

    return None if arguments.project is None else service.find_project(session, arguments.project)


def _url(master: "OfflineMaster") -> str:
    from slapos.master.web.listening import url_of  # noqa: PLC0415

    settings = master.settings
    return settings.public_url or url_of(settings.host, settings.port, "https")


ACTIONS: dict[str, Callable[["OfflineMaster", argparse.Namespace], Report]] = {
    "list": _list,
    "invite": _invite,
    "suspend": _suspend,
    "admit": _admit,
    "reset-password": _reset_password,
    "remove-second-factor": _remove_second_factor,
    "add-role": _add_role,
    "remove-role": _remove_role,
}
