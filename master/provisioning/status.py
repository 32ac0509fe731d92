"""How instances are doing, worked out from what was requested and what the node said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.protocol.prerequisite import WAITING, read_waiting_sentence
from slapos.protocol.states import BuildState, InstallationState, InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus

#: How a node begins when a promise does not hold.
PROMISE = "Promise '"
#: How much of an error a node is told: the end of it.
ACCESS_LENGTH = 80

_Found = tuple[Phase, str, str, datetime | None]
#: What nodes said of releases, by the nodes' ids and the URLs.
_Builds = Mapping[tuple[int, str], SoftwareInstallation]


def tree_status(session: Session, tree: InstanceTree) -> TreeStatus:
    """Return how a tree is doing."""
    instances = lookup.instances_of(session, tree)
    return TreeStatus(title=tree.title, instances=tuple(instance_statuses(session, instances)))


def tree_statuses(session: Session, tree_ids: Collection[int]) -> dict[int, TreeStatus]:
    """Return how trees are doing by their ids, the oldest first."""
    instances = lookup.instances_by_tree(session, tree_ids)
    found = zip(instances, instance_statuses(session, instances), strict=True)
    by_tree = groupby(found, lambda pair: pair[0].tree)
    return {
        tree.id: TreeStatus(title=tree.title, instances=tuple(status for _, status in pairs))
        for tree, pairs in by_tree
    }


def instance_status(session: Session, instance: SoftwareInstance) -> InstanceStatus:
    """Return how an instance is doing."""
    (found,) = instance_statuses(session, [instance])
    return found


def instance_statuses(
    session: Session, instances: Sequence[SoftwareInstance]
) -> Iterator[InstanceStatus]:
    """Give how instances are doing, each in its turn."""
    places = [instance.host or instance for instance in instances]
    wanted = {(each.node_id, each.software_url) for each in places if each.node_id is not None}
    builds = catalog.find_many(session, wanted)
    return (_status_of(instance, builds) for instance in instances)


def _status_of(instance: SoftwareInstance, builds: _Builds) -> InstanceStatus:
    phase, reason, message, since = _phase(instance, builds)
    place = instance.host or instance
    return InstanceStatus(
        guid=instance.reference,
        title=instance.title,
        software_url=instance.software_url,
        software_type=instance.software_type,
        requested_state=InstanceState(instance.requested_state),
        phase=phase,
        shared=instance.shared,
        parent=instance.requester.reference if instance.requester is not None else None,
        node=place.node.reference if place.node is not None else None,
        partition=instance.place_name,
        reason=reason,
        message=message,
        since=None if since is None else since.isoformat(),
        parameters=instance.parameters,
        connection=instance.connection,
    )


def _phase(instance: SoftwareInstance, builds: _Builds) -> _Found:
    place = instance.host or instance
    if instance.place_name is None and instance.waiting_code:
        code, reason = instance.waiting_code, instance.waiting_reason
        return Phase.ALLOCATING, code, reason, instance.changed_at
    if instance.place_name is None:
        return (
            Phase.ALLOCATING,
            "no_host",
            "the instance that hosted it is gone; request it again to have another one found",
            instance.changed_at,
        )
    if instance.requested_state == InstanceState.DESTROYED:
        until = kept_until(instance)
        if until is not None:
            return (
                Phase.DESTROYING,
                "kept",
                f"it is stopped, and by its filter retention_delay {_where(place)} keeps its data "
                f"until {until:%Y-%m-%d %H:%M} UTC, and removes it then",
                instance.changed_at,
            )
        return (
            Phase.DESTROYING,
            "not_removed",
            f"waiting for {_where(place)} to remove it",
            instance.changed_at,
        )
    return _placed(instance, place, builds)


def kept_until(instance: SoftwareInstance) -> datetime | None:
    """Return until when, by its order, the data of an instance is kept that is to be destroyed.

    None where it is not. The node goes by what the order said first, and counts from when it heard
    of the destruction.
    """
    try:
        kept_for = timedelta(days=float(instance.filters.get("retention_delay") or 0))
        return instance.changed_at + kept_for if kept_for > timedelta(0) else None
    except (TypeError, ValueError, OverflowError):  # the node refuses it, and says so
        return None


def _placed(instance: SoftwareInstance, place: SoftwareInstance, builds: _Builds) -> _Found:
    """Return how one does that has a place, itself or that of its host, and is to keep it."""
    failing = instance if instance.error else place
    error = failing.error
    if place.is_settled and error:
        return *_meaning(error), error, failing.reported_since or failing.reported_at
    if place.is_elsewhere:
        return _elsewhere(place)
    unbuilt = _unbuilt(place, builds)
    # It goes on with a release that is not wanted any more, but not with one that is built anew.
    is_usable = unbuilt is None or unbuilt[1] == "not_supplied"
    if is_usable and place.is_settled and place.reported_state == place.requested_state:
        return Phase.HEALTHY, "", "", place.reported_since or place.reported_at
    if unbuilt is not None:
        return unbuilt
    if error:
        said = error if read_waiting_sentence(error) else f"the last pass failed: {error}"
        return Phase.INSTANTIATING, "retrying", said, place.changed_at
    waiting = f"waiting for {_where(place)} to begin with it"
    return Phase.INSTANTIATING, "not_processed", waiting, place.changed_at


def _elsewhere(instance: SoftwareInstance) -> _Found:
    """Return how one does whose remote node has said nothing of what is wanted now, or all well."""
    assert instance.node is not None
    if instance.is_settled and instance.reported_state == instance.requested_state:
        return Phase.HEALTHY, "", "", instance.reported_since or instance.reported_at
    remote = instance.node.remote
    if remote is not None and remote.error:
        return Phase.FAILED, "master_unreachable", remote.error, remote.failing_since
    waiting = f"waiting for {instance.node.reference} to have it as wanted"
    return Phase.INSTANTIATING, "not_processed", waiting, instance.changed_at


def _meaning(error: str) -> tuple[Phase, str]:
    """Return the phase of an instance whose last processing ended with an error, and the reason."""
    if error.startswith(PROMISE):
        return Phase.PROMISING, "promise_failed"
    if read_waiting_sentence(error):
        return Phase.INSTANTIATING, WAITING
    return Phase.FAILED, "instance_failed"


def _unbuilt(instance: SoftwareInstance, builds: _Builds) -> _Found | None:
    """Return why the release of a placed instance is not there yet, None when it is."""
    assert instance.node is not None
    url, node = instance.software_url, instance.node.reference
    installation = builds.get((instance.node.id, url))
    if installation is None or installation.requested_state != InstallationState.AVAILABLE:
        message = f"the release is not wanted on the node: run `slapos supply {url} {node}`"
        return Phase.BUILDING, "not_supplied", message, instance.changed_at
    since = installation.reported_at or installation.created_at
    if installation.reported_state == BuildState.ERROR:
        return Phase.FAILED, "build_failed", installation.message, since
    if installation.reported_state == BuildState.BUILDING:
        return Phase.BUILDING, "building", f"{node} is building {url}", since
    if installation.reported_state == BuildState.AVAILABLE:
        return None
    return Phase.BUILDING, "not_built", f"waiting for {node} to begin the build", since


def access_status(instance: SoftwareInstance) -> str:
    """Return the text that a node compares its promises with: "#error …" or "#access …"."""
    remote = instance.node.remote if instance.node and instance.is_elsewhere else None
    if remote is not None and remote.error and not instance.is_settled:
        return f"#error {remote.error[-ACCESS_LENGTH:]}"
    if instance.error:
        return f"#error {instance.error[-ACCESS_LENGTH:]}"
    if instance.reported_state is None:
        return f"#error no data found for {instance.reference}"
    return f"#access Instance correctly {instance.reported_state}"


def build_status(installation: SoftwareInstallation) -> str:
    """Return the same for a release on a node: "#building …", "#error …" or "#access …"."""
    match installation.reported_state:
        case BuildState.BUILDING:
            return f"#building software release {installation.url}"
        case BuildState.AVAILABLE:
            return f"#access software release {installation.url} available"
        case BuildState.ERROR:
            return f"#error while installing {installation.url}"
        case _:
            return f"#error no data found for {installation.url}"


def _where(instance: SoftwareInstance) -> str:
    node = instance.node.reference if instance.node else "?"
    return f"{node} (partition {instance.partition.reference if instance.partition else '?'})"
