"""What a master tells a node and a requester, as values: SLAP XML in and out (slap-master.md §1.2).

Attribute names on the wire begin with an underscore and never change.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.marshal import Marshalled
from slapos.protocol.states import InstallationState, InstanceState


@dataclass(frozen=True, kw_only=True)
class ReleaseAssignment:
    """A software release that a node has to build, or to remove."""

    url: str
    node: str
    state: InstallationState = InstallationState.AVAILABLE

    def to_marshalled(self) -> Marshalled:
        """Return the SoftwareRelease object of the wire."""
        state: dict[str, Any] = {
            "_software_release": self.url,
            "_computer_guid": self.node,
            "_software_instance_list": [],
            "_requested_state": str(self.state),
        }
        return Marshalled("SoftwareRelease", (self.url, self.node), state)

    @classmethod
    def from_marshalled(cls, value: Any) -> "ReleaseAssignment":
        """Read the SoftwareRelease object of the wire."""
        state = _state_of(value, "SoftwareRelease")
        return cls(
            url=str(state.get("_software_release", "")),
            node=str(state.get("_computer_guid", "")),
            state=_installation_state(state.get("_requested_state") or "available"),
        )


@dataclass(frozen=True, kw_only=True)
class PartitionInformation:
    """A partition as the master wants it; without `software_url` it is free.

    `parameters` is the wire's `_parameter_dict`: the instance's own parameters and those that the
    master adds (`slap_software_type`, `ip_list`, `timestamp`, `slave_instance_list`, …).
    """

    node: str
    reference: str
    state: InstanceState = InstanceState.DESTROYED
    software_url: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)
    filter: dict[str, Any] | None = None
    instance_guid: str | None = None
    access_status: str | None = None
    need_modification: bool = False

    @property
    def timestamp(self) -> str | None:
        """When something last changed that the node must act on, as text to compare."""
        value = self.parameters.get("timestamp")
        return None if value is None else str(value)

    @property
    def software_type(self) -> str | None:
        """The instance's software type."""
        value = self.parameters.get("slap_software_type")
        return None if value is None else str(value)

    @property
    def title(self) -> str | None:
        """The instance's title."""
        value = self.parameters.get("instance_title")
        return None if value is None else str(value)

    @property
    def identity(self) -> dict[str, str]:
        """What instance it is, in the words in which it says so when it asks for something.

        Masters of ours refuse what comes from a partition that another instance is in by now; in
        the local profile, references alone do not tell instances of one partition apart.
        """
        known = {
            "requester_reference": self.instance_guid,
            "requester_title": self.title,
            "requester_root_title": self.parameters.get("root_instance_title"),
        }
        return {name: str(value) for name, value in known.items() if value}

    @property
    def is_free(self) -> bool:
        """Whether nothing is, or has to be, in it."""
        return self.state is InstanceState.DESTROYED and not self.software_url

    def to_marshalled(self) -> Marshalled:
        """Return the ComputerPartition object of the wire."""
        release = None
        if self.software_url:
            release = ReleaseAssignment(url=self.software_url, node=self.node).to_marshalled()
        state: dict[str, Any] = {
            "_computer_id": self.node,
            "_partition_id": self.reference,
            "_request_dict": None,
            "_need_modification": int(self.need_modification),
            "_requested_state": str(self.state),
            "_software_release_document": release,
        }
        if self.instance_guid is not None:
            state["_parameter_dict"] = self.parameters
            state["_connection_dict"] = self.connection
            state["_instance_guid"] = self.instance_guid
            state["_access_status"] = self.access_status
            if self.filter is not None:
                state["_filter_dict"] = self.filter
        return Marshalled("ComputerPartition", (self.node, self.reference, None), state)

    @classmethod
    def from_marshalled(cls, value: Any) -> "PartitionInformation":
        """Read the ComputerPartition object of the wire."""
        state = _state_of(value, "ComputerPartition")
        release = state.get("_software_release_document")
        return cls(
            node=str(state.get("_computer_id", "")),
            reference=str(state.get("_partition_id", "")),
            state=_instance_state(state.get("_requested_state") or "destroyed"),
            software_url=ReleaseAssignment.from_marshalled(release).url if release else None,
            parameters=_dictionary(state.get("_parameter_dict")),
            connection=_dictionary(state.get("_connection_dict")),
            filter=state.get("_filter_dict"),
            instance_guid=state.get("_instance_guid"),
            access_status=state.get("_access_status"),
            need_modification=bool(state.get("_need_modification")),
        )


@dataclass(frozen=True, kw_only=True)
class NodeInformation:
    """All that a node has to know: the releases to build and its partitions."""

    reference: str
    releases: tuple[ReleaseAssignment, ...] = ()
    partitions: tuple[PartitionInformation, ...] = ()

    def sharing(self, before: "NodeInformation") -> "NodeInformation":
        """Return the same, with partitions of `before` for equal ones: in memory once."""
        known = {partition.reference: partition for partition in before.partitions}
        shared = []
        for partition in self.partitions:
            kept = known.get(partition.reference)
            shared.append(kept if kept is not None and kept == partition else partition)
        return replace(self, partitions=tuple(shared))

    def to_marshalled(self) -> Marshalled:
        """Return the Computer object of the wire."""
        state = {
            "_computer_id": self.reference,
            "_computer_partition_list": [p.to_marshalled() for p in self.partitions],
            "_software_release_list": [r.to_marshalled() for r in self.releases],
        }
        return Marshalled("Computer", (self.reference,), state)

    @classmethod
    def from_marshalled(cls, value: Any) -> "NodeInformation":
        """Read the Computer object of the wire."""
        state = _state_of(value, "Computer")
        return cls(
            reference=str(state.get("_computer_id", "")),
            releases=tuple(
                ReleaseAssignment.from_marshalled(item)
                for item in state.get("_software_release_list") or ()
            ),
            partitions=tuple(
                PartitionInformation.from_marshalled(item)
                for item in state.get("_computer_partition_list") or ()
            ),
        )


@dataclass(frozen=True, kw_only=True)
class RequestedInstance:
    """What a requester sees of the instance it asked for."""

    guid: str
    state: InstanceState
    connection: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    node: str | None = None
    partition: str | None = None
    #: Everything the master said, by its name on the wire.
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_marshalled(cls, value: Any) -> "RequestedInstance":
        """Read the SoftwareInstance object of the wire."""
        state = _state_of(value, "SoftwareInstance")
        return cls(
            guid=str(state.get("_instance_guid", "")),
            state=_instance_state(state.get("_requested_state") or "started"),
            connection=_dictionary(state.get("_connection_dict")),
            parameters=_dictionary(state.get("_parameter_dict")),
            node=state.get("slap_computer_id"),
            partition=state.get("slap_computer_partition_id"),
            attributes=state,
        )


def _state_of(value: Any, class_name: str) -> dict[str, Any]:
    if not isinstance(value, Marshalled) or value.class_name != class_name:
        raise MalformedDocument(f"a {class_name} was expected, the master sent something else")
    return value.state


def _dictionary(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedDocument("the master sent parameters that are no dictionary")
    return value


def _instance_state(value: Any) -> InstanceState:
    try:
        return InstanceState(value)
    except ValueError as error:
        raise MalformedDocument(f"{value!r} is no state of an instance") from error


def _installation_state(value: Any) -> InstallationState:
    try:
        return InstallationState(value)
    except ValueError as error:
        raise MalformedDocument(f"{value!r} is no state of a software release") from error
