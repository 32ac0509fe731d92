"""The certificate of this node, where it is one that our master makes and renews."""

from slapos.node.settings import NodeSettings, Registration
from slapos.protocol.certificate import node_uri, read_certificate
from slapos.system.credentials import Credentials


def node_credentials(settings: Registration) -> Credentials | None:
    """Return how the node proves who it is; None without TLS, and for masters of another make."""
    found = Credentials.renewable(
        settings.master_url,
        settings.key_file,
        settings.cert_file,
        settings.master_ca_file,
        timeout=settings.request_timeout,
    )
    if found is None or found.certificate().uri != node_uri(settings.computer_id):
        return None
    return found


def end_of_certificate(settings: NodeSettings) -> float | None:
    """Return when the node's certificate ends, in seconds since 1970; None without one."""
    if settings.cert_file is None:
        return None
    found = read_certificate(settings.cert_file)
    return found.not_after.timestamp() if found is not None else None
