"""The hateoas answers: what `slapos service` and `slapos computer` ask (slap-master.md §3).

A client reads the root document, expands its two templates (RFC 6570), searches with one of the
queries below, and traverses to the `relative_url` of a row. There is no other query language here.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, abort, request, url_for
from sqlalchemy import select

from slapos.master.catalog import service as catalog
from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.http import context
from slapos.master.identity.rights import Action, HasSubject, may, require
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.status import access_status, build_status
from slapos.master.slap.asking import asking
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.protocol.instance_xml import to_instance_xml

blueprint = Blueprint("hateoas", __name__, url_prefix="/hateoas")

Row = dict[str, Any]

VALIDATED = r" AND validation_state:validated"
#: What stands between quotes; a quote in it has a backslash.
_VALUE = r'(?:[^"\\]|\\.)*'
TREES = re.compile(
    rf'portal_type:"(?:Instance Tree|Hosting Subscription)"{VALIDATED}'
    rf'(?: AND title:="(?P<title>{_VALUE})")?'
)
NODES = re.compile(
    rf'portal_type:"(?:Compute Node|Computer)"{VALIDATED}'
    rf'(?: AND title:="(?P<title>{_VALUE})")?(?: AND reference:="(?P<reference>{_VALUE})")?'
)
INSTANCES = re.compile(
    rf'portal_type:\("Software Instance", "Slave Instance"\){VALIDATED}'
    rf' AND default_specialise_title:="(?P<tree>{_VALUE})"'
)
INSTALLATIONS = re.compile(
    rf'portal_type:"Software Installation"{VALIDATED}'
    rf'(?: AND default_aggregate_reference:="(?P<node>{_VALUE})")?'
)
#: What is in a relative URL: the kind of document, then its number.
TREE_MODULE = "instance_tree_module"
NODE_MODULE = "compute_node_module"
INSTANCE_MODULE = "software_instance_module"
INSTALLATION_MODULE = "software_installation_module"


@blueprint.get("/")
def root() -> Row:
    """Give the root document, a search or a document, as `mode` says."""
    mode = request.args.get("mode", "root")
    modes: dict[str, Callable[[], Row]] = {
        "root": _root_document,
        "search": _search,
        "traverse": _traverse,
    }
    if mode not in modes:
        abort(400, f"there is no mode {mode!r}; there are {', '.join(modes)}")
    return modes[mode]()


def _root_document() -> Row:
    here = url_for("hateoas.root", _external=True)
    return {
        "title": "Hateoas",
        "_links": {
            "self": {"href": here},
            # Without {limit}: clients that know it would ask for 40 rows and no more.
            "raw_search": {"href": f"{here}?mode=search{{&query,select_list*}}", "templated": True},
            "traverse": {
                "href": f"{here}?mode=traverse{{&relative_url,view}}",
                "templated": True,
            },
        },
    }


# Searching.


def _search() -> Row:
    query = request.args.get("query", "")
    searches: dict[re.Pattern[str], Callable[..., Iterable[Row]]] = {
        TREES: _find_trees,
        NODES: _find_nodes,
        INSTANCES: _find_instances,
        INSTALLATIONS: _find_installations,
    }
    for pattern, find in searches.items():
        match = pattern.fullmatch(query)
        if match:
            wanted = {name: _unquoted(value) for name, value in match.groupdict().items()}
            rows = [_selected(row) for row in find(**wanted)]
            return {"_embedded": {"contents": rows[: _limit()]}}
    raise InvalidRequest(f"this query is not understood: {query}")


def _unquoted(value: str | None) -> str | None:
    return None if value is None else re.sub(r'\\(["\\])', r"\1", value)


def _selected(row: Row) -> Row:
    names = request.args.getlist("select_list")
    kept = {name: row.get(name) for name in names} if names else row
    return {**kept, "_links": {"self": {"href": f"urn:jio:get:{row['relative_url']}"}}}


def _limit() -> int | None:
    limit = request.args.get("limit", type=int)
    return None if limit is None or limit < 0 else limit


def _find_trees(title: str | None) -> Iterable[Row]:
    for instance in asking().roots(context().session):
        if title in (None, instance.title):
            yield {
                "uid": instance.tree_id,
                "title": instance.title,
                "portal_type": "Instance Tree",
                "relative_url": f"{TREE_MODULE}/{instance.id}",
                "url_string": instance.software_url,
            }


def _find_nodes(title: str | None, reference: str | None) -> Iterable[Row]:
    wanted = {ComputeNode.title: title, ComputeNode.reference: reference}
    statement = nodes.seen(context().session, select(ComputeNode.id))
    for column, value in wanted.items():
        if value is not None:
            statement = statement.where(column == value)
    # Not the nodes themselves: clients can only ask for all there are.
    columns = statement.with_only_columns(ComputeNode.id, ComputeNode.title, ComputeNode.reference)
    found = context().session.execute(columns.order_by(ComputeNode.reference).limit(_limit()))
    for number, its_title, its_reference in found:
        yield {
            "uid": number,
            "title": its_title,
            "reference": its_reference,
            "portal_type": "Compute Node",
            "relative_url": f"{NODE_MODULE}/{number}",
        }


def _find_instances(tree: str) -> Iterable[Row]:
    try:
        found = asking().find_tree(context().session, tree)
    except NotFound:
        return
    for instance in lookup.instances_of(context().session, found):
        yield {
            "uid": instance.id,
            "title": instance.title,
            "portal_type": "Slave Instance" if instance.shared else "Software Instance",
            "relative_url": f"{INSTANCE_MODULE}/{instance.id}",
            "url_string": instance.software_url,
            "text_content": to_instance_xml(instance.parameters),
            "getConnectionXmlAsDict": instance.connection,
            "SoftwareInstance_getNewsDict": _instance_news(instance),
        }


def _find_installations(node: str | None) -> Iterable[Row]:
    statement = catalog.matching(context().session, node=node)
    ordered = statement.order_by(ComputeNode.reference, SoftwareInstallation.id)
    for installation in context().session.scalars(ordered.limit(_limit())):
        yield {
            "uid": installation.id,
            "portal_type": "Software Installation",
            "relative_url": f"{INSTALLATION_MODULE}/{installation.id}",
            "url_string": installation.url,
            "SoftwareInstallation_getNewsDict": _installation_news(installation),
        }


# Documents.


def _traverse() -> Row:
    url = request.args.get("relative_url", "")
    module, _, number = url.rpartition("/")
    session = context().session
    if number.isdecimal():
        if module == NODE_MODULE and (node := session.get(ComputeNode, int(number))):
            _require(Action.SEE, node, url)
            return _node_document(node)
        instance = session.get(SoftwareInstance, int(number))
        if instance is not None:
            _require(Action.SEE_VALUES, instance, url)
        if module == TREE_MODULE and instance is not None and instance.is_root:
            return _tree_document(instance)
        if module == INSTANCE_MODULE and instance is not None:
            return _instance_document(instance)
    raise _no_document(url)


def _require(action: Action, thing: HasSubject, url: str) -> None:
    """Raise unless the caller may; what it may not see is not named: numbers can be tried."""
    try:
        require(context().session, action, thing)
    except NotFound:
        raise _no_document(url) from None


def _no_document(url: str) -> NotFound:
    return NotFound(f"there is no document {url!r}")


def _tree_document(instance: SoftwareInstance) -> Row:
    return _document(
        "Instance Tree",
        form_id="InstanceTree_viewAsHateoas",
        # The customer never sees a shared instance started or stopped: it has no processes.
        slap_state="unused" if instance.shared else instance.requested_state,
        **_instance_fields(instance),
    )


def _instance_document(instance: SoftwareInstance) -> Row:
    return _document(
        "Slave Instance" if instance.shared else "Software Instance",
        form_id="SoftwareInstance_viewAsHateoas",
        slap_state=instance.requested_state,
        news=_instance_news(instance),
        **_instance_fields(instance),
    )


def _instance_fields(instance: SoftwareInstance) -> Row:
    return {
        "title": instance.title,
        "reference": instance.title,
        "url_string": instance.software_url,
        "source_reference": instance.software_type,
        "text_content": to_instance_xml(instance.parameters),
        "connection_parameter_list": to_instance_xml(instance.connection),
        "root_slave": int(instance.shared),
    }


def _node_document(node: ComputeNode) -> Row:
    partitions = {
        instance.partition.reference: _instance_news(instance)
        for instance in lookup.instances_on_node(context().session, node.id)
        if instance.partition is not None and may(context().caller, Action.SEE, instance.subject())
    }
    return _document(
        "Compute Node",
        form_id="ComputeNode_viewAsHateoas",
        title=node.title,
        reference=node.reference,
        news={"computer": _node_news(node), "partition": partitions},
    )


def _document(portal_type: str, form_id: str, **fields: Any) -> Row:
    view = {
        "form_id": {"type": "StringField", "key": "form_id", "default": form_id},
        **{
            f"my_{name}": {
                "type": "IntegerField" if isinstance(value, int) else "StringField",
                "key": f"field_my_{name}",
                "default": value,
            }
            for name, value in fields.items()
        },
    }
    return {"_embedded": {"_view": view}, "_links": {"type": {"name": portal_type}}}


# What nodes said last.


def _instance_news(instance: SoftwareInstance) -> Row:
    if instance.reported_at is None:
        return _no_news(instance.reference)
    return _news(instance.reference, access_status(instance), instance.reported_at.isoformat())


def _installation_news(installation: SoftwareInstallation) -> Row:
    if installation.reported_at is None:
        return _no_news(installation.url)
    since = installation.reported_at.isoformat()
    return _news(installation.url, build_status(installation), since)


def _node_news(node: ComputeNode) -> Row:
    if node.contacted_at is None:
        return _no_news(node.reference)
    return _news(node.reference, "#access Node is here", node.contacted_at.isoformat())


def _news(reference: str, text: str, since: str) -> Row:
    return {"reference": reference, "text": text, "since": since, "created_at": since}


def _no_news(reference: str) -> Row:
    return {"reference": reference, "text": f"#error no data found for {reference}", "no_data": 1}
