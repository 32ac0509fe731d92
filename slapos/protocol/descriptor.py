"""`software.cfg.json`: what a software release says of its types and of their parameters.

It lies beside the release: its path or URL with `.json` added (slap-software.md §1.4). A release
may have none, and one that is broken must block nobody: `read_descriptor` then raises
BrokenDescriptor, and the caller goes on without.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests

from slapos.protocol.errors import NotFound, SlapOSError
from slapos.protocol.http_client import cause_of
from slapos.protocol.json_reader import load_json

DEFAULT_TYPE = "default"
#: What the default type was called before.
OLD_DEFAULT_TYPE = "RootSoftwareInstance"
#: How long to wait for a descriptor or schema on the network, in seconds.
FETCH_TIMEOUT = 10.0
MAXIMUM_BYTES = 4 * 1024 * 1024

#: Returns the content of a URL (http, https, file); raises OSError.
Fetch = Callable[[str], bytes]


class BrokenDescriptor(SlapOSError):
    """The release's descriptor, or a schema that it names, cannot be used."""

    code = "broken_descriptor"


class Serialisation(StrEnum):
    """How parameters travel: one XML parameter each, or all as JSON in the parameter `_`."""

    XML = "xml"
    JSON_IN_XML = "json-in-xml"


@dataclass(frozen=True, kw_only=True)
class SoftwareType:
    """One entry of a descriptor. `name` is what it is listed as, `software_type` what is sent."""

    name: str
    software_type: str
    title: str = ""
    description: str = ""
    serialisation: Serialisation = Serialisation.XML
    request_schema: str | None = None
    response_schema: str | None = None
    shared: bool = False
    index: int = 0


@dataclass(frozen=True, kw_only=True)
class ReleaseDescriptor:
    """What a release says of itself; `url` is where its descriptor was read."""

    url: str
    name: str = ""
    description: str = ""
    types: tuple[SoftwareType, ...] = ()

    @classmethod
    def from_json(cls, url: str, data: Any) -> "ReleaseDescriptor":
        """Read a descriptor; raises BrokenDescriptor."""
        if not isinstance(data, dict) or not isinstance(data.get("software-type"), dict):
            raise BrokenDescriptor(f"{url} is no descriptor: it has no object 'software-type'")
        common = data.get("serialisation")
        try:
            types = [
                _software_type(url, name, entry, common)
                for name, entry in data["software-type"].items()
            ]
        except (AttributeError, TypeError, ValueError) as error:
            raise BrokenDescriptor(f"{url} is no descriptor: {error}") from error
        return cls(
            url=url,
            name=str(data.get("name", "")),
            description=str(data.get("description", "")),
            types=tuple(sorted(types, key=lambda one: (one.index, one.name))),
        )

    def find_type(self, wanted: str, *, shared: bool = False) -> SoftwareType:
        """Return the entry for a software type by its name, else by the type that it stands for.

        Raises NotFound with the types that there are.
        """
        candidates = [one for one in self.types if one.shared == shared]
        names = (wanted, OLD_DEFAULT_TYPE) if wanted == DEFAULT_TYPE else (wanted,)
        for name in names:
            for attribute in ("name", "software_type"):
                for one in candidates:
                    if getattr(one, attribute) == name:
                        return one
        known = ", ".join(one.name for one in candidates) or "none"
        kind = "software type for shared instances" if shared else "software type"
        raise NotFound(f"the release has no {kind} {wanted!r}; it has: {known}")


def _software_type(url: str, name: str, entry: dict[str, Any], common: Any) -> SoftwareType:
    def absolute(key: str) -> str | None:
        return urljoin(url, entry[key]) if entry.get(key) else None

    return SoftwareType(
        name=name,
        software_type=str(entry.get("software-type") or name),
        title=str(entry.get("title", "")),
        description=str(entry.get("description", "")),
        serialisation=Serialisation(entry.get("serialisation") or common or "xml"),
        request_schema=absolute("request"),
        response_schema=absolute("response"),
        shared=bool(entry.get("shared", False)),
        index=int(entry.get("index", 0)),
    )


def descriptor_url(release: str) -> str:
    """Return where a release's descriptor is: its path or URL with `.json` added."""
    if "://" not in release:
        return Path(f"{release}.json").absolute().as_uri()
    parts = urlsplit(release)
    return urlunsplit(parts._replace(path=f"{parts.path}.json"))


def read_descriptor(release: str, fetch: Fetch) -> ReleaseDescriptor:
    """Return the descriptor of a release; raises BrokenDescriptor, also when there is none."""
    url = descriptor_url(release)
    return ReleaseDescriptor.from_json(url, read_json(url, fetch))


def fetch_document(url: str) -> bytes:
    """Return the content of a URL; raises OSError."""
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path)).read_bytes()
    response = requests.get(url, timeout=FETCH_TIMEOUT, stream=True)
    with response:
        response.raise_for_status()
        content: bytes = response.raw.read(MAXIMUM_BYTES + 1, decode_content=True)
    if len(content) > MAXIMUM_BYTES:
        raise OSError(f"it has more than {MAXIMUM_BYTES} bytes")
    return content


def read_json(url: str, fetch: Fetch) -> Any:
    """Return what the JSON document at a URL says; raises BrokenDescriptor."""
    shown = unquote(url.removeprefix("file://"))
    try:
        return load_json(fetch(url))
    except OSError as error:
        reason = error.strerror or cause_of(error)
        raise BrokenDescriptor(f"{shown} cannot be read: {reason}") from error
    except ValueError as error:
        raise BrokenDescriptor(f"{shown} is not JSON: {error}") from error
