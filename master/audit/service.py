"""Reading the audit log, and forgetting what is too old."""

from datetime import datetime

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from slapos.master.audit.model import AuditEntry
from slapos.master.identity.rights import visible
from slapos.master.identity.subject import Kind

#: Entries that are forgotten in one transaction.
PIECE = 5000


def entries(
    session: Session,
    *,
    object: str | None = None,
    caller: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Select[AuditEntry]:
    """Return the SELECT of the entries that the session's caller may see, `until` not included."""
    found = select(AuditEntry)
    if object is not None:
        found = found.where(AuditEntry.object == object)
    if caller is not None:
        found = found.where(AuditEntry.caller == caller)
    if since is not None:
        found = found.where(AuditEntry.at >= since)
    if until is not None:
        found = found.where(AuditEntry.at < until)
    return visible(
        session, found, Kind.AUDIT, project=AuditEntry.project_id, owner=AuditEntry.owner_id
    )


def forget(session: Session, before: datetime) -> int:
    """Forget a piece of what was written down before some time; return how much that was.

    This is the only way by which an entry goes.
    """
    old = (
        select(AuditEntry.id)
        .where(AuditEntry.at < before)
        .order_by(AuditEntry.at, AuditEntry.id)
        .limit(PIECE)
    )
    ids = session.scalars(old).all()
    if ids:
        session.execute(
            delete(AuditEntry).where(AuditEntry.id.in_(ids)),
            execution_options={"synchronize_session": False},
        )
    return len(ids)
