"""Requests that another master answers: chosen by a filter or by their release, then passed on."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import OtherMaster, Settings
from slapos.protocol.errors import InvalidConfiguration, NotFound
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.slap_client import Requester, SlapClient

#: The filter by which a requester names a master.
MASTER_URL = "master_url"
#: Stands for the requester in a title that is passed on when no partition asks.
USER = "user"
TIMEOUT = 30.0  # seconds
RETRIES = 1
DEFAULT_PORTS = {"http": 80, "https": 443}


def other_master_for(
    settings: Settings, order: InstanceOrder, own_urls: Iterable[str]
) -> OtherMaster | None:
    """Return the master that has to answer a request, None when it is this one.

    Raises NotFound when the request names a master that the configuration does not list.
    """
    named = order.filters.get(MASTER_URL)
    if named:
        if _place(str(named)) in {_place(url) for url in own_urls}:
            return None
        for other in settings.other_masters:
            if other.url == named:
                return other
        raise NotFound(
            f"this master does not forward to {named}: the configuration has no section "
            f"[multimaster/{named}]"
        )
    for other in settings.other_masters:
        if order.software_url in other.release_urls:
            return other
    return None


def title_elsewhere(order: InstanceOrder, requester: str) -> str:
    """Return the title under which another master knows what `requester` asked here."""
    return f"{requester}_{order.title}"


def forward(other: OtherMaster, order: InstanceOrder, requester: str) -> RequestedInstance:
    """Ask another master, and return what it answers. Speaks over the network.

    `requester` is the reference of the partition that asks, or USER. Raises MasterUnreachable,
    NotReady while the other master has no place for it, or whatever else the other master refused
    it with.
    """
    title = title_elsewhere(order, requester)
    filters = {name: value for name, value in order.filters.items() if name != MASTER_URL}
    behalf = None
    if other.node and other.partition:
        behalf = Requester(other.node, other.partition)
    else:
        filters["source_instance_id"] = title
    http = HttpClient(_http_settings(other))
    try:
        return SlapClient(http).request(
            software_url=order.software_url,
            software_type=order.software_type,
            title=title,
            parameters=order.parameters,
            filters=filters,
            state=order.state,
            shared=order.shared,
            requester=behalf,
        )
    finally:
        http.close()


def _http_settings(other: OtherMaster) -> HttpSettings:
    if other.url.startswith("https:") and not (other.key_file and other.certificate_file):
        raise InvalidConfiguration(
            f"requests cannot be forwarded to {other.url}: the section [multimaster/{other.url}] "
            "needs key and cert, the files by which this master proves who it is"
        )
    return HttpSettings(
        base_url=other.url,
        timeout=TIMEOUT,
        retries=RETRIES,
        key_file=other.key_file,
        certificate_file=other.certificate_file,
    )


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS.get(parts.scheme)
