"""The SLAP calls as slapproxy answers them: form fields in, SLAP XML or a word out.

Fields that end in `_xml`, and `state` of a request, are SLAP documents. A field that a client
leaves empty may come as the text "None".
"""

from functools import partial

from flask import Blueprint, Response, current_app, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from slapos.master.catalog import service as catalog
from slapos.master.http import context, keep, reason_of, status_of
from slapos.master.identity.rights import Action, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import bulk_reports, lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.provisioning.status import access_status, build_status
from slapos.master.slap import answer, form, keeping, key_delivery, node_view
from slapos.master.slap.asking import asking
from slapos.master.slap.frontend import Bypass
from slapos.master.slap.requesting import Forwarded, answer_request, waiting_reason
from slapos.protocol.errors import (
    InvalidConfiguration,
    InvalidRequest,
    MasterUnreachable,
    NoCapacity,
    SlapOSError,
)
from slapos.protocol.marshal import Marshalled, dumps
from slapos.protocol.messages import NodeInformation
from slapos.protocol.states import BuildState, InstanceState

blueprint = Blueprint("slap_tool", __name__)

#: Where this wire's statuses differ from those of the others.
STATUS: dict[type[SlapOSError], int] = {
    NoCapacity: 404,
    InvalidConfiguration: 404,
    MasterUnreachable: 523,
}
IGNORED = "Ignored"
DONE = "done"
OK = "OK"


@blueprint.errorhandler(SlapOSError)
def _answer_error(error: SlapOSError) -> ResponseReturnValue:
    status = next(
        (STATUS[kind] for kind in STATUS if isinstance(error, kind)), status_of(type(error))
    )
    return answer.text(str(error), status)


@blueprint.errorhandler(HTTPException)
def _answer_http_error(error: HTTPException) -> ResponseReturnValue:
    return answer.text(reason_of(error), error.code or 500)


# What a node asks.


@blueprint.get("/getFullComputerInformation")
@blueprint.get("/getComputerInformation")
def get_full_computer_information() -> ResponseReturnValue:
    """Tell a node everything; nothing, with 304, when it has the same already."""
    views: node_view.NodeViews = current_app.extensions[node_view.NODE_VIEWS]
    document = node_view.document_for_caller(views, context().session, request.args["computer_id"])
    status, headers, content = document.answer(
        request.headers.get("If-None-Match", ""), request.headers.get("Accept-Encoding", "")
    )
    return Response(content, status, headers)


@blueprint.get("/registerComputerPartition")
def register_computer_partition() -> ResponseReturnValue:
    """Tell about one partition."""
    told = node_view.partition_information(
        context().session,
        request.args["computer_reference"],
        request.args["computer_partition_reference"],
    )
    return answer.xml(dumps(told.to_marshalled()))


@blueprint.get("/getComputerPartitionCertificate")
def get_computer_partition_certificate() -> ResponseReturnValue:
    """Give an instance a key and its certificate, if this master does that; else empty texts.

    slapos.core's node asks at each pass, and goes on without.
    """
    if not key_delivery.is_on():
        return answer.xml(dumps({"certificate": "", "key": ""}))
    node, partition = request.args["computer_id"], request.args["computer_partition_id"]
    make = partial(key_delivery.for_partition, node=node, partition=partition)
    return key_delivery.later(make, lambda made: answer.xml(dumps(dict(made))))


@blueprint.post("/loadComputerConfigurationFromXML")
def load_computer_configuration() -> ResponseReturnValue:
    """Take in what a node has."""
    told = form.read_format(form.document("xml"))
    provisioning.format_node(context().session, context().clock, told)
    return answer.text(DONE)


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
    return _report_build(BuildState.ERROR, form.optional("error_log") or "")


@blueprint.post("/destroyedSoftwareRelease")
def destroyed_software_release() -> ResponseReturnValue:
    """Take in that a release is gone."""
    _report_build(BuildState.DESTROYED)
    return answer.text(OK)


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
    session = context().session
    instance = lookup.find_on_partition(session, *form.place())
    if instance is None:
        require(session, Action.SEE, nodes.find_node(session, form.field("computer_id")))
        return answer.text(OK)
    require(session, Action.REPORT, instance)
    waiting = reports.report_state(
        session, context().clock, instance, InstanceState.DESTROYED, form.about()
    )
    if waiting:
        titles = ", ".join(sorted(each.title for each in waiting))
        return answer.text(
            f"Not destroying yet because this partition has child partitions: {titles}; it is "
            "forgotten when they are gone"
        )
    return answer.text(OK)


@blueprint.post("/softwareInstanceError")
def software_instance_error() -> ResponseReturnValue:
    """Take in that an instance, or one shared instance on it, failed."""
    session, clock, about = context().session, context().clock, form.about()
    error, is_own = form.optional("error_log"), form.optional("slave_reference") is None
    if not is_own or not bulk_reports.take_one(
        session, clock, *form.place(), error=error, about=about
    ):
        reports.report_error(session, clock, form.meant_instance(), error or "", about)
    return answer.text(IGNORED)


@blueprint.post("/useComputer")
def use_computer() -> ResponseReturnValue:
    """The local profile does not bill."""
    return answer.text(IGNORED)


@blueprint.post("/updateComputerPartitionRelatedInstanceList")
def update_computer_partition_related_instances() -> ResponseReturnValue:
    """Take in which instances one asked for when it was processed last."""
    titles = form.document("instance_reference_xml", default=[])
    if not isinstance(titles, list) or not all(isinstance(each, str) for each in titles):
        raise InvalidRequest("instance_reference_xml must be a list of titles")
    reports.report_related(context().session, context().clock, form.instance_here(), titles)
    return answer.text("")


@blueprint.post("/computerBang")
def computer_bang() -> ResponseReturnValue:
    """Have everything on a node processed again."""
    provisioning.bang_node(context().session, context().clock, form.field("computer_id"))
    return answer.xml(dumps(""))


@blueprint.post("/softwareInstanceBang")
def software_instance_bang() -> ResponseReturnValue:
    """Have an instance and its tree processed again."""
    instance = form.instance_here()
    provisioning.bang(context().session, context().clock, instance.tree)
    return answer.text(OK)


# What a customer or an instance asks.


@blueprint.post("/supplySupply")
def supply_supply() -> ResponseReturnValue:
    """Have a release built on a node, or removed from it."""
    url, state = form.field("url"), form.optional("state") or "available"
    catalog.supply(
        context().session, context().clock, node=form.field("computer_id"), url=url, state=state
    )
    return answer.text(f"Supplied {url!r} to be {state}")


@blueprint.post("/requestComputerPartition")
def request_computer_partition() -> ResponseReturnValue:
    """Give an instance: made, changed, or as it is."""
    keeping.nothing_to_keep()
    order = form.read_order()
    named = form.named_partition()
    partition = named[1] if named else form.optional("computer_partition_id")
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
        case _ if given.place_name is None:
            keep()
            return answer.text(waiting_reason(given), 408)
        case _:
            content = dumps(answer.requested_instance(given))
            keeping.to_be_kept(content, given, order.requester)
            return answer.xml(content)
    return answer.xml(dumps(Marshalled("SoftwareInstance", (), told)))


@blueprint.after_request
def _keep_answer(response: Response) -> Response:
    if response.status_code == 200:
        keeping.keep()
    return response


@blueprint.post("/setComputerPartitionConnectionXml")
def set_computer_partition_connection_xml() -> ResponseReturnValue:
    """Take in what an instance, or one shared instance on it, publishes."""
    connection = form.dictionary(form.document("connection_xml"), "connection_xml")
    provisioning.publish(context().session, context().clock, form.meant_instance(), connection)
    return answer.text(DONE)


@blueprint.post("/softwareInstanceRename")
def software_instance_rename() -> ResponseReturnValue:
    """Give an instance another title."""
    provisioning.rename(
        context().session, context().clock, form.meant_instance(), form.field("new_name")
    )
    return answer.text(DONE)


@blueprint.get("/getSoftwareReleaseListFromSoftwareProduct")
def get_software_releases() -> ResponseReturnValue:
    """Give the releases of a software product, the best first."""
    product = request.args.get("software_product_reference")
    if not asking().is_local:
        offered = catalog.offered_releases(
            context().session,
            context().clock,
            product=product,
            url=request.args.get("software_release_url"),
            project=request.args.get("project_reference"),
        )
        return answer.xml(dumps(offered))
    if product is None or "software_release_url" in request.args:
        raise InvalidRequest(
            "give software_product_reference and nothing else; "
            "software_release_url is not understood"
        )
    return answer.xml(dumps(catalog.releases_of(context().settings.software_products, product)))


@blueprint.get("/getHateoasUrl")
def get_hateoas_url() -> ResponseReturnValue:
    """Give where the hateoas answers begin."""
    return answer.text(url_for("hateoas.root", _external=True))


@blueprint.get("/getComputerPartitionStatus")
def get_computer_partition_status() -> ResponseReturnValue:
    """Give what a node said last of an instance."""
    instance = form.instance_here()
    return answer.xml(
        dumps(
            answer.status(
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
    node = nodes.find_node(context().session, form.field("computer_id"))
    require(context().session, Action.SEE, node)
    return answer.xml(
        dumps(
            answer.status(
                node.reference, "Compute Node", "#access Node is here", "", node.contacted_at
            )
        )
    )


@blueprint.get("/getSoftwareInstallationStatus")
def get_software_installation_status() -> ResponseReturnValue:
    """Give what a node said last of a release."""
    node = nodes.find_node(context().session, form.field("computer_id"))
    url = form.field("url")
    subject = Subject(Kind.INSTALLATION, url, node.project_id, node_id=node.id)
    # Before it is looked for: so who may not see it does not learn whether it is there.
    require(context().session, Action.SEE, subject)
    installation = catalog.find_wanted(context().session, node, url)
    return answer.xml(
        dumps(
            answer.status(
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
    instance = form.instance_here()
    found: list[tuple[str | None, ...]] = []
    for each in lookup.instances_of(session, instance.tree):
        if each.partition is not None:
            found += node_view.addresses(each.partition)["ip_list"]
    return answer.xml(dumps(found))


@blueprint.post("/requestComputer")
def request_computer() -> ResponseReturnValue:
    """Make a node known by its title."""
    node = asking().request_node(
        context().session,
        context().clock,
        form.field("computer_title"),
        form.optional("project_reference"),
    )
    return answer.xml(dumps(NodeInformation(reference=node.reference).to_marshalled()))


def _report_build(state: BuildState, message: str = "") -> ResponseReturnValue:
    catalog.report(
        context().session,
        context().clock,
        node=form.field("computer_id"),
        url=form.field("url"),
        state=state,
        message=message,
    )
    return answer.text(IGNORED)


def _report_state(state: InstanceState) -> ResponseReturnValue:
    session, clock, about = context().session, context().clock, form.about()
    if not bulk_reports.take_one(session, clock, *form.place(), state=state, about=about):
        reports.report_state(session, clock, form.instance_here(), state, about)
    return answer.text(IGNORED)
