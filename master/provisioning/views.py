"""Instance trees over HTTP, and all there is to a node."""

from typing import Any

from flask import Blueprint, request

from slapos.master.catalog import service as catalog
from slapos.master.catalog.views import render_installation
from slapos.master.http import context
from slapos.master.nodes import service as nodes
from slapos.master.nodes.views import render_node, render_partition
from slapos.master.provisioning import lookup, node_reports
from slapos.master.provisioning.status import tree_status, tree_statuses
from slapos.protocol.errors import MalformedDocument
from slapos.protocol.json_reader import load_json
from slapos.protocol.node_reports import LARGEST_BODY, read_batch

blueprint = Blueprint("provisioning", __name__, url_prefix="/v1")


@blueprint.get("/instance-trees")
def show_trees() -> dict[str, Any]:
    """Show every service, with how it is doing."""
    return {"instance_trees": [status.to_json() for status in tree_statuses(context().session)]}


@blueprint.get("/instance-trees/<path:title>")
def show_tree(title: str) -> dict[str, Any]:
    """Show how a service is doing."""
    session = context().session
    return tree_status(session, lookup.find_tree(session, title)).to_json()


@blueprint.post("/nodes/<path:reference>/reports")
def take_reports(reference: str) -> dict[str, Any]:
    """Take in what a node tells, in order; what it has told already does not count again."""
    request.max_content_length = LARGEST_BODY
    try:
        body = load_json(request.get_data())
    except ValueError as error:
        raise MalformedDocument(f"the reports are no JSON document: {error}") from error
    batch = read_batch(body)
    return node_reports.take_in(context().session, context().clock, reference, batch).to_json()


@blueprint.get("/nodes/<path:reference>")
def show_node(reference: str) -> dict[str, Any]:
    """Show a node: its partitions and what is in them, and its releases."""
    session = context().session
    node = nodes.find_node(session, reference)
    held = {each.partition_id: each for each in lookup.instances_on_node(session, node.id)}
    partitions = []
    for partition in nodes.partitions(session, node.id):
        instance = held.get(partition.id)
        shown = render_partition(partition)
        shown["instance"] = (
            {"guid": instance.reference, "title": instance.title, "tree": instance.tree.title}
            if instance is not None
            else None
        )
        partitions.append(shown)
    installations = catalog.installations(session, node.id)
    return {
        **render_node(node),
        "partitions": partitions,
        "installations": [render_installation(each) for each in installations],
    }
