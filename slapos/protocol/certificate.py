"""What a certificate says: until when it is valid, and of whom it speaks.

Read with what the standard library has, so that looking needs neither time nor memory.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: How the URI of one of our subjects begins: `slapos:node:COMP-1`, `slapos:person:P-2`.
OURS = "slapos:"
#: The part of its life after which a certificate is renewed.
RENEWED_AFTER = 2 / 3


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The dates (UTC) of a certificate, and the URI of its subject, empty where it has none."""

    not_before: datetime
    not_after: datetime
    uri: str = ""

    def due(self, spread: float = 0.0) -> datetime:
        """Return when it is to be renewed; `spread` in [0, 1) delays that by up to 5 % of its life.

        So what was made in the same minute is not renewed in the same minute.
        """
        life = self.not_after - self.not_before
        return self.not_before + life * (RENEWED_AFTER + spread / 20)


def read_certificate(path: Path) -> Certificate | None:
    """Return what the first certificate of a PEM file says; None when it cannot be read."""
    # The one reader of certificate files that the standard library has, without a public name.
    reader: Any = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    try:
        said = reader(str(path))
        names = said.get("subjectAltName", ())
        uris = [str(value) for kind, value in names if kind == "URI"]
        return Certificate(
            not_before=_moment(said["notBefore"]),
            not_after=_moment(said["notAfter"]),
            uri=next((uri for uri in uris if uri.startswith(OURS)), ""),
        )
    except (TypeError, KeyError, ValueError, OSError):
        return None


def node_uri(reference: str) -> str:
    """Return what the certificate of a node has as its URI."""
    return f"{OURS}node:{reference}"


def instance_uri(reference: str) -> str:
    """Return what the certificate of an instance has as its URI."""
    return f"{OURS}instance:{reference}"


def person_uri(reference: str) -> str:
    """Return what the certificate of a person has as its URI."""
    return f"{OURS}person:{reference}"


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
