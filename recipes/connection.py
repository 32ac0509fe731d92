"""How a recipe speaks with the master: as seldom as possible, over one connection for all of a run.

What the master said of the partition when it gave the order, the node hands over in a file; a
buildout that is run by hand asks. Only this partition publishes for its instance, so what the
master has is certain where the node was told just what was published here last.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slapos.protocol.errors import InvalidConfiguration, MalformedDocument
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.marshal import loads
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.system.files import write_if_changed
from slapos.system.settings import environment

#: The variable in which the node names the file (node/instantiate/hand_over.py).
INFORMATION = "SLAPOS_PARTITION_INFORMATION"
#: Where the digest of what was published last is kept, beside buildout.cfg.
PUBLISHED = ".slapos-published"

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
    """The master, and which partition of which node this is, working in which folder.

    `handed` is what the node knows of the partition, None where it has said nothing.
    """

    client: SlapClient
    node: str
    partition: str
    folder: Path
    handed: PartitionInformation | None = None

    @property
    def requester(self) -> tuple[str, str]:
        """Who asks."""
        return self.node, self.partition

    @property
    def identity(self) -> dict[str, str]:
        """Which instance asks, as far as the node has said."""
        return self.handed.identity if self.handed is not None else {}

    def information(self) -> PartitionInformation:
        """Return what is to be done here, as of the order that is being applied, or of now."""
        return self.handed or self.client.partition_information(*self.requester)

    def published(self) -> dict[str, Any]:
        """Return the connection values that the master has now."""
        if self.handed is not None and self._is_last(self.handed.connection):
            return self.handed.connection
        return self.client.partition_information(*self.requester).connection

    def publish(self, values: dict[str, str]) -> None:
        """Publish, unless the master has certainly just these values."""
        told = None if self.handed is None else _digest(self.handed.connection)
        if told == _digest(values) and self._is_last(values):
            return
        record = self.folder / PUBLISHED
        # First this: when we are cut short, it is not known what the master has.
        record.unlink(missing_ok=True)
        self.client.publish(*self.requester, values, identity=self.identity)
        write_if_changed(record, _digest(values), mode=0o600)

    def _is_last(self, values: Mapping[str, Any]) -> bool:
        """Whether these are what was published here last."""
        try:
            return (self.folder / PUBLISHED).read_text() == _digest(values)
        except (OSError, UnicodeError):
            return False


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
    node, partition = given["computer-id"], given["partition-id"]
    # Another master, or partition, is not what the node speaks of.
    is_own = given["server-url"] == _common(buildout, "server-url")
    handed = _handed(node, partition) if is_own else None
    folder = Path(buildout["buildout"]["directory"])
    return Connection(_client(settings), node, partition, folder, handed)


def _handed(node: str, partition: str) -> PartitionInformation | None:
    """Return what the node handed over, None where that is nothing, or of another partition."""
    path = environment().get(INFORMATION)
    if not path:
        return None
    try:
        information = _read_information(path)
    except (OSError, MalformedDocument):
        return None
    is_ours = (information.node, information.reference) == (node, partition)
    return information if is_ours else None


@cache
def _read_information(path: str) -> PartitionInformation:
    return PartitionInformation.from_marshalled(loads(Path(path).read_bytes()))


def _digest(values: Mapping[str, Any]) -> str:
    """Return what tells connection values from others; the wire has no empty ones, but nothing."""
    plain_values = {str(name): str(value or "") for name, value in values.items()}
    return hashlib.sha256(json.dumps(plain_values, sort_keys=True).encode()).hexdigest()


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
