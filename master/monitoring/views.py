"""Lost nodes over HTTP."""

from typing import Any

from flask import Blueprint
from pydantic import Field

from slapos.master import rest
from slapos.master.http import context
from slapos.master.monitoring import losses
from slapos.master.monitoring.model import NodeLoss
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
