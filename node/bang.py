"""Having an instance processed again: what a failing promise and the watchdog ask of the master."""

from dataclasses import dataclass
from pathlib import Path

#: Seconds that the master gets to take it.
TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class BangSettings:
    """Which master to ask, as which node, and proved by what."""

    master_url: str
    node: str
    key_file: Path | None = None
    certificate_file: Path | None = None
    authority_file: Path | None = None


def bang(settings: BangSettings, partition: str, message: str) -> None:
    """Have the instance in a partition, and its tree, processed again.

    Raises the errors of SlapClient, and OSError for a certificate that cannot be read.
    """
    # Only now: HTTP and XML take longer to import than most promises to run, and a watchdog that
    # never bangs is to stay small.
    from slapos.protocol.http_client import HttpClient, HttpSettings  # noqa: PLC0415
    from slapos.protocol.slap_client import SlapClient  # noqa: PLC0415

    http = HttpClient(
        HttpSettings(
            base_url=settings.master_url,
            timeout=TIMEOUT,
            key_file=settings.key_file,
            certificate_file=settings.certificate_file,
            authority_file=settings.authority_file,
        )
    )
    try:
        SlapClient(http).bang_instance(settings.node, partition, message)
    finally:
        http.close()
