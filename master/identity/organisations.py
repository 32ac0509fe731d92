"""Organisations: companies that sell, or that pay for their people."""

import re
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from slapos.master import numbering
from slapos.master.identity import rights
from slapos.master.identity.model import NAME_LENGTH, Organisation
from slapos.master.identity.rights import Action
from slapos.master.identity.subject import Kind, Subject
from slapos.master.text import checked_text
from slapos.protocol.errors import InvalidFields
from slapos.system.clock import Clock

_COUNTRY = re.compile(r"[A-Z]{2}")
_ORGANISATION = select(Organisation).where(Organisation.reference == bindparam("reference"))


def organisations(session: Session) -> Select[Any]:
    """Return a SELECT of the organisations that the caller may see."""
    return rights.visible(session, select(Organisation), Kind.ORGANISATION)


def find_organisation(session: Session, reference: str, *, lock: bool = False) -> Organisation:
    """Return an organisation that the caller may see; raises NotFound."""
    statement = _ORGANISATION.with_for_update() if lock else _ORGANISATION
    organisation = session.scalar(statement, {"reference": reference})
    if organisation is None:
        raise rights.not_there(Subject(Kind.ORGANISATION, reference))
    rights.require(session, Action.SEE, organisation)
    return organisation


def create_organisation(
    session: Session, clock: Clock, title: str, country: str | None, vat_code: str | None
) -> Organisation:
    """Make an organisation."""
    rights.require(session, Action.CREATE, Subject(Kind.ORGANISATION, title))
    organisation = Organisation(
        reference=f"ORGA-{numbering.next_number(session)}", title="", created_at=clock.now()
    )
    _describe(organisation, title, country, vat_code)
    session.add(organisation)
    session.flush()
    return organisation


def change_organisation(
    session: Session,
    organisation: Organisation,
    title: str,
    country: str | None,
    vat_code: str | None,
) -> None:
    """Say what an organisation is."""
    rights.require(session, Action.CHANGE, organisation)
    _describe(organisation, title, country, vat_code)


def _describe(
    organisation: Organisation, title: str, country: str | None, vat_code: str | None
) -> None:
    if country is not None and not _COUNTRY.fullmatch(country):
        reason = "it must be two capital letters (ISO 3166-1), such as FR"
        raise InvalidFields(f"the country cannot be used: {reason}", {"country": reason})
    organisation.title = checked_text("the title", title.strip(), NAME_LENGTH)
    organisation.country = country
    organisation.vat_code = (
        None if vat_code is None else checked_text("the VAT code", vat_code.strip(), 40)
    )
