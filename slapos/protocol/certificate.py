"""What a certificate says: until when it is valid, and of whom it speaks.

Read by a few lines of our own (X.509, RFC 5280, in DER), so that looking needs neither time nor
memory: the library that makes keys takes some megabytes.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

#: How the URI of one of our subjects begins: `slapos:node:COMP-1`, `slapos:person:P-2`.
OURS = "slapos:"
#: The part of its life after which a certificate is renewed.
RENEWED_AFTER = 2 / 3
#: Bytes of the longest file that is read.
LARGEST = 1_000_000

# Tags of DER.
_OCTETS, _OBJECT = 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS, _URI = 0xA0, 0xA3, 0x86
#: The object identifier 2.5.29.17: subjectAltName.
_ALTERNATIVE_NAME = bytes.fromhex("551d11")


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
    try:
        with path.open(encoding="ascii", errors="replace") as stream:
            return parse_certificate(stream.read(LARGEST))
    except OSError:
        return None


def parse_certificate(text: str) -> Certificate | None:
    """Return what the first certificate of a PEM text says; None when there is none."""
    begin = text.find(ssl.PEM_HEADER)
    end = text.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        return None
    try:
        return _parsed(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)]))
    except (ValueError, IndexError, StopIteration):
        return None


def _parsed(document: bytes) -> Certificate:
    ((_, certificate),) = _items(document)
    _, signed = next(_items(certificate))
    fields = [item for item in _items(signed) if item[0] != _VERSION]
    # serial number, algorithm, issuer, validity, subject, key, and perhaps more
    not_before, not_after = (_moment(*item) for item in _items(fields[3][1]))
    uris = [uri for tag, value in fields[6:] if tag == _EXTENSIONS for uri in _uris(value)]
    return Certificate(
        not_before=not_before,
        not_after=not_after,
        uri=next((uri for uri in uris if uri.startswith(OURS)), ""),
    )


def _uris(value: bytes) -> Iterator[str]:
    """Yield the URIs in extensions."""
    _, extensions = next(_items(value))
    for _, extension in _items(extensions):
        parts = list(_items(extension))
        if parts[0] == (_OBJECT, _ALTERNATIVE_NAME) and parts[-1][0] == _OCTETS:
            _, names = next(_items(parts[-1][1]))
            yield from (name.decode("ascii") for tag, name in _items(names) if tag == _URI)


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tags and contents of what follows each other. Raises ValueError, IndexError."""
    place = 0
    while place < len(content):
        tag, length = content[place], content[place + 1]
        place += 2
        if length >= 0x80:  # so many bytes have the length
            count = length - 0x80
            if not 0 < count <= 4:
                raise ValueError("a length that cannot be")
            length = int.from_bytes(content[place : place + count], "big")
            place += count
        if place + length > len(content):
            raise ValueError("it is cut short")
        yield tag, content[place : place + length]
        place += length


def _moment(tag: int, value: bytes) -> datetime:
    # Two digits of a year mean 1950 to 2049 (RFC 5280 §4.1.2.5.1).
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def node_uri(reference: str) -> str:
    """Return what the certificate of a node has as its URI."""
    return f"{OURS}node:{reference}"


def instance_uri(reference: str) -> str:
    """Return what the certificate of an instance has as its URI."""
    return f"{OURS}instance:{reference}"


def person_uri(reference: str) -> str:
    """Return what the certificate of a person has as its URI."""
    return f"{OURS}person:{reference}"
