"""How a recipe speaks with the master: one HTTP connection for all recipes of a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slapos.protocol.errors import InvalidConfiguration
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient

#: What an option is called in [slap-connection] → what else it may be called.
NAMES = {
    "server-url": "url",
    "computer-id": "computer",
    "partition-id": "partition",
    "key-file": "key",
    "cert-file": "cert",
    "ca-file": "master-ca-file",
}


@dataclass(frozen=True)
class Connection:
    """The master, and which partition of which node this is."""

    client: SlapClient
    node: str
    partition: str

    @property
    def requester(self) -> tuple[str, str]:
        """Who asks."""
        return self.node, self.partition


def connect(buildout: Any, options: Mapping[str, Any]) -> Connection:
    """Return the connection that a section describes; [slap-connection] has what it leaves out."""
    given = {
        name: options.get(name) or options.get(other) or _common(buildout, name)
        for name, other in NAMES.items()
    }
    for name in ("server-url", "computer-id", "partition-id"):
        if not given[name]:
            raise InvalidConfiguration(
                f"the option {name} is missing: here, and in [slap-connection]"
            )
    paths = (Path(given[name]) if given[name] else None for name in [*NAMES][3:])
    key, certificate, authority = paths
    settings = HttpSettings(
        base_url=given["server-url"],
        key_file=key,
        certificate_file=certificate,
        authority_file=authority,
    )
    return Connection(_client(settings), given["computer-id"], given["partition-id"])


@cache
def _client(settings: HttpSettings) -> SlapClient:
    return SlapClient(HttpClient(settings))


def _common(buildout: Any, name: str) -> Any:
    section = buildout.get("slap-connection")
    return section.get(name) if section is not None else None


def as_parameter(value: Any) -> str:
    """Return a value as one XML parameter: text as it is, all else as JSON."""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Any) -> str:
    """Return a value as JSON, the same for equal values."""
    return json.dumps(plain(value), sort_keys=True)


def plain(value: Any) -> Any:
    """Return a value with lists in place of tuples and (in order) of sets, as JSON has them."""
    match value:
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case set():
            return sorted((plain(item) for item in value), key=repr)
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value
