"""How an instance tree is doing: what `GET /v1/instance-trees/<title>` says."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.states import InstanceState


class Phase(StrEnum):
    """Where an instance stands on its way to what is wanted of it."""

    ALLOCATING = "allocating"
    """It has no partition yet."""
    BUILDING = "building"
    """Its software release is not built yet on its node."""
    INSTANTIATING = "instantiating"
    """Its node has not yet brought about what was asked last."""
    PROMISING = "promising"
    """It is instantiated, and a promise does not hold (yet)."""
    HEALTHY = "healthy"
    """It is as wanted: started with all promises kept, or stopped."""
    FAILED = "failed"
    """Its build or instantiation ended in an error; the node tries again."""
    DESTROYING = "destroying"
    """It is to go, and its node has not yet removed it."""


@dataclass(frozen=True, kw_only=True)
class InstanceStatus:
    """One instance of a tree. `reason` is a stable word, `message` a sentence for people.

    `since` is when it entered the phase, ISO 8601 in UTC.
    """

    guid: str
    title: str
    software_url: str
    software_type: str
    requested_state: InstanceState
    phase: Phase
    shared: bool = False
    parent: str | None = None
    node: str | None = None
    partition: str | None = None
    reason: str = ""
    message: str = ""
    since: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "InstanceStatus":
        """Read what came over the wire; unknown fields are ignored."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        try:
            known["requested_state"] = InstanceState(known["requested_state"])
            known["phase"] = Phase(known["phase"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedDocument(f"this is no instance status: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TreeStatus:
    """An instance tree: its root instance first, then the others by title."""

    title: str
    instances: tuple[InstanceStatus, ...]

    @property
    def root(self) -> InstanceStatus:
        """The instance that the customer asked for."""
        return self.instances[0]

    @property
    def healthy(self) -> bool:
        """Whether every instance of the tree is as wanted."""
        return all(instance.phase is Phase.HEALTHY for instance in self.instances)

    def to_json(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return {
            "title": self.title,
            "healthy": self.healthy,
            "instances": [asdict(instance) for instance in self.instances],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TreeStatus":
        """Read what came over the wire."""
        try:
            instances = tuple(InstanceStatus.from_json(item) for item in data["instances"])
            return cls(title=data["title"], instances=instances)
        except (KeyError, TypeError) as error:
            raise MalformedDocument(f"this is no status of an instance tree: {error}") from error
