"""Taking in what a node tells in one go: in order, each once, and a bad one alone is refused."""

from collections.abc import Sequence

from sqlalchemy import insert, update
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.identity.rights import Action, require
from slapos.master.monitoring import promises
from slapos.master.monitoring.promises import PromiseFound
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import heard_from
from slapos.master.nodes.model import ComputeNode, ComputePartition, TakenReport
from slapos.master.provisioning import bulk_reports, lookup, reports
from slapos.master.timestamp import from_timestamp, read_moment
from slapos.protocol.errors import InvalidRequest, NotFound, SlapOSError
from slapos.protocol.node_reports import Receipt, Refusal, Report, check_report
from slapos.protocol.states import BuildState, InstanceState
from slapos.system.clock import Clock


def take_in(session: Session, clock: Clock, reference: str, batch: Sequence[Report]) -> Receipt:
    """Take in the reports of a node, and say what became of each."""
    node = nodes.find_node(session, reference)
    require(session, Action.REPORT, node)
    heard_from(session, node.id, clock.now())
    seen = set(bulk_reports.take_in(session, clock, node, batch))
    rest = [report["id"] for report in batch if report["id"] not in seen]
    seen |= bulk_reports.seen(session, node, rest)
    taken, refused = [], []
    for report in batch:
        try:
            if report["id"] not in seen:
                _take_once(session, clock, node, report)
                seen.add(report["id"])
            taken.append(report["id"])
        except SlapOSError as error:
            refused.append(Refusal(report["id"], error.code, str(error)))
    return Receipt(tuple(taken), tuple(refused))


def _take_once(session: Session, clock: Clock, node: ComputeNode, report: Report) -> None:
    """Take in one report, or leave everything as it was and raise."""
    check_report(report)
    row = {"node_id": node.id, "report_id": report["id"], "taken_at": clock.now()}
    try:
        with session.begin_nested():
            # Another process may take the same one: then this transaction is begun anew.
            session.execute(insert(TakenReport), row)
            _take(session, clock, node.reference, report)
    except (DataError, UnicodeError) as error:
        raise InvalidRequest(f"it has text that cannot be stored: {error}") from error


def _take(session: Session, clock: Clock, node: str, report: Report) -> None:
    match report["kind"]:
        case "instance":
            _take_instance(session, clock, node, report)
        case "release":
            catalog.report(
                session,
                clock,
                node=node,
                url=report["url"],
                state=BuildState(report["state"]),
                message=report.get("message") or "",
            )
        case "related_instances":
            instance = lookup.instance_on_partition(session, node, report["partition"])
            reports.report_related(session, clock, instance, report["titles"])
        case "promises":
            _take_promises(session, clock, node, report)
        case "occupant":
            _take_occupant(session, clock, node, report)
        case _:
            pass  # nothing is done with usage yet


def _take_instance(session: Session, clock: Clock, node: str, report: Report) -> None:
    state, error = report.get("state"), report.get("error")
    timestamp, since = report.get("timestamp"), report.get("since")
    if not state and not error:
        raise InvalidRequest("it has neither a state nor an error")
    instance = lookup.instance_on_partition(session, node, report["partition"])
    about = None if timestamp is None else from_timestamp(timestamp)
    began = None if since is None else read_moment(since)
    if state:
        reports.report_state(session, clock, instance, InstanceState(state), about, began)
    if error:
        reports.report_error(session, clock, instance, error, about, began)


def _take_promises(session: Session, clock: Clock, node: str, report: Report) -> None:
    instance = lookup.instance_on_partition(session, node, report["partition"])
    about = report.get("instance")
    if about and about != instance.reference:
        raise NotFound(f"{about} is not in the partition {report['partition']} any more")
    found = [
        PromiseFound(
            name=each["name"],
            title=each.get("title") or each["name"],
            failed=each["failed"],
            message=each.get("message") or "",
            at=None if each.get("at") is None else read_moment(each["at"]),
        )
        for each in report["results"]
    ]
    promises.take_in(session, clock, instance.id, found)


def _take_occupant(session: Session, clock: Clock, node: str, report: Report) -> None:
    """Take in what a node has found in a partition that it is to leave alone."""
    partition = nodes.find_partition(session, node, report["partition"])
    instance, since = report["instance"], report.get("since")
    began = clock.now() if since is None else read_moment(since)
    found = {
        "left_instance": instance,
        "left_title": report.get("title", "") if instance else "",
        "left_since": min(began, clock.now()) if instance else None,
    }
    # Beside the mapper, as it is no news to the node.
    session.execute(
        update(ComputePartition).where(ComputePartition.id == partition.id).values(found),
        execution_options={"synchronize_session": "fetch"},
    )
