"""The audit log over HTTP."""

from typing import Annotated, Any

from flask import Blueprint
from pydantic import AwareDatetime, Field

from slapos.master import rest
from slapos.master.audit import service
from slapos.master.audit.model import AuditEntry
from slapos.master.http import context

blueprint = Blueprint("audit", __name__, url_prefix="/v1/audit")


class AuditQuery(rest.PagedQuery):
    """Which entries are looked for."""

    object: Annotated[str | None, Field(description="Such as SOFTINST-3.")] = None
    caller: Annotated[str | None, Field(description="Such as P-2.")] = None
    since: AwareDatetime | None = None
    until: Annotated[AwareDatetime | None, Field(description="It is not included.")] = None


class EntryShown(rest.Answer):
    """That somebody has made, changed or deleted something.

    `changes` are fields with what they were and what they are then; null is not told, or nothing.
    """

    at: rest.Time
    caller_kind: str
    caller: str
    request_id: str | None
    act: str
    object_kind: str
    object: str
    changes: dict[str, Any]


class EntriesShown(rest.Paged):
    """Entries of the audit log, the newest first."""

    entries: list[EntryShown]


@blueprint.get("")
@rest.operation(
    summary="Show who has changed what, the newest first", query=AuditQuery, answer=EntriesShown
)
def show_entries(query: AuditQuery) -> dict[str, Any]:
    """Show who has changed what."""
    session = context().session
    statement = service.entries(
        session,
        object=query.object,
        caller=query.caller,
        since=query.since,
        until=query.until,
    )
    keys = [AuditEntry.at, AuditEntry.id]
    found = rest.page(session, statement, keys, query, descending=True)
    return {"entries": found.items, "next": found.next}
