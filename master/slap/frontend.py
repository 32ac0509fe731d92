"""Frontends that need no frontend: whoever asks for one is told to go straight to the backend.

A local master has no frontends, but releases ask for them and check the address they get.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from slapos.master.provisioning.service import InstanceOrder

#: Releases of frontends, by the URL that other releases ask for.
WEB_RELEASE = (
    "http://git.erp5.org/gitweb/slapos.git/blob_plain/HEAD:/software/apache-frontend/software.cfg"
)
WEB_TYPES = ("", "default", "RootSoftwareInstance")
KVM_RELEASE = (
    "http://git.erp5.org/gitweb/slapos.git/blob_plain/refs/tags/slapos-0.92:"
    "/software/kvm/software.cfg"
)
KVM_TYPE = "frontend"


@dataclass(frozen=True)
class Bypass:
    """What a frontend would have published; `partition` tells a reader that there is none."""

    partition: str
    connection: Mapping[str, str]


def bypass(order: InstanceOrder, proxied: Callable[[str], str] | None) -> Bypass | None:
    """Return what to answer to a request for a frontend, None when it is for something else.

    `proxied` gives the address of a backend by way of this master's HTTP proxy. It is given when
    the master is asked by HTTPS, so that nobody is sent from a secure to an open connection.
    """
    if not order.shared:
        return None
    if order.software_url == WEB_RELEASE and order.software_type in WEB_TYPES:
        return _web(order.parameters.get("url"), proxied)
    if order.software_url == KVM_RELEASE and order.software_type == KVM_TYPE:
        return _kvm(order.parameters.get("host"), order.parameters.get("port"))
    return None


def _web(backend: Any, proxied: Callable[[str], str] | None) -> Bypass | None:
    if not backend:
        return None
    address = proxied(str(backend)) if proxied else str(backend)
    connection = {"secure_access": address, "domain": urlsplit(address).netloc}
    return Bypass(f"Fake frontend for {backend}", connection)


def _kvm(host: Any, port: Any) -> Bypass | None:
    if not host or not port:
        return None
    name = f"[{host}]" if ":" in str(host) and not str(host).startswith("[") else str(host)
    url = f"https://{name}:{port}/"
    connection = {"url": url, "domainname": name, "port": str(port), "path": "/"}
    return Bypass(f"Fake KVM VNC frontend for {url}", connection)
