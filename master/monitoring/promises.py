"""How the promises of instances do, as nodes tell: what is now, and when that changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from slapos.master.identity.rights import Action, not_there, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.monitoring.model import (
    NAME_LENGTH,
    InstancePromise,
    PromiseChange,
    PromiseReport,
)
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.text import kept_message
from slapos.system.clock import Clock

#: How long changes are remembered, and how many of one instance at most.
REMEMBERED = timedelta(days=90)
KEPT = 500
#: Characters of a message that are kept in the history: its end.
CHANGE_LENGTH = 1000
#: Changes that are forgotten in one transaction.
PIECE = 5000

INSTANCE = select(SoftwareInstance).where(SoftwareInstance.reference == bindparam("reference"))
PROMISES = (
    select(InstancePromise)
    .where(InstancePromise.instance_id == bindparam("instance"))
    .order_by(InstancePromise.name)
)
_OF_INSTANCE = PromiseChange.instance_id == bindparam("instance")
#: The newest change that is one too many.
TOO_OLD = (
    select(PromiseChange.id)
    .where(_OF_INSTANCE)
    .order_by(PromiseChange.id.desc())
    .offset(KEPT)
    .limit(1)
)
FORGET = delete(PromiseChange).where(_OF_INSTANCE, PromiseChange.id <= bindparam("last"))
OLD = select(PromiseChange.id).where(PromiseChange.told_at < bindparam("until")).limit(PIECE)
FORGET_OLD = delete(PromiseChange).where(PromiseChange.id.in_(OLD))

_PLAINLY = {"synchronize_session": False}


@dataclass(frozen=True, kw_only=True)
class PromiseFound:
    """How a promise does; `at` is since when, None when the node does not say."""

    name: str
    title: str
    failed: bool
    message: str
    at: datetime | None = None


def take_in(
    session: Session, clock: Clock, instance_id: int, results: Sequence[PromiseFound]
) -> None:
    """Take in how all promises of an instance do: those that are not told of are no more."""
    now = clock.now()
    known = {each.name: each for each in session.scalars(PROMISES, {"instance": instance_id})}
    report = session.get(PromiseReport, instance_id)
    if report is None:
        session.add(PromiseReport(instance_id=instance_id, heard_at=now))
    else:
        report.heard_at = now
    told = {kept_message(result.name)[:NAME_LENGTH]: result for result in results}
    changes = 0
    for name, result in told.items():
        promise = known.pop(name, None)
        if promise is None:
            promise = InstancePromise(instance_id=instance_id, name=name, failed=False, since=now)
            promise.since = now if result.at is None else min(result.at, now)
            session.add(promise)
        if _change(session, promise, result, now):
            changes += 1
    for promise in known.values():
        session.delete(promise)
    session.flush()
    if changes:
        last = session.scalar(TOO_OLD, {"instance": instance_id})
        if last is not None:
            which = {"instance": instance_id, "last": last}
            session.execute(FORGET, which, execution_options=_PLAINLY)


def _change(
    session: Session, promise: InstancePromise, result: PromiseFound, now: datetime
) -> bool:
    """Have a promise be as it was found; return whether it failed, or held again."""
    promise.title = kept_message(result.title)[:NAME_LENGTH]
    promise.message = kept_message(result.message)
    if promise.failed == result.failed:
        return False
    promise.failed = result.failed
    promise.since = now if result.at is None else min(result.at, now)
    session.add(
        PromiseChange(
            instance_id=promise.instance_id,
            name=promise.name,
            failed=promise.failed,
            message=promise.message[-CHANGE_LENGTH:],
            at=promise.since,
            told_at=now,
        )
    )
    return True


def find_instance(session: Session, reference: str) -> SoftwareInstance:
    """Return an instance whose promises the caller may see; raises NotFound."""
    instance = session.scalar(INSTANCE, {"reference": reference})
    if instance is None:
        raise not_there(Subject(Kind.INSTANCE, reference))
    require(session, Action.SEE, instance)
    return instance


def heard_at(session: Session, instance: SoftwareInstance) -> datetime | None:
    """Return when its promises were told last."""
    report = session.get(PromiseReport, instance.id)
    return None if report is None else report.heard_at


def promises_of(session: Session, instance: SoftwareInstance) -> Sequence[InstancePromise]:
    """Return the promises of an instance, by name."""
    return session.scalars(PROMISES, {"instance": instance.id}).all()


def changes_of(instance: SoftwareInstance, name: str | None = None) -> Select[PromiseChange]:
    """Return a SELECT of when promises of an instance failed or held again; of one, with `name`."""
    statement = select(PromiseChange).where(PromiseChange.instance_id == instance.id)
    return statement if name is None else statement.where(PromiseChange.name == name)


def forget_old(session: Session, until: datetime) -> int:
    """Forget changes that were told before some time, up to PIECE; return how many."""
    gone = session.execute(FORGET_OLD, {"until": until}, execution_options=_PLAINLY)
    assert isinstance(gone, CursorResult)
    return gone.rowcount
