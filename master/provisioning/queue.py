"""Looking again at those that wait for a place: the oldest first, each project in its turn.

Those that wait for the same are a group: when its first is refused, so are the others. A search
that found nothing for one group is not done again for another that may have the same nodes.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from slapos.master.catalog.model import (
    AllocationSupply,
    SoftwareRelease,
    SoftwareType,
    SupplyCell,
    SupplyNode,
)
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lifecycle, waiting
from slapos.master.provisioning.filters import Filters, filters_of
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.master.provisioning.offers import Offer, offers_for
from slapos.master.provisioning.waiting import Refusal
from slapos.system.clock import Clock

#: How many are placed, and how many groups are looked at, for one key in one transaction.
PLACED = 50
LOOKED_AT = 200
#: How many owners of a group are looked at when supplies are for some of them only.
OWNERS = 50
#: How many of a group are told another reason at once.
TOLD = 1000

_KEY = SoftwareInstance.waiting_key
_WAITS = _KEY != ""  # said in each statement: the index has only those that wait
FIRST = func.min(SoftwareInstance.id)
GROUPS = (
    select(_KEY, FIRST.label("first"))
    .where(_WAITS, bindparam("after") < _KEY, bindparam("until") > _KEY)
    .group_by(_KEY)
)
SOME_GROUPS = (
    select(_KEY, FIRST.label("first"))
    .where(_WAITS, bindparam("after") < _KEY)
    .group_by(_KEY)
    .order_by(_KEY)
    .limit(LOOKED_AT)
)
NEXT = (
    select(SoftwareInstance)
    .where(_WAITS, bindparam("key") == _KEY, SoftwareInstance.id >= bindparam("first"))
    .order_by(SoftwareInstance.id)
    .limit(1)
    .with_for_update(skip_locked=True, of=SoftwareInstance)
    .execution_options(populate_existing=True)
)
NEXT_OF_ANOTHER = NEXT.join(InstanceTree, InstanceTree.id == SoftwareInstance.tree_id).where(
    InstanceTree.owner_id.not_in(bindparam("owners", expanding=True))
)
OTHERS = (
    select(SoftwareInstance.id)
    .where(_WAITS, bindparam("key") == _KEY, SoftwareInstance.id > bindparam("behind"))
    .order_by(SoftwareInstance.id)
    .limit(TOLD)
    .with_for_update(skip_locked=True)
)
ALLOWED_ON_NODE = (
    select(SoftwareRelease.url, SoftwareType.name)
    .join(SupplyCell, SupplyCell.release_id == SoftwareRelease.id)
    .join(SoftwareType, SoftwareType.id == SupplyCell.type_id)
    .join(SupplyNode, SupplyNode.supply_id == SupplyCell.supply_id)
    .where(SupplyNode.node_id == bindparam("node_id"))
)
WHAT = select(
    SoftwareInstance.id, SoftwareInstance.software_url, SoftwareInstance.software_type
).where(SoftwareInstance.id.in_(bindparam("ids", expanding=True)))
FIRST_OF = select(func.min(SoftwareInstance.id)).where(_WAITS, bindparam("key") == _KEY)
HAS_PRIVATE = (
    select(AllocationSupply.id)
    .join(SupplyCell, SupplyCell.supply_id == AllocationSupply.id)
    .join(SoftwareRelease, SoftwareRelease.id == SupplyCell.release_id)
    .where(
        SoftwareRelease.url == bindparam("url"),
        AllocationSupply.project_id == bindparam("project_id"),
        AllocationSupply.customer_id.is_not(None),
    )
    .limit(1)
)
PROJECT_OF_NODE = select(ComputeNode.project_id).where(ComputeNode.id == bindparam("id"))

_Searched = tuple[tuple[Offer, ...], Filters, str]


@dataclass
class Look:
    """One look at the waiting, in one transaction."""

    session: Session
    clock: Clock
    policy: FullPolicy
    placed: int = 0
    looked_at: int = 0
    _refused: dict[_Searched, Refusal] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        """Whether it has taken so long that the transaction had better end."""
        return self.placed >= 2 * PLACED or self.looked_at >= 2 * LOOKED_AT

    def at_groups(self, groups: Mapping[str, int]) -> int | None:
        """Place who can be, the oldest first; return the first that there was no time for.

        `groups` are keys of those that wait, and the id of the first of each.
        """
        heads = [(first, key) for key, first in groups.items()]
        heapq.heapify(heads)
        placed, looked_at = self.placed + PLACED, self.looked_at + LOOKED_AT
        while heads and self.placed < placed and self.looked_at < looked_at:
            first, key = heapq.heappop(heads)
            following = self._at_first(key, first)
            if following is not None:
                heapq.heappush(heads, (following, key))
        return heads[0][0] if heads else None

    def _at_first(self, key: str, first: int) -> int | None:
        """Look at the first of a group; return where to go on with it, if that makes sense."""
        instance = self.session.scalar(NEXT, {"key": key, "first": first})
        if instance is None:
            return None
        self.looked_at += 1
        refusal = self._try(instance)
        if refusal is None:
            return instance.id + 1
        self._tell(instance, refusal)
        self._at_other_owners(instance, key)
        return None

    def _at_other_owners(self, instance: SoftwareInstance, key: str) -> None:
        """Look at those of others in a group, where a supply may be for them alone."""
        sought = {"url": instance.software_url, "project_id": instance.tree.project_id}
        if self.session.execute(HAS_PRIVATE, sought).first() is None:
            return
        owners, first = [instance.tree.owner_id], instance.id + 1
        for _ in range(OWNERS):
            found = self.session.scalar(
                NEXT_OF_ANOTHER, {"key": key, "first": first, "owners": owners}
            )
            if found is None:
                return
            if self._try(found) is not None:
                owners.append(found.tree.owner_id)
            first = found.id + 1

    def _try(self, instance: SoftwareInstance) -> Refusal | None:
        filters = filters_of(instance)
        if isinstance(filters, Refusal):
            return filters
        offers = offers_for(self.session, instance)
        if isinstance(offers, Refusal):
            return offers
        searched = (tuple(offers), filters, _what_matters(instance, filters, offers))
        if searched in self._refused:
            return self._refused[searched]
        refusal = self.policy.place_by(self.session, self.clock, instance, filters, offers)
        if refusal is not None:
            self._refused[searched] = refusal
            return refusal
        instance.stop_waiting()
        lifecycle.mark_changed(instance, self.clock.now())
        if instance.requester is not None:  # it asks again, and is told where it is
            instance.requester.mark_changed(self.clock.now())
        self.session.flush()
        self.placed += 1
        return None

    def _tell(self, instance: SoftwareInstance, refusal: Refusal) -> None:
        """Have those of a group say the reason as it is now."""
        told = (instance.waiting_code, instance.waiting_reason)
        if told == (refusal.code, refusal.reason):
            return
        instance.wait(refusal.code, refusal.reason, instance.waiting_key)
        self.session.flush()
        sought = {"key": instance.waiting_key, "behind": instance.id}
        ids = self.session.scalars(OTHERS, sought).all()
        self.session.execute(
            update(SoftwareInstance)
            .where(SoftwareInstance.id.in_(ids))
            .values(
                waiting_code=refusal.code,
                waiting_reason=refusal.reason,
                revision=SoftwareInstance.revision + 1,
            ),
            execution_options={"synchronize_session": False},
        )
        for each in ids:
            known = self.session.identity_map.get(identity_key(SoftwareInstance, each))
            if known is not None:
                self.session.expire(known)


def groups_of_project(session: Session, project_id: int, since: int = 0) -> dict[str, int]:
    """Return those that wait in a project: the keys, and the first of each, from an id on."""
    begin = waiting.begin_of_keys(project_id)
    rows = session.execute(GROUPS, {"after": begin, "until": f"{begin}g"})
    return {row.waiting_key: row.first for row in rows if row.first >= since}


def groups_for_node(session: Session, node_id: int, since: int = 0) -> dict[str, int]:
    """Return those that wait for what some supply allows on a node."""
    project_id = session.scalar(PROJECT_OF_NODE, {"id": node_id})
    if project_id is None:
        return {}
    groups = groups_of_project(session, project_id, since)
    allowed = {tuple(row) for row in session.execute(ALLOWED_ON_NODE, {"node_id": node_id})}
    what = session.execute(WHAT, {"ids": list(groups.values())}).all() if groups else ()
    wanted = {row.id for row in what if (row.software_url, row.software_type) in allowed}
    return {key: first for key, first in groups.items() if first in wanted}


def group_of(session: Session, key: str) -> dict[str, int]:
    """Return the one group of a key, if somebody of it waits."""
    first = session.scalar(FIRST_OF, {"key": key})
    return {} if first is None else {key: first}


def some_groups(session: Session, after: str) -> dict[str, int]:
    """Return the groups of all projects, as many as one look takes, behind a key."""
    return {row.waiting_key: row.first for row in session.execute(SOME_GROUPS, {"after": after})}


def _what_matters(instance: SoftwareInstance, filters: Filters, offers: Sequence[Offer]) -> str:
    """Return what else a search depends on."""
    told = []
    if instance.shared:
        told += [instance.software_url, instance.software_type, str(instance.tree_id)]
    if not all(offer.installs_by_need for offer in offers):
        told.append(instance.software_url)
    if filters.unique_by_network:
        told.append(str(instance.tree_id))
    return "\n".join(told)
