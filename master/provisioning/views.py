"""Instance trees over HTTP, and all there is to a node."""

from typing import Any

from flask import Blueprint, request

from slapos.master import rest
from slapos.master.catalog import service as catalog
from slapos.master.catalog.views import InstallationShown
from slapos.master.http import context
from slapos.master.identity.rights import Action, may
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.views import NodeShown, PartitionShown, render_partition
from slapos.master.provisioning import lookup, node_reports, shapes, trees
from slapos.master.provisioning.model import InstanceTree
from slapos.master.provisioning.shapes import TreeShown, TreesQuery, TreesShown
from slapos.master.provisioning.status import tree_status, tree_statuses
from slapos.protocol.errors import MalformedDocument, NotFound
from slapos.protocol.json_reader import load_json
from slapos.protocol.node_reports import BATCH, LARGEST_BODY, read_batch

blueprint = Blueprint("provisioning", __name__, url_prefix="/v1")


class HeldShown(rest.Answer):
    """An instance in a partition."""

    guid: str
    title: str
    tree: str


class HeldPartitionShown(PartitionShown):
    """A partition, and what is in it."""

    instance: HeldShown | None


class WholeNodeShown(NodeShown):
    """All there is to a node."""

    partitions: list[HeldPartitionShown]
    installations: list[InstallationShown]


class RefusalShown(rest.Answer):
    """Why a report was not taken; sent again, it would be refused again."""

    id: str
    code: str
    message: str


class ReceiptShown(rest.Answer):
    """What became of each report."""

    taken: list[str]
    refused: list[RefusalShown]


@blueprint.get("/instance-trees")
@rest.operation(
    summary="Show services and how they are doing, the oldest first",
    query=TreesQuery,
    answer=TreesShown,
)
def show_trees(query: TreesQuery) -> dict[str, Any]:
    """Show services, with how they are doing."""
    session = context().session
    wanted = trees.TreeFilter(project=query.project, owner=query.owner, title=query.title)
    found = rest.page(session, trees.matching_trees(session, wanted), [InstanceTree.id], query)
    known = lookup.trees_by_id(session, found.items)
    shown = [
        shapes.show_tree(session, known[id_], status)
        for id_, status in tree_statuses(session, found.items).items()
    ]
    return {"instance_trees": shown, "next": found.next}


@blueprint.get("/instance-trees/<path:title>")
@rest.operation(
    summary="Show how a service is doing, by its title or its reference",
    answer=TreeShown,
    errors=(NotFound,),
)
def show_tree(title: str) -> dict[str, Any]:
    """Show how a service is doing."""
    session = context().session
    tree = trees.find_tree(session, title)
    return shapes.show_tree(session, tree, tree_status(session, tree))


@blueprint.post("/nodes/<path:reference>/reports")
@rest.operation(
    summary="Take in what a node tells, in order; what it has told already does not count again",
    body=rest.Described(schema=BATCH),
    answer=ReceiptShown,
    errors=(NotFound, MalformedDocument),
    largest_body=LARGEST_BODY,
)
def take_reports(reference: str) -> dict[str, Any]:
    """Take in what a node tells, in order; what it has told already does not count again."""
    try:
        body = load_json(request.get_data())
    except ValueError as error:
        raise MalformedDocument(f"the reports are no JSON document: {error}") from error
    batch = read_batch(body)
    return node_reports.take_in(context().session, context().clock, reference, batch).to_json()


@blueprint.get("/nodes/<path:reference>")
@rest.operation(
    summary="Show a node: its partitions and what is in them, and its releases",
    answer=WholeNodeShown,
    errors=(NotFound,),
)
def show_node(reference: str) -> dict[str, Any]:
    """Show a node: its partitions and what is in them, and its releases."""
    session = context().session
    node = nodes.find_node(session, reference)
    releases = Subject(Kind.INSTALLATION, "", node.project_id, node_id=node.id)
    sees_releases = may(context().caller, Action.SEE, releases)
    held = {each.partition_id: each for each in lookup.instances_on_node(session, node.id)}
    partitions = []
    for partition in nodes.partitions(session, node.id):
        instance = held.get(partition.id)
        if instance is not None and not may(context().caller, Action.SEE, instance.subject()):
            instance = None  # whoever sees a node does not see what others have on it
        shown = render_partition(partition)
        shown["instance"] = (
            {"guid": instance.reference, "title": instance.title, "tree": instance.tree.title}
            if instance is not None
            else None
        )
        partitions.append(shown)
    return {
        **NodeShown.model_validate(node).model_dump(),
        "partitions": partitions,
        "installations": catalog.installations(session, node.id) if sees_releases else [],
    }
