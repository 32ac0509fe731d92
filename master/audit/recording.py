"""Writing the audit log: what a session has flushed of things that somebody may have rights on.

All that one flush has changed is one INSERT, in the same transaction. What is changed by a
statement beside the mapped classes (UPDATE … WHERE) is not seen here: whoever writes one calls
`record`, or for new things `database.tell_made`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    Insert,
    LargeBinary,
    Text,
    bindparam,
    event,
    insert,
    inspect,
    select,
    union_all,
)
from sqlalchemy.orm import ColumnProperty, Session, sessionmaker

from slapos.master.audit.model import NAME_LENGTH, Act, AuditEntry
from slapos.master.audit.parts import PARTS, THEMSELVES
from slapos.master.database import Base, follow_made
from slapos.master.identity.caller import caller_of
from slapos.master.identity.subject import Subject
from slapos.master.traffic.request_id import request_of
from slapos.system.clock import Clock

#: Tables whose changes follow from others that are told, or that are many and say little.
LEFT_OUT = frozenset({"compute_partitions", AuditEntry.__tablename__})
#: Fields that only count, or that nodes and instances report all the time.
IGNORED = frozenset(
    {
        "answered_at",
        "asking_until",
        "credentials_until",
        "revision",
        "vacant",
        "changed_at",
        "connection",
        "contacted_at",
        "created_at",
        "error",
        "failing_since",
        "failures",
        "formatted_at",
        "id",
        "last_used_at",
        "message",
        "next_at",
        "orphaned_at",
        "reported_at",
        "reported_for",
        "reported_since",
        "reported_state",
        "waiting_code",
        "waiting_reason",
    }
)
#: Values of such fields are not told: they may be secrets, or say who somebody is.
_HIDDEN = re.compile(r"token|secret|password|hash|digest|key|pem|email|seed|code")
#: An address with a word in it that opens a door.
_HIDDEN_FIELDS = frozenset({"webhooks.url"})
#: What a value of any length may be; URLs and titles have an end.
_UNTOLD_TYPES = (JSON, LargeBinary, Text)
_USERINFO = re.compile(r"//[^/@\s]*@")
_PENDING = "slapos_audit"
_ENTRIES = Base.metadata.tables[AuditEntry.__tablename__]
#: How many rows are written by one statement that is kept; for more, the driver sends many.
_AT_ONCE = 2

#: Is told of the rows that a flush has put into the log.
Then = Callable[[Session, Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class _Seen:
    """What a flush has done with a thing; its subject is None until the flush is over."""

    thing: Base
    act: Act
    changes: Mapping[str, Any]
    subject: Subject | None


def record_changes(sessions: sessionmaker[Session], clock: Clock, *then: Then) -> None:
    """Have the sessions of this maker write the audit log; each `then` is told what was written."""

    def write(session: Session, seen: Sequence[_Seen]) -> None:
        rows = list(_rows(session, clock.now(), seen)) if seen else ()
        if rows:
            _insert(session, rows)
            for tell in then:
                tell(session, rows)

    def write_flushed(session: Session, _context: Any) -> None:
        write(session, session.info.pop(_PENDING, ()))

    def write_made(session: Session, things: Sequence[Base]) -> None:
        write(session, [_created(each) for each in things if _is_told(each)])

    # What has changed is known until the flush is over, and whose it is only then.
    event.listen(sessions, "after_flush", _collect)
    event.listen(sessions, "after_flush_postexec", write_flushed)
    follow_made(sessions, write_made)
    event.listen(sessions, "after_soft_rollback", _forget)


def record(
    session: Session, clock: Clock, act: Act, subject: Subject, changes: Mapping[str, Any]
) -> None:
    """Write down what no flush shows; `changes` are fields, and none of them is a secret."""
    _insert(session, [_row(session, clock.now(), act, subject, changes)])


def _insert(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) > _AT_ONCE:
        session.connection().execute(insert(_ENTRIES), list(rows))
        return
    values = {f"{name}_{n}": value for n, row in enumerate(rows) for name, value in row.items()}
    session.connection().execute(_insert_of(len(rows)), values)


@cache
def _insert_of(count: int) -> Insert:
    """Return the statement that writes so many rows: one is as quick as the driver is with one."""
    columns = [each for each in _ENTRIES.columns if not each.primary_key]
    rows = [
        select(*(bindparam(f"{each.name}_{n}", type_=each.type) for each in columns))
        for n in range(count)
    ]
    return insert(_ENTRIES).from_select(columns, union_all(*rows), include_defaults=False)


def _collect(session: Session, _context: Any) -> None:
    seen = [
        *(_created(each) for each in session.new if _is_told(each)),
        *_changed(session),
        *_deleted(session),
    ]
    if seen:
        session.info[_PENDING] = seen


def _created(thing: Base) -> _Seen:
    return _Seen(thing, Act.CREATE, _values(thing), None)


def _changed(session: Session) -> Iterator[_Seen]:
    for thing in session.dirty:
        changes = _differences(thing) if _is_told(thing) else {}
        if changes:
            yield _Seen(thing, Act.CHANGE, changes, None)


def _deleted(session: Session) -> Iterator[_Seen]:
    for thing in session.deleted:
        if _is_told(thing):
            changes = {name: [told, None] for name, (_, told) in _values(thing).items()}
            subject = _subject(session, thing)  # as long as it is there
            if subject is not None:
                yield _Seen(thing, Act.DELETE, changes, subject)


def _forget(session: Session, _undone: object) -> None:
    session.info.pop(_PENDING, None)


def _is_told(thing: Base) -> bool:
    table = thing.__tablename__
    return table in PARTS or (hasattr(thing, "subject") and table not in LEFT_OUT)


def _subject(session: Session, thing: Base) -> Subject | None:
    whole_of = PARTS.get(thing.__tablename__)
    if whole_of is not None:
        return whole_of(session, thing)
    ask: Callable[[], Subject] = thing.subject  # type: ignore[attr-defined]
    return ask()


def _rows(session: Session, now: datetime, seen: Sequence[_Seen]) -> Iterator[dict[str, Any]]:
    """Give the rows of the log: what is done with a part is a change of the whole."""
    for each in seen:
        with session.no_autoflush:
            subject = each.subject or _subject(session, each.thing)
        table = each.thing.__tablename__
        if subject is None:
            continue
        if table in PARTS and table not in THEMSELVES:
            changes = {f"{table}.{name}": change for name, change in each.changes.items()}
            yield _row(session, now, Act.CHANGE, subject, changes)
        else:
            yield _row(session, now, each.act, subject, each.changes)


def _row(
    session: Session, now: datetime, act: Act, subject: Subject, changes: Mapping[str, Any]
) -> dict[str, Any]:
    caller = caller_of(session)
    return {
        "at": now,
        "caller_kind": caller.kind,
        "caller": caller.name[:NAME_LENGTH],
        "request_id": request_of(session),
        "act": act,
        "object_kind": subject.kind,
        "object": _without_password(subject.name)[:NAME_LENGTH],
        "project_id": subject.project_id,
        "owner_id": subject.owner_id,
        "changes": dict(changes),
    }


def _columns(thing: Base) -> Iterator[ColumnProperty[Any]]:
    for attribute in inspect(thing).mapper.column_attrs:
        if attribute.key not in IGNORED:
            yield attribute


def _values(thing: Base) -> dict[str, Any]:
    """Return the fields of what is new that have a value."""
    return {
        column.key: [None, _told(column, value)]
        for column in _columns(thing)
        if (value := getattr(thing, column.key)) is not None
    }


def _differences(thing: Base) -> dict[str, Any]:
    """Return the fields that have another value than before."""
    changes = {}
    attributes = inspect(thing).attrs
    for column in _columns(thing):
        history = attributes[column.key].history
        if history.has_changes():
            before = history.deleted[0] if history.deleted else None
            after = history.added[0] if history.added else None
            changes[column.key] = [_told(column, before), _told(column, after)]
    return changes


def _told(column: ColumnProperty[Any], value: Any) -> Any:
    """Return a value as the log tells it; None for one that it does not tell."""
    field = column.columns[0]
    if _HIDDEN.search(column.key) or isinstance(field.type, _UNTOLD_TYPES):
        return None
    if str(field) in _HIDDEN_FIELDS:
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return _without_password(str(value))
    return value if isinstance(value, bool | int | float | None) else None


def _without_password(text: str) -> str:
    return _USERINFO.sub("//…@", text)
