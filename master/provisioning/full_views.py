"""Services, instances and instance nodes of the full profile over HTTP."""

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field
from sqlalchemy.orm import selectinload

from slapos.master import rest
from slapos.master.http import context
from slapos.master.nodes.shapes import Reference, Text
from slapos.master.provisioning import instance_nodes, trees
from slapos.master.provisioning.model import InstanceNode, SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.provisioning.shapes import (
    InstanceChanged,
    InstancesQuery,
    InstancesShown,
    NewTree,
    OneInstanceShown,
    TreeShown,
    show_all,
    show_instance,
    show_tree,
)
from slapos.master.provisioning.status import tree_status
from slapos.protocol.errors import Conflict, Forbidden, NotFound
from slapos.protocol.states import InstanceState

blueprint = Blueprint("services", __name__, url_prefix="/v1")

CHANGES = (NotFound, Forbidden, Conflict)
STATES = {
    "start": InstanceState.STARTED,
    "stop": InstanceState.STOPPED,
    "destroy": InstanceState.DESTROYED,
}


@blueprint.post("/instance-trees")
@rest.operation(
    summary="Order a service", body=NewTree, answer=TreeShown, status=201, errors=CHANGES
)
def order(body: NewTree) -> rest.Reply:
    """Order a service."""
    wanted = InstanceOrder(
        title=body.title,
        software_url=body.software_url,
        software_type=body.software_type,
        parameters=body.parameters,
        filters=body.filters,
        state=body.state,
        shared=body.shared,
    )
    session, clock, policy = context().session, context().clock, context().policy
    tree = trees.order(session, clock, policy, body.project, wanted)
    told = show_tree(session, tree, tree_status(session, tree))
    return rest.Reply(told, location=f"/v1/instance-trees/{tree.reference}")


@blueprint.patch("/instance-trees/<path:reference>")
@rest.operation(
    summary="Change a service: what is asked of its root",
    body=InstanceChanged,
    answer=None,
    errors=CHANGES,
)
def change_tree(reference: str, body: InstanceChanged) -> None:
    """Change a service."""
    root = trees.root_of(context().session, trees.find_tree(context().session, reference))
    _change(root, body.model_dump(exclude_unset=True))


@blueprint.delete("/instance-trees/<path:reference>")
@rest.operation(
    summary="Have a service destroyed, with all that it has requested", answer=None, errors=CHANGES
)
def destroy_tree(reference: str) -> None:
    """Have a service destroyed; it is there until its nodes have removed all of it."""
    root = trees.root_of(context().session, trees.find_tree(context().session, reference))
    _change(root, {"state": InstanceState.DESTROYED})


@blueprint.get("/instances")
@rest.operation(
    summary="Show instances, the oldest first", query=InstancesQuery, answer=InstancesShown
)
def show_instances(query: InstancesQuery) -> dict[str, Any]:
    """Show instances."""
    session = context().session
    wanted = trees.InstanceFilter(
        project=query.project,
        tree=query.tree,
        node=query.node,
        state=query.state,
        waits=query.waits,
    )
    statement = trees.matching_instances(session, wanted)
    found = rest.page(session, statement, [SoftwareInstance.id], query)
    return {"instances": show_all(session, found.items), "next": found.next}


@blueprint.get("/instances/<reference>")
@rest.operation(summary="Show an instance", answer=OneInstanceShown, errors=(NotFound,))
def show(reference: str) -> dict[str, Any]:
    """Show an instance."""
    session = context().session
    return show_instance(session, trees.find_instance(session, reference))


@blueprint.patch("/instances/<reference>")
@rest.operation(summary="Change an instance", body=InstanceChanged, answer=None, errors=CHANGES)
def change(reference: str, body: InstanceChanged) -> None:
    """Change an instance."""
    instance = trees.find_instance(context().session, reference, lock=True)
    _change(instance, body.model_dump(exclude_unset=True))


@blueprint.post("/instances/<reference>/<any(start, stop, destroy):verb>")
@rest.operation(
    summary="Have an instance started, stopped or destroyed, with those below it",
    answer=None,
    errors=CHANGES,
)
def set_state(reference: str, verb: str) -> None:
    """Have an instance in another state."""
    instance = trees.find_instance(context().session, reference, lock=True)
    _change(instance, {"state": STATES[verb]})


@blueprint.post("/instances/<reference>/bang")
@rest.operation(summary="Have an instance processed again by its node", answer=None, errors=CHANGES)
def bang(reference: str) -> None:
    """Have an instance processed again."""
    session = context().session
    instance = trees.find_instance(session, reference, lock=True)
    trees.process_again(session, context().clock, instance)


def _change(instance: SoftwareInstance, wanted: dict[str, Any]) -> None:
    trees.change(context().session, context().clock, context().policy, instance, wanted)


class InstanceNodeShown(rest.Answer):
    """An instance that hosts shared ones."""

    reference: str
    title: str
    instance: Reference
    created_at: rest.Time


class InstanceNodesShown(rest.Paged):
    """Instance nodes, the oldest first."""

    instance_nodes: list[InstanceNodeShown]


class NewInstanceNode(rest.Body):
    """An instance that is to host shared ones."""

    title: Text
    instance: Annotated[str, Field(description="Such as SOFTINST-1.")]


@blueprint.get("/instance-nodes")
@rest.operation(
    summary="Show instances that host shared ones, the oldest first",
    query=rest.PagedQuery,
    answer=InstanceNodesShown,
)
def show_instance_nodes(query: rest.PagedQuery) -> dict[str, Any]:
    """Show instance nodes."""
    statement = instance_nodes.instance_nodes(context().session)
    statement = statement.options(selectinload(InstanceNode.instance))
    found = rest.page(context().session, statement, [InstanceNode.id], query)
    return {"instance_nodes": found.items, "next": found.next}


@blueprint.post("/instance-nodes")
@rest.operation(
    summary="Have an instance host shared ones of its project's customers",
    body=NewInstanceNode,
    answer=InstanceNodeShown,
    status=201,
    errors=CHANGES,
)
def create_instance_node(body: NewInstanceNode) -> rest.Reply:
    """Make an instance node."""
    made = instance_nodes.create(context().session, context().clock, body.title, body.instance)
    told = InstanceNodeShown.model_validate(made)
    return rest.Reply(told, location=f"/v1/instance-nodes/{made.reference}")


@blueprint.get("/instance-nodes/<reference>")
@rest.operation(
    summary="Show an instance that hosts shared ones", answer=InstanceNodeShown, errors=(NotFound,)
)
def show_instance_node(reference: str) -> InstanceNodeShown:
    """Show an instance node."""
    return InstanceNodeShown.model_validate(instance_nodes.find(context().session, reference))


@blueprint.delete("/instance-nodes/<reference>")
@rest.operation(
    summary="Have an instance host no more shared ones; those it hosts stay",
    answer=None,
    errors=(NotFound, Forbidden),
)
def remove_instance_node(reference: str) -> None:
    """Remove an instance node."""
    instance_nodes.remove(context().session, reference)
