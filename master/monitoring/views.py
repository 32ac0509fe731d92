"""Lost nodes and promises over HTTP."""

from typing import Any

from flask import Blueprint
from pydantic import Field

from slapos.master import rest
from slapos.master.http import context
from slapos.master.monitoring import losses, promises
from slapos.master.monitoring.model import NodeLoss, PromiseChange
from slapos.master.nodes.shapes import Reference
from slapos.protocol.errors import Forbidden, NotFound

blueprint = Blueprint("monitoring", __name__, url_prefix="/v1")


class LossShown(rest.Answer):
    """A node that is lost."""

    node: Reference
    heard_at: rest.Time = Field(description="When it was heard last.")
    lost_at: rest.Time = Field(description="When that was noticed.")
    released_at: rest.Time | None = Field(
        description="When what is on it was given up; null: that is held back."
    )


class LossesShown(rest.Paged):
    """The nodes that are lost."""

    braked_since: rest.Time | None = Field(
        description="Since when nothing is done, as too many vanished together; null: it is not so."
    )
    losses: list[LossShown]


class Released(rest.Answer):
    """What was done."""

    nodes: int = Field(description="How many nodes were held back and are given up now.")


@blueprint.get("/node-losses")
@rest.operation(summary="Show which nodes are lost", query=rest.PagedQuery, answer=LossesShown)
def show_losses(query: rest.PagedQuery) -> dict[str, Any]:
    """Show which nodes are lost."""
    session = context().session
    found = rest.page(session, losses.losses(session), [NodeLoss.node_id], query)
    braked = losses.braked_since(session)
    return {"losses": found.items, "next": found.next, "braked_since": braked}


@blueprint.post("/node-losses/release")
@rest.operation(
    summary="Say that the nodes which are held back are gone for good",
    answer=Released,
    errors=(NotFound, Forbidden),
)
def release() -> Released:
    """Give up what is on the nodes that are held back."""
    return Released(nodes=losses.release(context().session, context().clock))


class PromiseShown(rest.Answer):
    """A promise of an instance."""

    name: str
    title: str
    failed: bool
    message: str = Field(description="What it said when that was told; the end of it.")
    since: rest.Time = Field(description="Since when it fails, or holds.")


class PromisesShown(rest.Answer):
    """The promises of an instance, by name."""

    heard_at: rest.Time | None = Field(
        description="When the node told of them last: as one fails or holds again, and daily."
    )
    promises: list[PromiseShown]


class PromiseChangeShown(rest.Answer):
    """That a promise failed, or held again."""

    name: str
    failed: bool
    message: str
    at: rest.Time


class PromiseHistoryQuery(rest.PagedQuery):
    """Of which promise."""

    name: str | None = Field(default=None, description="Of this one alone.")


class PromiseHistoryShown(rest.Paged):
    """When promises failed or held again, the latest first."""

    changes: list[PromiseChangeShown]


@blueprint.get("/instances/<path:reference>/promises")
@rest.operation(
    summary="Show how an instance keeps its promises", answer=PromisesShown, errors=(NotFound,)
)
def show_promises(reference: str) -> dict[str, Any]:
    """Show the promises of an instance."""
    session = context().session
    instance = promises.find_instance(session, reference)
    found = promises.promises_of(session, instance)
    return {"heard_at": promises.heard_at(session, instance), "promises": found}


@blueprint.get("/instances/<path:reference>/promises/history")
@rest.operation(
    summary="Show when promises of an instance failed or held again, the latest first",
    query=PromiseHistoryQuery,
    answer=PromiseHistoryShown,
    errors=(NotFound,),
)
def show_promise_history(reference: str, query: PromiseHistoryQuery) -> dict[str, Any]:
    """Show the history of promises."""
    session = context().session
    instance = promises.find_instance(session, reference)
    statement = promises.changes_of(instance, query.name)
    found = rest.page(session, statement, [PromiseChange.id], query, descending=True)
    return {"changes": found.items, "next": found.next}
