"""Who was not let in, in the audit log: counted together, so that the log cannot be flooded."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from slapos.master.audit.model import Act, Refusal
from slapos.master.audit.recording import record
from slapos.master.identity.subject import Kind, Subject
from slapos.system.clock import Clock

#: For so long the same is counted together.
TOGETHER = timedelta(hours=1)
#: So many of one reason are told apart at a time: what comes then is counted together.
APART = 200
#: What an entry calls what is nothing of the master's.
UNKNOWN = "unknown"
#: Rows that become entries in one transaction.
PIECE = 500

_APART = select(func.count()).select_from(
    select(Refusal.reason).where(Refusal.reason == bindparam("reason")).limit(APART).subquery()
)
_OVER = (
    select(Refusal)
    .where(Refusal.since <= bindparam("before"))
    .order_by(Refusal.since)
    .limit(PIECE)
    .with_for_update(skip_locked=True)
)


@dataclass(frozen=True)
class Refused:
    """What was refused, why, and whence it came; `subject` is "" of its kind for what is not."""

    reason: str
    subject: Subject
    address: str


def note(session: Session, clock: Clock, refused: Refused, times: int = 1) -> None:
    """Count what was refused, and write the first of it into the log; asks for no right."""
    row = _find(session, refused)
    if row is None and (session.scalar(_APART, {"reason": refused.reason}) or 0) >= APART:
        refused = replace(refused, subject=Subject(refused.subject.kind, ""), address="")
        row = _find(session, refused)
    now, subject = clock.now(), refused.subject
    if row is not None:
        row.count += times
        row.last_at = now
    else:
        # Another one may make the same row: then this transaction is done again.
        row = Refusal(
            reason=refused.reason,
            object_kind=subject.kind,
            object=subject.name,
            address=refused.address,
            project_id=subject.project_id,
            owner_id=subject.owner_id,
            since=now,
            last_at=now,
            count=times,
        )
        session.add(row)
        _write(session, clock, row, times)
    session.flush()


def write_counted(session: Session, clock: Clock) -> int:
    """Write what has been counted for long enough; return how much of it there was."""
    rows = session.scalars(_OVER, {"before": clock.now() - TOGETHER}).all()
    for row in rows:
        if row.count > 1:
            _write(session, clock, row, row.count)
        session.delete(row)
    session.flush()
    return len(rows)


def _find(session: Session, refused: Refused) -> Refusal | None:
    subject = refused.subject
    key = (refused.reason, subject.kind, subject.name, refused.address)
    return session.get(Refusal, key, with_for_update=True)


def _write(session: Session, clock: Clock, row: Refusal, times: int) -> None:
    subject = Subject(Kind(row.object_kind), row.object or UNKNOWN, row.project_id, row.owner_id)
    record(
        session,
        clock,
        Act.REFUSE,
        subject,
        {
            "reason": [None, row.reason],
            "address": [None, row.address or "several"],
            "times": [None, times],
            "since": [None, _text(row.since)],
            "until": [None, _text(row.last_at)],
        },
    )


def _text(moment: datetime) -> str:
    return moment.isoformat()
