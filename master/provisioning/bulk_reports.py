"""Taking in what a node says of many instances at once: one look, one statement to write.

Only what is plain is taken so: states and errors that a node tells of instances of its own. All
else, and whatever is wrong, goes the long way, one by one. What is said again and changes nothing
is written only now and then: that it was said.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    Executable,
    Integer,
    String,
    any_,
    bindparam,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.nodes.exchange import heard_from, tell_anew
from slapos.master.nodes.model import ComputeNode, ComputePartition, TakenReport
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.reported import Reported
from slapos.master.text import kept_message
from slapos.master.timestamp import from_timestamp, read_moment
from slapos.protocol.errors import InvalidRequest
from slapos.protocol.node_reports import Report, is_plain_state
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock

#: How old the written time of the last report may be, when it says nothing new.
TIME_KEPT = timedelta(minutes=1)

_INSTANCES_OF_NODE = (
    select(
        ComputePartition.reference,
        SoftwareInstance.id,
        SoftwareInstance.revision,
        SoftwareInstance.changed_at,
        SoftwareInstance.reported_state,
        SoftwareInstance.error,
        SoftwareInstance.reported_at,
        SoftwareInstance.reported_for,
        SoftwareInstance.reported_since,
    )
    .join(SoftwareInstance, SoftwareInstance.partition_id == ComputePartition.id)
    .where(ComputePartition.node_id == bindparam("node"))
)
_FAILING_SHARED = select(SoftwareInstance.host_id).where(SoftwareInstance.error != "")
_TAKEN = select(TakenReport.report_id).where(TakenReport.node_id == bindparam("node"))


@dataclass(frozen=True)
class _Statements:
    """What a database is asked: the instances in some partitions, and failed shared ones of hosts.

    A list is one value to PostgreSQL, and for SQLite as many as it has.
    """

    instances: Executable
    failing_hosts: Executable


ON_POSTGRESQL = _Statements(
    _INSTANCES_OF_NODE.where(
        ComputePartition.reference == any_(bindparam("partitions", type_=ARRAY(String)))
    ),
    _FAILING_SHARED.where(
        SoftwareInstance.host_id == any_(bindparam("hosts", type_=ARRAY(Integer)))
    ),
)
ON_SQLITE = _Statements(
    _INSTANCES_OF_NODE.where(
        ComputePartition.reference.in_(bindparam("partitions", expanding=True))
    ),
    _FAILING_SHARED.where(SoftwareInstance.host_id.in_(bindparam("hosts", expanding=True))),
)
TAKEN = _TAKEN.where(TakenReport.report_id.in_(bindparam("reports", expanding=True)))
_INSTANCES: Any = SoftwareInstance.__table__
WRITE = (
    update(_INSTANCES)
    .where(_INSTANCES.c.id == bindparam("instance"), _INSTANCES.c.revision == bindparam("known"))
    .values(
        reported_state=bindparam("state"),
        error=bindparam("message"),
        reported_at=bindparam("at"),
        reported_for=bindparam("about"),
        reported_since=bindparam("since"),
        revision=_INSTANCES.c.revision + 1,
    )
)
#: The same, and the reports' ids, of all at once.
WRITE_ALL = text(
    "UPDATE software_instances AS i SET reported_state = n.state, error = n.message, "
    "reported_at = n.at, reported_for = n.about, reported_since = n.since, "
    "revision = i.revision + 1 "
    "FROM unnest(CAST(:instance AS integer[]), CAST(:known AS integer[]), CAST(:state AS text[]), "
    "CAST(:message AS text[]), CAST(:at AS timestamptz[]), CAST(:about AS timestamptz[]), "
    "CAST(:since AS timestamptz[])) AS n(instance, known, state, message, at, about, since) "
    "WHERE i.id = n.instance AND i.revision = n.known"
)
TAKE_ALL = text(
    "INSERT INTO taken_reports (node_id, report_id, taken_at) "
    "SELECT :node, unnest(CAST(:reports AS text[])), CAST(:now AS timestamptz) "
    "ON CONFLICT DO NOTHING RETURNING report_id"
)


@dataclass(frozen=True)
class _Told:
    """A report: what it says, and when that was so by the node's word."""

    id: str
    state: str | None
    error: str | None
    about: datetime | None
    since: datetime | None

    @property
    def says_something(self) -> bool:
        """Whether it says a state or an error."""
        return bool(self.state or self.error)

    def added_to(self, reported: Reported, now: datetime, changed_at: datetime) -> Reported:
        """Return what is known with this report."""
        about = changed_at if self.about is None else self.about
        if self.state:
            reported = reported.with_state(self.state, now, about, self.since)
        if self.error:
            reported = reported.with_error(self.error, now, about, self.since)
        return reported


@dataclass(frozen=True)
class _Said:
    """All that is told of an instance, in order; `row` is what was known of it."""

    row: Any
    told: Sequence[_Told]

    @property
    def tells_of_shared(self) -> bool:
        """Whether it says something of the shared instances that it hosts, too."""
        return any(each.state for each in self.told)


@dataclass(frozen=True)
class _Outcome:
    """What was known of an instance, and what is now."""

    row: Any
    before: Reported
    now: Reported

    @property
    def is_new(self) -> bool:
        """Whether there is something to be written."""
        before, at = self.before, self.now.at
        if at is None or replace(before, at=at) != self.now:
            return before != self.now
        return before.at is None or not timedelta(0) <= at - before.at < TIME_KEPT

    @property
    def is_told(self) -> bool:
        """Whether it changes what the node is told of the instance."""
        return (self.before.state, self.before.error) != (self.now.state, self.now.error)


def take_in(session: Session, clock: Clock, node: ComputeNode, batch: Sequence[Report]) -> Set[str]:
    """Take in the reports that are plain; return their ids, and of those known already.

    Of a partition either all that is said of its instance is taken in here, or nothing.
    """
    groups = _plain(batch) if _says_itself(session, node) else {}
    if not groups:
        return set()
    said = _said(session, node.id, groups)
    ids = [each.id for instance in said for each in instance.told]
    now = clock.now()
    new = _take(session, node.id, ids, now) if ids else set()
    outcomes = [_outcome(each, new, now) for each in said]
    _write(session, [each for each in outcomes if each.is_new])
    if any(each.is_told for each in outcomes):
        tell_anew(session, node.id)
    return set(ids)


def take_one(
    session: Session,
    clock: Clock,
    node: str,
    partition: str,
    *,
    state: InstanceState | None = None,
    error: str | None = None,
    about: datetime | None = None,
) -> bool:
    """Take in what a node says of one instance of its own; return whether that was plain."""
    caller = caller_of(session)
    if caller.kind is not CallerKind.NODE or caller.name != node or caller.id is None:
        return False
    told = _Told("", state, kept_message(error) if error else None, about, None)
    if state not in (InstanceState.STARTED, InstanceState.STOPPED, None) or not told.says_something:
        return False
    said, now = _said(session, caller.id, {partition: [told]}), clock.now()
    if not said:
        return False
    heard_from(session, caller.id, now)
    outcome = _outcome(said[0], {told.id}, now)
    _write(session, [outcome] if outcome.is_new else [])
    if outcome.is_told:
        tell_anew(session, caller.id)
    return True


def seen(session: Session, node: ComputeNode, ids: Sequence[str]) -> Set[str]:
    """Return those ids of reports that a node has told already."""
    return set(session.scalars(TAKEN, {"node": node.id, "reports": list(ids)})) if ids else set()


def _says_itself(session: Session, node: ComputeNode) -> bool:
    """Return whether the caller may report on all that the node holds."""
    caller = caller_of(session)
    return caller.may_all or (caller.kind is CallerKind.NODE and caller.id == node.id)


def _plain(batch: Sequence[Report]) -> Mapping[str, Sequence[_Told]]:
    """Return the reports of each partition of whose instance nothing but plain things are said."""
    groups: dict[str, list[_Told]] = {}
    known, odd = set(), set()
    for report in batch:
        if report.get("kind") != "instance" or report["id"] in known:
            continue
        known.add(report["id"])
        told = _read(report)
        if told is None:
            odd.add(str(report.get("partition")))
        else:
            groups.setdefault(report["partition"], []).append(told)
    return {name: reports for name, reports in groups.items() if name not in odd}


def _read(report: Report) -> _Told | None:
    """Return what a report says, None if it is not plain."""
    if not is_plain_state(report):
        return None
    error, timestamp, since = report.get("error"), report.get("timestamp"), report.get("since")
    try:
        return _Told(
            id=report["id"],
            state=report.get("state"),
            error=kept_message(error) if error else None,
            about=None if timestamp is None else from_timestamp(timestamp),
            since=None if since is None else read_moment(since),
        )
    except InvalidRequest:
        return None


def _said(session: Session, node_id: int, groups: Mapping[str, Sequence[_Told]]) -> Sequence[_Said]:
    """Return what is told of instances that are there, and that host none that failed."""
    ask = ON_POSTGRESQL if _is_postgresql(session) else ON_SQLITE
    rows = session.execute(ask.instances, {"node": node_id, "partitions": list(groups)})
    said = [_Said(row, groups[row.reference]) for row in rows]
    hosts = [each.row.id for each in said if each.tells_of_shared]
    failing = set(session.scalars(ask.failing_hosts, {"hosts": hosts})) if hosts else set()
    return [each for each in said if each.row.id not in failing]


def _outcome(said: _Said, new: Set[str], now: datetime) -> _Outcome:
    row = said.row
    before = known = Reported(
        row.reported_state, row.error, row.reported_at, row.reported_for, row.reported_since
    )
    for each in said.told:
        if each.id in new:
            known = each.added_to(known, now, row.changed_at)
    return _Outcome(row, before, known)


def _take(session: Session, node_id: int, ids: Sequence[str], now: datetime) -> Set[str]:
    """Remember which reports were taken; return those that are new."""
    if _is_postgresql(session):
        return set(session.scalars(TAKE_ALL, {"node": node_id, "reports": ids, "now": now}))
    new = set(ids) - set(session.scalars(TAKEN, {"node": node_id, "reports": ids}))
    rows = [{"node_id": node_id, "report_id": each, "taken_at": now} for each in sorted(new)]
    if rows:
        session.execute(insert(TakenReport), rows)
    return new


def _write(session: Session, said: Sequence[_Outcome]) -> None:
    """Write what is known; raise StaleDataError when somebody else has written meanwhile."""
    if not said:
        return
    rows = [
        {
            "instance": each.row.id,
            "known": each.row.revision,
            "state": each.now.state,
            "message": each.now.error,
            "at": each.now.at,
            "about": each.now.about,
            "since": each.now.since,
        }
        for each in said
    ]
    connection = session.connection()
    if _is_postgresql(session):
        result = connection.execute(WRITE_ALL, {name: [r[name] for r in rows] for name in rows[0]})
    else:
        result = connection.execute(WRITE, rows)
    if result.rowcount != len(rows):
        raise StaleDataError("an instance has changed while its node told of it")
    for each in session.identity_map.values():
        if isinstance(each, SoftwareInstance):
            session.expire(each)


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
