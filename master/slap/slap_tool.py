"""The SLAP calls as slapproxy answers them: form fields in, SLAP XML or a word out.

Fields that end in `_xml`, and `state` of a request, are SLAP documents. A field that a client
leaves empty may come as the text "None".
"""

from collections.abc import Mapping
from email.utils import format_datetime
from typing import Any

from flask import Blueprint, Response, current_app, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from slapos.master.catalog import service as catalog
from slapos.master.http import context, reason_of, status_of
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.provisioning.status import access_status, build_status
from slapos.master.slap import node_view
from slapos.master.slap.frontend import Bypass
from slapos.master.slap.requesting import Forwarded, answer_request
from slapos.protocol.errors import (
    InvalidConfiguration,
    InvalidRequest,
    MalformedDocument,
    MasterUnreachable,
    NoCapacity,
    SlapOSError,
)
from slapos.protocol.instance_xml import to_instance_xml
from slapos.protocol.marshal import Marshalled, dumps, loads
from slapos.protocol.messages import NodeInformation
from slapos.protocol.states import BuildState, InstanceState

blueprint = Blueprint("slap_tool", __name__)

#: Where this wire's statuses differ from those of the others.
STATUS: dict[type[SlapOSError], int] = {
    NoCapacity: 404,
    InvalidConfiguration: 404,
    MasterUnreachable: 523,
}
NODE_VIEWS = "slapos.node_views"
IGNORED = "Ignored"
DONE = "done"
OK = "OK"


@blueprint.errorhandler(SlapOSError)
def _answer_error(error: SlapOSError) -> ResponseReturnValue:
    status = next((STATUS[kind] for kind in STATUS if isinstance(error, kind)), status_of(error))
    return _text(str(error), status)


@blueprint.errorhandler(HTTPException)
def _answer_http_error(error: HTTPException) -> ResponseReturnValue:
    return _text(reason_of(error), error.code or 500)


# What a node asks.


@blueprint.get("/getFullComputerInformation")
@blueprint.get("/getComputerInformation")
def get_full_computer_information() -> ResponseReturnValue:
    """Tell a node everything; nothing, with 304, when it has the same already."""
    views: node_view.NodeViews = current_app.extensions[NODE_VIEWS]
    document = views.document(context().session, request.args["computer_id"])
    response = _xml(document.content)
    response.set_etag(document.etag)
    return response.make_conditional(request)


@blueprint.get("/registerComputerPartition")
def register_computer_partition() -> ResponseReturnValue:
    """Tell about one partition."""
    told = node_view.partition_information(
        context().session,
        request.args["computer_reference"],
        request.args["computer_partition_reference"],
    )
    return _xml(dumps(told.to_marshalled()))


@blueprint.get("/getComputerPartitionCertificate")
def get_computer_partition_certificate() -> ResponseReturnValue:
    """The local profile has no certificates."""
    return _xml(dumps({"certificate": "", "key": ""}))


@blueprint.post("/loadComputerConfigurationFromXML")
def load_computer_configuration() -> ResponseReturnValue:
    """Take in what a node has."""
    told = _read_format(_document("xml"))
    provisioning.format_node(context().session, context().clock, told)
    return _text(DONE)


@blueprint.post("/buildingSoftwareRelease")
def building_software_release() -> ResponseReturnValue:
    """Take in that a release is being built."""
    return _report_build(BuildState.BUILDING)


@blueprint.post("/availableSoftwareRelease")
def available_software_release() -> ResponseReturnValue:
    """Take in that a release is built."""
    return _report_build(BuildState.AVAILABLE)


@blueprint.post("/softwareReleaseError")
def software_release_error() -> ResponseReturnValue:
    """Take in that a build failed."""
    return _report_build(BuildState.ERROR, _optional("error_log") or "")


@blueprint.post("/destroyedSoftwareRelease")
def destroyed_software_release() -> ResponseReturnValue:
    """Take in that a release is gone."""
    _report_build(BuildState.DESTROYED)
    return _text(OK)


@blueprint.post("/startedComputerPartition")
def started_computer_partition() -> ResponseReturnValue:
    """Take in that an instance is started."""
    return _report_state(InstanceState.STARTED)


@blueprint.post("/stoppedComputerPartition")
def stopped_computer_partition() -> ResponseReturnValue:
    """Take in that an instance is stopped."""
    return _report_state(InstanceState.STOPPED)


@blueprint.post("/destroyedComputerPartition")
def destroyed_computer_partition() -> ResponseReturnValue:
    """Take in that an instance is gone; it is forgotten when those that it requested are too."""
    instance = provisioning.find_on_partition(context().session, *_place())
    if instance is None:
        return _text(OK)
    waiting = provisioning.report_state(
        context().session, context().clock, instance, InstanceState.DESTROYED
    )
    if waiting:
        titles = ", ".join(sorted(each.title for each in waiting))
        return _text(
            f"Not destroying yet because this partition has child partitions: {titles}; it is "
            "forgotten when they are gone"
        )
    return _text(OK)


@blueprint.post("/softwareInstanceError")
def software_instance_error() -> ResponseReturnValue:
    """Take in that an instance, or one shared instance on it, failed."""
    provisioning.report_error(
        context().session,
        context().clock,
        _meant_instance(),
        _optional("error_log") or "",
        _about(),
    )
    return _text(IGNORED)


@blueprint.post("/useComputer")
def use_computer() -> ResponseReturnValue:
    """The local profile does not bill."""
    return _text(IGNORED)


@blueprint.post("/updateComputerPartitionRelatedInstanceList")
def update_computer_partition_related_instances() -> ResponseReturnValue:
    """Nothing is done with it, as by the master of ERP5; nodes send it after each pass."""
    return _text("")


@blueprint.post("/computerBang")
def computer_bang() -> ResponseReturnValue:
    """Have everything on a node processed again."""
    provisioning.bang_node(context().session, context().clock, _field("computer_id"))
    return _xml(dumps(""))


@blueprint.post("/softwareInstanceBang")
def software_instance_bang() -> ResponseReturnValue:
    """Have an instance and its tree processed again."""
    instance = provisioning.instance_on_partition(context().session, *_place())
    provisioning.bang(context().session, context().clock, instance.tree)
    return _text(OK)


# What a customer or an instance asks.


@blueprint.post("/supplySupply")
def supply_supply() -> ResponseReturnValue:
    """Have a release built on a node, or removed from it."""
    url, state = _field("url"), _optional("state") or "available"
    catalog.supply(
        context().session, context().clock, node=_field("computer_id"), url=url, state=state
    )
    return _text(f"Supplied {url!r} to be {state}")


@blueprint.post("/requestComputerPartition")
def request_computer_partition() -> ResponseReturnValue:
    """Give an instance: made, changed, or as it is."""
    order = read_order()
    named = named_partition()
    partition = named[1] if named else _optional("computer_partition_id")
    return answer_request(order, partition, lambda given: _answer_requested(order, given))


def _answer_requested(
    order: InstanceOrder, given: SoftwareInstance | Bypass | Forwarded
) -> ResponseReturnValue:
    match given:
        case Bypass():
            told = {
                "_connection_dict": dict(given.connection),
                "_parameter_dict": {},
                "slap_computer_id": "",
                "slap_computer_partition_id": "",
            }
        case Forwarded():
            told = {
                **given.instance.attributes,
                "_master_url": given.master_url,
                "_software_release_document": order.software_url,
            }
        case _:
            return _xml(dumps(requested_instance(given)))
    return _xml(dumps(Marshalled("SoftwareInstance", (), told)))


@blueprint.post("/setComputerPartitionConnectionXml")
def set_computer_partition_connection_xml() -> ResponseReturnValue:
    """Take in what an instance, or one shared instance on it, publishes."""
    connection = _dictionary(_document("connection_xml"), "connection_xml")
    provisioning.publish(context().session, context().clock, _meant_instance(), connection)
    return _text(DONE)


@blueprint.post("/softwareInstanceRename")
def software_instance_rename() -> ResponseReturnValue:
    """Give an instance another title."""
    provisioning.rename(context().session, context().clock, _meant_instance(), _field("new_name"))
    return _text(DONE)


@blueprint.get("/getSoftwareReleaseListFromSoftwareProduct")
def get_software_releases() -> ResponseReturnValue:
    """Give the releases of a software product."""
    product = request.args.get("software_product_reference")
    if product is None or "software_release_url" in request.args:
        raise InvalidRequest(
            "give software_product_reference and nothing else; "
            "software_release_url is not understood"
        )
    return _xml(dumps(catalog.releases_of(context().settings.software_products, product)))


@blueprint.get("/getHateoasUrl")
def get_hateoas_url() -> ResponseReturnValue:
    """Give where the hateoas answers begin."""
    return _text(url_for("hateoas.root", _external=True))


@blueprint.get("/getComputerPartitionStatus")
def get_computer_partition_status() -> ResponseReturnValue:
    """Give what a node said last of an instance."""
    instance = provisioning.instance_on_partition(context().session, *_place())
    return _xml(
        dumps(
            _status(
                instance.reference,
                "Software Instance",
                access_status(instance),
                instance.reported_state or "",
                instance.reported_at,
            )
        )
    )


@blueprint.get("/getComputerStatus")
def get_computer_status() -> ResponseReturnValue:
    """Give when a node said something last."""
    node = nodes.find_node(context().session, _field("computer_id"))
    return _xml(
        dumps(
            _status(node.reference, "Compute Node", "#access Node is here", "", node.contacted_at)
        )
    )


@blueprint.get("/getSoftwareInstallationStatus")
def get_software_installation_status() -> ResponseReturnValue:
    """Give what a node said last of a release."""
    node = nodes.find_node(context().session, _field("computer_id"))
    installation = catalog.find_wanted(context().session, node, _field("url"))
    return _xml(
        dumps(
            _status(
                installation.url,
                "Software Installation",
                build_status(installation),
                installation.reported_state or "",
                installation.reported_at,
            )
        )
    )


@blueprint.get("/getHostingSubscriptionIpList")
def get_hosting_subscription_ip_list() -> ResponseReturnValue:
    """Give the addresses of all instances of the tree that a partition belongs to."""
    session = context().session
    instance = provisioning.instance_on_partition(session, *_place())
    found: list[tuple[str | None, ...]] = []
    for each in provisioning.instances_of(session, instance.tree):
        if each.partition is not None:
            found += node_view.addresses(each.partition)["ip_list"]
    return _xml(dumps(found))


@blueprint.post("/requestComputer")
def request_computer() -> ResponseReturnValue:
    """Make a node known by its title, which is its reference here."""
    node = nodes.ensure_node(context().session, context().clock, _field("computer_title"))
    return _xml(dumps(NodeInformation(reference=node.reference).to_marshalled()))


# How requests are read; the other wires use some of it.


def read_order() -> InstanceOrder:
    """Read what is asked for from the form."""
    shared = _document("shared_xml", default=False)
    state = _document("state", default=None)
    return InstanceOrder(
        title=_field("partition_reference"),
        software_url=_field("software_release"),
        software_type=_optional("software_type") or "default",
        parameters=_dictionary(
            _document("partition_parameter_xml", default={}), "partition_parameter_xml"
        ),
        filters=_dictionary(_document("filter_xml", default={}), "filter_xml"),
        state=read_state(state),
        shared=bool(shared),
        requester=requester(),
    )


def read_state(state: Any) -> InstanceState:
    """Return the state that a client means; none is started."""
    try:
        return InstanceState(state or "started")
    except ValueError as error:
        raise InvalidRequest(
            f"an instance can be started, stopped or destroyed, not {state!r}"
        ) from error


def requester() -> SoftwareInstance | None:
    """Return the instance that asks, by the header X-SlapPartition or the form; None for a person.

    A free partition asks for the person whose machine it is on, as with slapproxy.
    """
    named = named_partition()
    if named is not None:
        try:
            return provisioning.find_on_partition(context().session, *named)
        except SlapOSError as error:
            raise InvalidRequest(
                f"No partition matching the authorization header: ({' / '.join(named)})"
            ) from error
    node, partition = _optional("computer_id"), _optional("computer_partition_id")
    if node is None or partition is None:
        return None
    return provisioning.find_on_partition(context().session, node, partition)


def named_partition() -> tuple[str, str] | None:
    """Return (node, partition) of the header `Authorization: X-SlapPartition …`."""
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "x-slappartition":
        return None
    pairs = (item.partition("=") for item in rest.split(","))
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return fields.get("computer_id", ""), fields.get("computer_partition_id", "")


def requested_instance(instance: SoftwareInstance) -> Marshalled:
    """Return what a requester is told of its instance."""
    place = instance.host or instance
    partition, node = place.partition, place.node
    timestamp = node_view.to_timestamp(instance.changed_at)
    return Marshalled(
        "SoftwareInstance",
        (),
        {
            "_connection_dict": instance.connection,
            "_filter_dict": instance.filters,
            "_instance_guid": instance.reference,
            "_parameter_dict": {**instance.parameters, "timestamp": timestamp},
            "_requested_state": instance.requested_state,
            "connection_xml": to_instance_xml(instance.connection),
            "instance_title": instance.title,
            "root_instance_title": instance.tree.title,
            "slap_computer_id": node.reference if node is not None else "",
            "slap_computer_partition_id": partition.reference if partition is not None else "",
            "slap_server_url": request.url_root,
            "slap_software_release_url": instance.software_url,
            "slap_software_type": instance.software_type,
            "timestamp": timestamp,
            **(node_view.addresses(partition) if partition is not None else {"ip_list": []}),
        },
    )


def _report_build(state: BuildState, message: str = "") -> ResponseReturnValue:
    catalog.report(
        context().session,
        context().clock,
        node=_field("computer_id"),
        url=_field("url"),
        state=state,
        message=message,
    )
    return _text(IGNORED)


def _report_state(state: InstanceState) -> ResponseReturnValue:
    instance = provisioning.instance_on_partition(context().session, *_place())
    provisioning.report_state(context().session, context().clock, instance, state, _about())
    return _text(IGNORED)


def _about() -> Any:
    """Return the timestamp that a report goes by; older nodes do not send it."""
    timestamp = _optional("timestamp")
    return None if timestamp is None else node_view.from_timestamp(timestamp)


def _meant_instance() -> SoftwareInstance:
    instance = provisioning.instance_on_partition(context().session, *_place())
    reference = _optional("slave_reference")
    if reference is None:
        return instance
    return provisioning.find_shared(context().session, instance, reference)


def _place() -> tuple[str, str]:
    return _field("computer_id"), _field("computer_partition_id")


def _field(name: str) -> str:
    return request.values[name]


def _optional(name: str) -> str | None:
    value = request.values.get(name)
    return None if value in (None, "", "None") else value


_REQUIRED = object()


def _document(name: str, default: Any = _REQUIRED) -> Any:
    if default is not _REQUIRED and not request.values.get(name):
        return default
    try:
        return loads(_field(name).encode())
    except MalformedDocument as error:
        raise MalformedDocument(f"the field {name!r} cannot be read: {error}") from error


def _dictionary(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(f"the field {name!r} is no dictionary of texts")
    return value


def _read_format(value: Any) -> nodes.NodeFormat:
    """Read the dictionary that a node sends of itself."""
    try:
        return nodes.NodeFormat(
            reference=str(value["reference"]),
            address=_none_or_text(value.get("address")),
            netmask=_none_or_text(value.get("netmask")),
            partitions=[_read_partition(item) for item in value.get("partition_list") or ()],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"this is no description of a node: {error!r}") from error


def _read_partition(item: Mapping[str, Any]) -> nodes.PartitionFormat:
    tap = item.get("tap") or {}
    # Without an interface of their own, addresses are told to be on one named as the partition.
    interface = str(tap.get("name") or item["reference"])
    found = [
        nodes.Address(
            interface=interface,
            address=str(address["addr"]),
            netmask=_none_or_text(address.get("netmask")),
        )
        for address in item.get("address_list") or ()
    ]
    if tap.get("ipv4_addr"):
        found.append(
            nodes.Address(
                interface=f"route_{interface}",
                address=str(tap["ipv4_addr"]),
                netmask=_none_or_text(tap.get("ipv4_netmask")),
                gateway=_none_or_text(tap.get("ipv4_gateway")),
                network=_none_or_text(tap.get("ipv4_network")),
            )
        )
    return nodes.PartitionFormat(
        reference=str(item["reference"]),
        addresses=found,
        capabilities=[str(name) for name in item.get("capability_list") or ()],
    )


def _none_or_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _status(reference: str, portal_type: str, text: str, state: str, since: Any) -> dict[str, Any]:
    if since is None:
        return {
            "no_data": 1,
            "reference": reference,
            "portal_type": portal_type,
            "text": f"#error no data found for {reference}",
        }
    age = (context().clock.now() - since).total_seconds()
    return {
        "created_at": format_datetime(since, usegmt=True),
        "since": format_datetime(since, usegmt=True),
        "state": state,
        "text": text,
        "user": "SlapOS",
        "reference": reference,
        "portal_type": portal_type,
        "no_data_since_15_minutes": int(age > 15 * 60),
        "no_data_since_5_minutes": int(age > 5 * 60),
    }


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="text/plain; charset=utf-8")


def _xml(content: bytes) -> Response:
    return Response(content, content_type="text/xml; charset=utf-8")
