"""What is asked and answered about services and instances."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy.orm import Session

from slapos.master import rest
from slapos.master.identity.caller import caller_of
from slapos.master.identity.rights import Action, may
from slapos.master.nodes.shapes import LEFT_OUT
from slapos.master.provisioning.model import TITLE_LENGTH, InstanceTree, SoftwareInstance
from slapos.master.provisioning.status import instance_statuses
from slapos.master.text import URL_LENGTH
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus

Title = Annotated[str, Field(min_length=1, max_length=TITLE_LENGTH)]


class InstanceShown(rest.Answer):
    """How an instance is doing; `reason` is for programs, `message` for people."""

    guid: str
    title: str
    software_url: str
    software_type: str
    requested_state: InstanceState
    phase: Phase
    shared: bool
    parent: str | None
    node: str | None
    partition: str | None
    reason: str
    message: str
    since: str | None
    parameters: dict[str, Any]
    connection: dict[str, Any]


class OneInstanceShown(InstanceShown):
    """An instance, and what it belongs to."""

    tree: str | None
    filters: dict[str, Any]


class InstancesShown(rest.Paged):
    """Instances, the oldest first."""

    instances: list[OneInstanceShown]


class TreeShown(rest.Answer):
    """How a service is doing: its root instance first, then the others by title.

    `reference`, `project` and `owner` are null in the local profile.
    """

    reference: str | None
    title: str
    project: str | None
    owner: str | None
    healthy: bool
    instances: list[InstanceShown]


class TreesShown(rest.Paged):
    """How services are doing, the oldest first."""

    instance_trees: list[TreeShown]


class TreesQuery(rest.PagedQuery):
    """Which services are looked for."""

    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None
    owner: Annotated[str | None, Field(description="Such as P-1.")] = None
    title: Annotated[str | None, Field(description="The whole title.")] = None


class InstancesQuery(rest.PagedQuery):
    """Which instances are looked for."""

    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None
    tree: Annotated[str | None, Field(description="Such as HOSTSUBS-1.")] = None
    node: Annotated[str | None, Field(description="Such as COMP-1.")] = None
    state: InstanceState | None = None
    waits: Annotated[bool | None, Field(description="Whether it waits for a place.")] = None


class NewTree(rest.Body):
    """A service that is ordered."""

    project: Title
    title: Title
    software_url: Annotated[str, Field(min_length=1, max_length=URL_LENGTH)]
    software_type: Title = "default"
    parameters: dict[str, Any] = Field(default_factory=dict)
    filters: dict[str, Any] = Field(default_factory=dict)
    state: Annotated[InstanceState, Field(strict=False)] = InstanceState.STARTED
    shared: bool = False


class InstanceChanged(rest.Body):
    """What is to be changed of an instance, or of a service's root; what is left out stays."""

    title: Title = LEFT_OUT
    parameters: dict[str, Any] = LEFT_OUT
    filters: dict[str, Any] = LEFT_OUT
    state: Annotated[InstanceState, Field(strict=False)] = LEFT_OUT


def show_tree(session: Session, tree: InstanceTree, status: TreeStatus) -> dict[str, Any]:
    """Return what the caller is told of a service."""
    is_full = tree.reference is not None
    told = status.to_json()
    if not may(caller_of(session), Action.SEE_VALUES, tree.subject()):
        for each in told["instances"]:
            each.update(parameters={}, connection={})
    return {
        **told,
        "reference": tree.reference,
        "project": tree.project.reference if is_full else None,
        "owner": tree.owner.reference if is_full else None,
    }


def show_instance(session: Session, instance: SoftwareInstance) -> dict[str, Any]:
    """Return what the caller is told of an instance."""
    (shown,) = show_all(session, [instance])
    return shown


def show_all(session: Session, instances: Sequence[SoftwareInstance]) -> Sequence[dict[str, Any]]:
    """Return what the caller is told of instances."""
    statuses = instance_statuses(session, instances)
    found = zip(instances, statuses, strict=True)
    return [_show_instance(session, instance, status) for instance, status in found]


def _show_instance(
    session: Session, instance: SoftwareInstance, status: InstanceStatus
) -> dict[str, Any]:
    sees = may(caller_of(session), Action.SEE_VALUES, instance.subject())
    return {
        **vars(status),
        "parameters": status.parameters if sees else {},
        "connection": status.connection if sees else {},
        "filters": instance.filters,
        "tree": instance.tree.reference,
    }
