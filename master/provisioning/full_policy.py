"""The policy of the full profile: what may be placed where is said by the catalogue."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.catalog.model import SupplyNode
from slapos.master.identity.model import Project
from slapos.master.numbering import next_number
from slapos.master.provisioning import hosting, lookup, placement, waiting
from slapos.master.provisioning.diagnosis import why_no_partition
from slapos.master.provisioning.filters import Filters, filters_of
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.master.provisioning.offers import Offer, offers_for, offers_in_turn
from slapos.master.provisioning.waiting import Refusal, Why
from slapos.protocol.errors import Conflict
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

LOCK_TREE = select(InstanceTree.id).where(InstanceTree.id == bindparam("id")).with_for_update()
SUPPLIES_NODE = select(SupplyNode.supply_id).where(
    SupplyNode.node_id == bindparam("node_id"),
    SupplyNode.supply_id.in_(bindparam("supplies", expanding=True)),
)
#: What a request may not change of a root: it is for an upgrade decision.
FIXED = {"software_url": "release", "software_type": "type"}


@dataclass(frozen=True)
class FullPolicy:
    """Many customers, on nodes of their projects."""

    identifiers: Identifiers
    supplies_on_request: bool = False
    a_title_has_one_tree: bool = True

    def place(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Take a partition or a host at once, or leave the instance waiting with the reason.

        Those that wait for the same and came before have their turn first.
        """
        key = waiting.key_of(instance)
        instance.stop_waiting()
        refusal = self._place(session, clock, instance, key)
        if refusal is not None:
            instance.wait(refusal.code, refusal.reason, key)

    def _place(
        self, session: Session, clock: Clock, instance: SoftwareInstance, key: str
    ) -> Refusal | None:
        filters = filters_of(instance)
        if isinstance(filters, Refusal):
            return filters
        offers = offers_in_turn(session, instance, key)
        if isinstance(offers, Refusal):
            return offers
        if offers.is_behind and not any(offer.is_private for offer in offers.found):
            before = waiting.first_in_turn(session, key, instance.id)
            if before is not None:
                return before
        return self.place_by(session, clock, instance, filters, offers.found)

    def place_by(
        self,
        session: Session,
        clock: Clock,
        instance: SoftwareInstance,
        filters: Filters,
        offers: Sequence[Offer],
    ) -> Refusal | None:
        """Place an instance by one of the supplies; return why not when none can."""
        if filters.project is not None:
            refusal = _check_project(session, instance, filters.project)
            if refusal is not None:
                return refusal
        if filters.unique_by_network and instance.tree.id is not None:
            # Others of the tree are placed one after another, so that each sees the others.
            session.execute(LOCK_TREE, {"id": instance.tree.id})
        if instance.shared:
            return self._share(session, instance, filters, offers)
        taken = placement.take_partition(session, self.identifiers, instance, filters, offers)
        if taken is None:
            return why_no_partition(session, instance, filters, offers)
        instance.weight = taken.offer.weight
        instance.put_in(taken.node_id, taken.partition_id)
        if instance.id is not None:
            for shared in lookup.shared_on(session, instance):
                shared.node = instance.node
        if taken.offer.shared_in_same_tree and instance.tree.id:  # somebody may wait for this host
            waiting.project_has_changed(session, instance.tree.project_id)
        if instance.id is not None:  # what is new is written first
            self.supply(session, clock, instance)
        return None

    def supply(self, session: Session, clock: Clock, instance: SoftwareInstance) -> None:
        """Have the release installed by need; a remote node has no use for it."""
        if instance.node_id is not None and not instance.is_elsewhere:
            catalog.need(session, clock, instance.node_id, instance.software_url)

    def _share(
        self,
        session: Session,
        instance: SoftwareInstance,
        filters: Filters,
        offers: Sequence[Offer],
    ) -> Refusal | None:
        found = hosting.find_host(session, self.identifiers, instance, filters, offers)
        if isinstance(found, Refusal):
            far = hosting.find_remote_node(session, instance, filters, offers)
            if far is None:
                return found
            instance.node, instance.weight = far[0], far[1].weight
            return None
        host, offer = found
        instance.host, instance.node, instance.weight = host, host.node, offer.weight
        return None

    def check_change(
        self, session: Session, clock: Clock, instance: SoftwareInstance, changed: Collection[str]
    ) -> None:
        """Refuse another release or type for a root; for others, have it where they are.

        What a child becomes has to be allowed on its node as for a new one.
        """
        for name, what in FIXED.items():
            if instance.is_root and name in changed:
                raise Conflict(
                    f"the {what} of the service {instance.title!r} cannot be changed by a request; "
                    "request it under another title, or have a production manager upgrade it"
                )
        if not changed & FIXED.keys() or instance.node_id is None or instance.shared:
            return
        offers = offers_for(session, instance)
        if isinstance(offers, Refusal):
            raise Conflict(f"{instance.title!r} cannot become that: {offers.reason}")
        sought = {
            "node_id": instance.node_id,
            "supplies": [offer.supply_id for offer in offers],
        }
        allowing = set(session.scalars(SUPPLIES_NODE, sought))
        found = [offer for offer in offers if offer.supply_id in allowing]
        if not found:
            raise Conflict(
                f"{instance.title!r} cannot become that where it is: no supply allows the type "
                f"{instance.software_type!r} of {instance.software_url} on its node; a production "
                "manager of the project can add the node to one that does"
            )
        instance.weight = found[0].weight
        if any(offer.installs_by_need for offer in found) and not instance.is_elsewhere:
            catalog.need(session, clock, instance.node_id, instance.software_url)

    def may_stay(self, instance: SoftwareInstance, host: SoftwareInstance) -> bool:
        """Return whether the host is still of the release and type that are asked for."""
        guid = instance.filters.get("instance_guid")
        return (
            host.software_url == instance.software_url
            and host.software_type == instance.software_type
            and not host.is_to_go
            and (not guid or host.reference == guid)
        )

    def reference_of(self, session: Session, instance: SoftwareInstance) -> str:
        """Return SOFTINST-n."""
        return f"SOFTINST-{next_number(session)}"

    def tree_reference(self, session: Session) -> str | None:
        """Return HOSTSUBS-n."""
        return f"HOSTSUBS-{next_number(session)}"


def _check_project(session: Session, instance: SoftwareInstance, reference: str) -> Refusal | None:
    project = session.get_one(Project, instance.tree.project_id)
    if project.reference == reference:
        return None
    return Refusal(
        Why.NO_NODE_MATCHES,
        f"the filter project_guid is {reference!r}, but it was ordered in {project.reference}; "
        "request it again without the filter, or under another title in that project",
    )
