"""The JSON-RPC calls v0: `POST /slapos.<verb>.v0.<name>` (slap-master.md §2).

Requests are checked against `slapos/protocol/json_rpc.json`. Errors are `{status, type, title}`;
what is not there is 403, as with the other masters that speak this protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from slapos.master.catalog import service as catalog
from slapos.master.certificates.views import issuing
from slapos.master.http import context, reads_only, reason_of, status_of
from slapos.master.identity.caller import caller_of
from slapos.master.identity.rights import Action, may, require
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, ComputePartition
from slapos.master.provisioning import lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.provisioning.status import access_status
from slapos.master.slap import key_delivery
from slapos.master.slap.asking import asking
from slapos.master.slap.form import named_partition, requester, tenant
from slapos.master.slap.frontend import Bypass
from slapos.master.slap.requesting import Forwarded, answer_request, waiting_reason
from slapos.protocol.errors import (
    Conflict,
    InvalidConfiguration,
    MalformedDocument,
    MasterUnreachable,
    NoCapacity,
    NotFound,
    NotReady,
    SlapOSError,
)
from slapos.protocol.json_reader import load_json
from slapos.protocol.json_rpc import NOT_READY, Call, calls
from slapos.protocol.states import BuildState, InstanceState

blueprint = Blueprint("json_rpc", __name__)

#: Between the title of an instance, that of its tree (empty for the root), and 1 if it is shared.
GUID_SEPARATOR = "___"
#: Where this wire's statuses differ from those of the others.
STATUS: dict[type[SlapOSError], int] = {
    Conflict: 403,
    InvalidConfiguration: 403,
    MasterUnreachable: 523,
    NoCapacity: 403,
    NotFound: 403,
}
#: The sentence of an error where its title is fixed by the protocol.
REASON_HEADER = "X-SlapOS-Reason"

Handler = Callable[[dict[str, Any]], Any]


# How calls are made.


def _call(name: str, *, reads: bool = False) -> Callable[[Handler], Handler]:
    """Register the handler of a call: it takes the checked body, and returns the answer's."""
    described = calls()[f"slapos.{name}"]

    def register(handler: Handler) -> Handler:
        view = _view(described, handler)
        blueprint.add_url_rule(
            f"/{described.name}",
            endpoint=name.replace(".", "_"),
            view_func=reads_only(view) if reads else view,
            # All, so that the error of a wrong one is answered as errors are here.
            methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        )
        return handler

    return register


def _view(described: Call, handler: Handler) -> Callable[[], Any]:
    def view() -> ResponseReturnValue:
        if request.method != "POST":
            abort(405)
        if request.accept_mimetypes and not request.accept_mimetypes.accept_json:
            abort(406)
        if not request.is_json:
            abort(415)
        try:
            body = load_json(request.get_data())
        except ValueError as error:
            raise MalformedDocument(f"this is no JSON: {error}") from error
        described.check_request(body)
        answer = handler(body)
        return answer if isinstance(answer, Response) else jsonify(answer)

    return view


@blueprint.errorhandler(SlapOSError)
def _answer_error(error: SlapOSError) -> ResponseReturnValue:
    if isinstance(error, NotReady):
        return jsonify(NOT_READY)
    status = next(
        (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), status_of(type(error))
    )
    return _error(status, str(error))


@blueprint.errorhandler(HTTPException)
def _answer_http_error(error: HTTPException) -> ResponseReturnValue:
    return _error(error.code or 500, reason_of(error))


def _error(status: int, title: str) -> Response:
    kind = HTTP_STATUS_CODES.get(status, "Unknown Error")
    response = jsonify({"status": status, "type": kind, "title": title})
    response.status_code = status
    return response


def _with_reason(response: Response, reason: str) -> Response:
    """Return an answer with a sentence that its document has no place for."""
    response.headers[REASON_HEADER] = reason.encode("ascii", "replace").decode()
    return response


def _done(title: str) -> dict[str, str]:
    return {"type": "success", "title": title}


# Instances.


@_call("post.v0.software_instance")
def _post_software_instance(asked: dict[str, Any]) -> ResponseReturnValue:
    url, filters = asked["software_release_uri"], asked.get("sla_parameters", {})
    requested_by = requester()
    order = InstanceOrder(
        title=asked["title"],
        software_url=url,
        software_type=asked["software_type"],
        parameters=asked.get("parameters", {}),
        filters=filters,
        state=InstanceState(asked.get("state", "started")),
        shared=asked.get("shared", False),
        requester=requested_by,
        tenant=tenant(requested_by, url, filters),
    )
    partition = named_partition()
    root = order.requester.tree.title if order.requester is not None else ""

    def answer(given: SoftwareInstance | Bypass | Forwarded) -> Response:
        if isinstance(given, SoftwareInstance):
            if given.place_name is None:
                return _with_reason(jsonify(NOT_READY), waiting_reason(given))
            return jsonify(_requested(given))
        return jsonify(_elsewhere(order, root, given))

    try:
        return answer_request(order, partition[1] if partition else None, answer)
    except NoCapacity as error:
        if order.shared:
            raise
        response = _error(403, f"No free computer partition found for: {order.title}")
        return _with_reason(response, str(error))


@_call("get.v0.software_instance", reads=True)
def _get_software_instance(asked: dict[str, Any]) -> Any:
    return _document(_instance(asked["instance_guid"]))


@_call("get.v0.instance_tree", reads=True)
def _get_instance_tree(asked: dict[str, Any]) -> Any:
    title = asked["title"]
    try:
        tree = asking().find_tree(context().session, title)
    except NotFound:
        raise NotFound(f"No instance tree {title} found.") from None
    return _document(lookup.instances_of(context().session, tree)[0])


@_call("get.v0.compute_partition", reads=True)
def _get_compute_partition(asked: dict[str, Any]) -> Any:
    reference = asked["compute_partition_id"]
    try:
        return _document(
            _seen(
                lookup.instance_on_partition(context().session, asked["computer_guid"], reference)
            )
        )
    except NotFound:
        raise NotFound(f"No instance on partition {reference} found.") from None


@_call("allDocs.v0.instance_tree_list", reads=True)
def _list_instance_trees(_asked: dict[str, Any]) -> Any:
    trees = sorted(asking().trees(context().session), key=lambda tree: tree.shared)
    return {"result_list": [{"title": tree.title} for tree in trees]}


@_call("allDocs.v0.compute_node_instance_list", reads=True)
def _list_node_instances(asked: dict[str, Any]) -> Any:
    node = _node(asked["computer_guid"])
    return {
        "result_list": [
            {
                "title": instance.title,
                "instance_guid": guid_of(instance),
                "state": instance.requested_state,
                "compute_partition_id": instance.partition.reference,
                "software_release_uri": instance.software_url,
            }
            for instance in _instances_on(node)
            if instance.partition is not None
        ]
    }


@_call("allDocs.v0.instance_node_instance_list", reads=True)
def _list_shared_instances(asked: dict[str, Any]) -> Any:
    host = _instance(asked["instance_guid"])
    if host.shared or host.partition is None:
        raise NotFound(f"No software instance {asked['instance_guid']} found.")
    return {
        "result_list": [
            {
                "title": shared.title,
                "instance_guid": guid_of(shared),
                "software_type": shared.software_type,
                "state": shared.requested_state,
                "parameters": shared.parameters,
                "compute_partition_id": host.partition.reference,
            }
            for shared in lookup.shared_on(context().session, host)
            # Others may have ordered them: who owns the host is not told with what.
            if may(context().caller, Action.SEE_VALUES, shared.subject())
        ]
    }


@_call("get.v0.software_instance_certificate", reads=True)
def _get_software_instance_certificate(asked: dict[str, Any]) -> Any:
    if asking().is_local:
        return key_delivery.NOTHING
    key_delivery.check_on()
    make = partial(key_delivery.for_instance, reference=asked["instance_guid"])
    return key_delivery.later(make, jsonify)


@_call("put.v0.software_instance_reported_state")
def _put_software_instance_reported_state(asked: dict[str, Any]) -> Any:
    state = InstanceState(asked["reported_state"])
    try:
        instance = _instance(asked["instance_guid"])
    except NotFound:
        if state is InstanceState.DESTROYED:
            raise
        return _done("Ignored")
    if instance.shared:
        return _done("Ignored")  # its host speaks for it
    waiting = reports.report_state(context().session, context().clock, instance, state)
    if waiting:
        titles = ", ".join(sorted(each.title for each in waiting))
        # An answer, not an error: those below are now to be destroyed, and that is to be kept.
        return _done(f"Not destroying yet because this partition has child partitions: {titles}")
    return _done("Destroyed" if state is InstanceState.DESTROYED else "State reported")


@_call("put.v0.software_instance_error")
def _put_software_instance_error(asked: dict[str, Any]) -> Any:
    try:
        instance = _instance(asked["instance_guid"])
    except NotFound:
        return _done("Ignored")
    reports.report_error(context().session, context().clock, instance, asked["message"])
    return _done("Error reported")


@_call("put.v0.software_instance_bang")
def _put_software_instance_bang(asked: dict[str, Any]) -> Any:
    instance = _instance(asked["instance_guid"])
    _refuse_shared(instance)
    provisioning.bang(context().session, context().clock, instance.tree)
    return _done("Bang handled")


@_call("put.v0.software_instance_title")
def _put_software_instance_title(asked: dict[str, Any]) -> Any:
    instance = _instance(asked["instance_guid"])
    _refuse_shared(instance)
    provisioning.rename(context().session, context().clock, instance, asked["title"])
    return _done("Renamed")


@_call("put.v0.software_instance_connection_parameter")
def _put_software_instance_connection_parameter(asked: dict[str, Any]) -> Any:
    provisioning.publish(
        context().session,
        context().clock,
        _instance(asked["instance_guid"]),
        asked["connection_parameter_dict"],
    )
    return _done("Updated")


# Releases on nodes.


@_call("post.v0.software_installation")
def _post_software_installation(asked: dict[str, Any]) -> Any:
    url, state = asked["software_release_uri"], asked.get("state", "available")
    catalog.supply(
        context().session, context().clock, node=asked["computer_guid"], url=url, state=state
    )
    return _done(f"Supplied {url} to be {state}")


@_call("allDocs.v0.compute_node_software_installation_list", reads=True)
def _list_software_installations(asked: dict[str, Any]) -> Any:
    node = _node(asked["computer_guid"])
    return {
        "result_list": [
            {
                "software_release_uri": installation.url,
                "state": installation.requested_state,
            }
            for installation in catalog.installations(context().session, node.id)
            if may(context().caller, Action.SEE, installation.subject())
        ]
    }


@_call("put.v0.software_installation_reported_state")
def _put_software_installation_reported_state(asked: dict[str, Any]) -> Any:
    state = BuildState(asked["reported_state"])
    reported = _report_build(asked, state)
    if state is BuildState.DESTROYED:
        return _done("Destroyed")
    return _done("State reported" if reported else "Ignored")


@_call("put.v0.software_installation_error")
def _put_software_installation_error(asked: dict[str, Any]) -> Any:
    reported = _report_build(asked, BuildState.ERROR, asked["message"])
    return _done("Error reported" if reported else "Ignored")


def _report_build(asked: dict[str, Any], state: BuildState, message: str = "") -> bool:
    """Take in what a node says of a release; return whether it is wanted there."""
    try:
        catalog.report(
            context().session,
            context().clock,
            node=asked["computer_guid"],
            url=asked["software_release_uri"],
            state=state,
            message=message,
        )
    except NotFound:
        return False
    return True


# Nodes.


@_call("allDocs.WIP.compute_node_list", reads=True)
def _list_nodes(_asked: dict[str, Any]) -> Any:
    seen = nodes.seen(context().session, select(ComputeNode.reference))
    known = context().session.scalars(seen.order_by(ComputeNode.reference))
    return {"result_list": [{"computer_guid": reference} for reference in known]}


@_call("get.v0.compute_node_status", reads=True)
def _get_compute_node_status(asked: dict[str, Any]) -> Any:
    node = _node(asked["computer_guid"])
    if node.contacted_at is None:
        return {"text": "Unknown (not implemented)"}
    return {"text": "#access Node is here", "since": node.contacted_at.isoformat()}


@_call("put.v0.compute_node_format")
def _put_compute_node_format(asked: dict[str, Any]) -> Any:
    told = nodes.NodeFormat(
        reference=asked["computer_guid"],
        partitions=[_read_partition(item) for item in asked["compute_partition_list"]],
    )
    provisioning.format_node(context().session, context().clock, told)
    return _done("Formatted")


def _read_partition(item: Mapping[str, Any]) -> nodes.PartitionFormat:
    reference = item["partition_id"]
    return nodes.PartitionFormat(
        reference=reference,
        addresses=[
            nodes.Address(
                interface=address.get("network-interface") or reference,
                address=address["ip-address"],
                netmask=address.get("netmask"),
                gateway=address.get("gateway-ip-address"),
                network=address.get("network-address"),
            )
            for address in item.get("ip_list", ())
        ],
        capabilities=item.get("capability_list", ()),
    )


@_call("put.v0.compute_node_bang")
def _put_compute_node_bang(asked: dict[str, Any]) -> Any:
    node = _node(asked["computer_guid"])
    if not lookup.instances_on_node(context().session, node.id):
        return _done("Ignored")  # there is nothing to process
    provisioning.bang_node(context().session, context().clock, node.reference)
    return _done("Bang handled")


@_call("post.v0.compute_node_usage")
def _post_compute_node_usage(_asked: dict[str, Any]) -> Any:
    return _done("Ignored")  # the local profile does not bill


@_call("post.v0.compute_node_certificate")
def _post_compute_node_certificate(asked: dict[str, Any]) -> Any:
    if asking().is_local:
        return key_delivery.NOTHING
    key_delivery.check_on()
    return key_delivery.for_node(context().session, issuing(), asked["computer_guid"])


@_call("remove.v0.compute_node_certificate")
def _remove_compute_node_certificate(asked: dict[str, Any]) -> Any:
    if asking().is_local:
        return _done("Ignored")
    key_delivery.check_on()
    key_delivery.revoke_of_node(context().session, issuing(), asked["computer_guid"])
    return _done("Certificate removed")


@_call("get.v0.hateoas_url", reads=True)
def _get_hateoas_url(_asked: dict[str, Any]) -> Any:
    return {"hateoas_url": url_for("hateoas.root", _external=True)}


# How an instance is named and shown.


def guid_of(instance: SoftwareInstance) -> str:
    """Return the identifier of an instance in these calls."""
    if not asking().is_local:
        return instance.reference
    return _guid(instance.title, "" if instance.is_root else instance.tree.title, instance.shared)


def _guid(title: str, root: str, shared: bool) -> str:
    return GUID_SEPARATOR.join((title, root, str(int(shared))))


def _instance(guid: str) -> SoftwareInstance:
    """Return the instance that `guid` names: in the form above, or by its reference."""
    session = context().session
    *names, flag = guid.split(GUID_SEPARATOR)
    shared = flag == "1"
    if not asking().is_local or len(names) < 2 or flag not in ("0", "1"):
        found = lookup.find_by_reference(session, guid)
        if found is None:
            raise NotFound(f"instance_guid {guid} not handled.")
        return _seen(found)
    # A title may have the separator in it: every way to part the two titles is tried.
    for position in range(1, len(names)):
        title = GUID_SEPARATOR.join(names[:position])
        root = GUID_SEPARATOR.join(names[position:])
        found = _find(title, root, shared)
        if found is not None:
            return found
    raise NotFound(f"No {'shared' if shared else 'software'} instance {guid} found.")


def _seen(instance: SoftwareInstance) -> SoftwareInstance:
    """Return the instance, if the caller may see it."""
    require(context().session, Action.SEE_VALUES, instance)
    return instance


def _node(reference: str) -> ComputeNode:
    """Return the node, if the caller may see it."""
    node = nodes.find_node(context().session, reference)
    require(context().session, Action.SEE, node)
    return node


def _instances_on(node: ComputeNode) -> Sequence[SoftwareInstance]:
    """Return the instances on a node that the caller may see."""
    caller = caller_of(context().session)
    return [
        instance
        for instance in lookup.instances_on_node(context().session, node.id)
        if may(caller, Action.SEE, instance.subject())
    ]


def _find(title: str, root: str, shared: bool) -> SoftwareInstance | None:
    session = context().session
    if not root:
        return lookup.find_by_title(session, title, shared, None)
    above = lookup.find_by_title(session, root, False, None)
    return above and lookup.find_by_title(session, title, shared, above)


def _refuse_shared(instance: SoftwareInstance) -> None:
    if instance.shared:
        raise Conflict("NotImplemented")


def _document(instance: SoftwareInstance) -> dict[str, Any]:
    """Return the whole description of an instance."""
    place = instance.host or (instance if instance.is_placed else None)
    node = place.node.reference if place and place.node else ""
    partition = place.partition if place else None
    return {
        "title": instance.title,
        "instance_guid": guid_of(instance),
        "software_release_uri": instance.software_url,
        "software_type": instance.software_type,
        "state": instance.requested_state,
        "connection_parameters": instance.connection,
        "parameters": instance.parameters,
        "sla_parameters": instance.filters,
        "shared": instance.shared,
        "root_instance_title": instance.tree.title,
        "ip_list": [] if instance.shared else _addresses(partition),
        "full_ip_list": [],
        "computer_guid": node,
        "compute_partition_id": instance.place_name or "",
        "processing_timestamp": _timestamp(place or instance),
        "access_status_message": access_status(instance) if instance.reported_at else "",
    }


def _requested(instance: SoftwareInstance) -> dict[str, Any]:
    """Return what a requester is told: of a shared instance also the addresses of its host."""
    document = _document(instance)
    if instance.shared:
        host = instance.host
        document["ip_list"] = _addresses(host.partition if host else None)
        document["processing_timestamp"] = 0
    return document


def _elsewhere(order: InstanceOrder, root: str, given: Bypass | Forwarded) -> dict[str, Any]:
    """Return what a requester is told of what is not on this master."""
    told: dict[str, Any] = {
        "title": order.title,
        "instance_guid": _guid(order.title, root, order.shared),
        "software_release_uri": order.software_url,
        "software_type": order.software_type,
        "state": order.state,
        "parameters": dict(order.parameters),
        "sla_parameters": dict(order.filters),
        "shared": order.shared,
        "root_instance_title": root or order.title,
        "ip_list": [],
        "full_ip_list": [],
        "processing_timestamp": 0,
        "access_status_message": "",
    }
    if isinstance(given, Bypass):
        return told | {
            "connection_parameters": dict(given.connection),
            "computer_guid": "",
            "compute_partition_id": given.partition,
        }
    return told | {
        "connection_parameters": given.instance.connection,
        "computer_guid": given.instance.node or "",
        "compute_partition_id": given.instance.partition or "",
    }


def _addresses(partition: ComputePartition | None) -> Sequence[Sequence[str]]:
    return [[each.interface, each.address] for each in partition.addresses] if partition else []


def _timestamp(instance: SoftwareInstance) -> int:
    """Return microseconds, so that each change gives another number."""
    return round(instance.changed_at.timestamp() * 1_000_000)
