"""What the master does with nodes by itself."""

from datetime import timedelta

from sqlalchemy import delete, select, tuple_
from sqlalchemy.engine import CursorResult

from slapos.master.certificates import service as certificates
from slapos.master.certificates.authority import SubjectKind
from slapos.master.nodes import operate, service
from slapos.master.nodes.model import ComputeNode, TakenReport
from slapos.master.tasks.task import Done, Task, Turn

#: How many nodes are looked at in one transaction.
PIECE = 100
#: How long the identifiers of reports are remembered.
REMEMBERED = timedelta(days=90)
#: Nodes that are looked at for old reports, and reports forgotten, in one transaction at most.
NODES = 500
REPORTS = 5000


def _invalidate_closed(turn: Turn) -> Done:
    references, resume = turn.keys, ""
    if references is None:
        sought = {"behind": turn.resume, "limit": PIECE}
        references = turn.session.scalars(operate.CLOSED, sought).all()
        resume = references[-1] if len(references) == PIECE else ""
    count = 0
    for each in sorted(references):
        gone = operate.invalidate_if_empty(turn.session, each, turn.clock.now())
        if gone is not None:
            certificates.revoke_all_of(turn.session, turn.clock, SubjectKind.NODE, gone.id)
            count += 1
    return Done(count=count, resume=resume)


def forget_taken_reports(turn: Turn) -> Done:
    """Forget the identifiers of reports that were taken long ago, node after node."""
    session, until = turn.session, turn.clock.now() - REMEMBERED
    after = int(turn.resume or 0)
    listed = (
        select(ComputeNode.id).where(ComputeNode.id > after).order_by(ComputeNode.id).limit(NODES)
    )
    ids = session.scalars(listed).all()
    # By node, as the index is: so what is young is never read.
    old = (
        select(TakenReport.node_id, TakenReport.report_id)
        .where(TakenReport.node_id.in_(listed), TakenReport.taken_at < until)
        .limit(REPORTS)
    )
    key = tuple_(TakenReport.node_id, TakenReport.report_id)
    forget = delete(TakenReport).where(key.in_(old))
    gone = session.execute(forget, execution_options={"synchronize_session": False})
    assert isinstance(gone, CursorResult)
    count = gone.rowcount
    if count == REPORTS:
        return Done(count=count, resume=str(after))
    return Done(count=count, resume=str(ids[-1]) if len(ids) == NODES else "")


TASKS = (
    Task(
        name=service.INVALIDATE_CLOSED_NODES,
        summary="take nodes that are closed for ever out of use, once nothing is on them",
        run=_invalidate_closed,
        every=timedelta(days=1),
    ),
    Task(
        name="forget_taken_reports",
        summary="forget which reports of nodes were taken more than 90 days ago",
        run=forget_taken_reports,
        every=timedelta(days=1),
    ),
)
