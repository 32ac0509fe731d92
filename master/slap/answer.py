"""How SLAP calls are answered."""

from datetime import datetime
from email.utils import format_datetime
from typing import Any

from flask import Response, request

from slapos.master.http import context
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.slap import node_view
from slapos.master.timestamp import to_timestamp
from slapos.protocol.instance_xml import to_instance_xml
from slapos.protocol.marshal import Marshalled


def requested_instance(instance: SoftwareInstance) -> Marshalled:
    """Return what a requester is told of its instance."""
    place = instance.host or instance
    partition, node = place.partition, place.node
    timestamp = to_timestamp(instance.changed_at)
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
            "slap_computer_partition_id": instance.place_name or "",
            "slap_server_url": request.url_root,
            "slap_software_release_url": instance.software_url,
            "slap_software_type": instance.software_type,
            "timestamp": timestamp,
            **(node_view.addresses(partition) if partition is not None else {"ip_list": []}),
        },
    )


def status(
    reference: str, portal_type: str, text: str, state: str, since: datetime | None
) -> dict[str, Any]:
    """Return the status dictionary of something, from what a node said of it last."""
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


def text(text: str, status: int = 200) -> Response:
    """Answer with a word or a reason."""
    return Response(text, status, content_type="text/plain; charset=utf-8")


def xml(content: bytes) -> Response:
    """Answer with a document."""
    return Response(content, content_type="text/xml; charset=utf-8")
