"""What the catalogue allows for a release and a type: the supplies an instance may be placed by."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, and_, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import (
    AllocationSupply,
    ProductState,
    SoftwareProduct,
    SoftwareRelease,
    SoftwareType,
    SupplyCell,
)
from slapos.master.identity.model import Project
from slapos.master.provisioning import waiting
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.waiting import IS_BEHIND, Refusal, Why

#: How many names an error message lists.
NAMED = 10

OFFERS = (
    select(
        SoftwareProduct.id.label("product_id"),
        SoftwareProduct.title.label("product"),
        SoftwareProduct.state,
        SoftwareType.weight,
        AllocationSupply.id.label("supply_id"),
        AllocationSupply.enabled,
        AllocationSupply.customer_id,
        AllocationSupply.shared_in_same_tree,
        AllocationSupply.installs_by_need,
        IS_BEHIND.label("is_behind"),
    )
    .select_from(SoftwareRelease)
    .join(SoftwareProduct, SoftwareProduct.id == SoftwareRelease.product_id)
    .outerjoin(
        SoftwareType,
        and_(
            SoftwareType.product_id == SoftwareProduct.id,
            SoftwareType.name == bindparam("software_type"),
        ),
    )
    .outerjoin(
        SupplyCell,
        and_(
            SupplyCell.release_id == SoftwareRelease.id,
            SupplyCell.type_id == SoftwareType.id,
        ),
    )
    .outerjoin(AllocationSupply, AllocationSupply.id == SupplyCell.supply_id)
    .where(
        SoftwareRelease.url == bindparam("software_url"),
        SoftwareProduct.project_id == bindparam("project_id"),
    )
    .order_by(AllocationSupply.id)
)
TYPES = (
    select(SoftwareType.name)
    .where(SoftwareType.product_id == bindparam("product_id"))
    .order_by(SoftwareType.id)
    .limit(NAMED)
)
PROJECT = select(Project.reference).where(Project.id == bindparam("project_id"))


@dataclass(frozen=True)
class Offer:
    """A supply that an instance may be placed by, and how much it weighs."""

    supply_id: int
    weight: int
    is_private: bool
    shared_in_same_tree: bool
    installs_by_need: bool


@dataclass(frozen=True)
class Offers:
    """The supplies that an instance may be placed by, those for its owner alone first.

    `is_behind` says that others wait for the same, who have their turn before it.
    """

    found: Sequence[Offer]
    is_behind: bool


def offers_for(session: Session, instance: SoftwareInstance) -> Sequence[Offer] | Refusal:
    """Return the supplies that an instance may be placed by, those for its owner alone first."""
    told = offers_in_turn(session, instance, "")
    return told if isinstance(told, Refusal) else told.found


def offers_in_turn(session: Session, instance: SoftwareInstance, key: str) -> Offers | Refusal:
    """Return the supplies for an instance, and whether others wait by the same key before it."""
    sought = {
        "project_id": instance.tree.project_id,
        "software_url": instance.software_url,
        "software_type": instance.software_type,
        **waiting.turn(key, instance.id),
    }
    # Past the mapper, as it has nothing to do here.
    rows = session.connection().execute(OFFERS, sought).all()
    owner = instance.tree.owner_id
    found = [
        Offer(
            row.supply_id,
            row.weight,
            row.customer_id is not None,
            row.shared_in_same_tree,
            row.installs_by_need,
        )
        for row in rows
        if row.state == ProductState.PUBLISHED
        and row.supply_id is not None
        and row.enabled
        and row.customer_id in (None, owner)
    ]
    if not found:
        return _why_none(session, instance, rows)
    return Offers(sorted(found, key=lambda offer: not offer.is_private), rows[0].is_behind)


def _why_none(
    session: Session, instance: SoftwareInstance, rows: Sequence[Row[*tuple[object, ...]]]
) -> Refusal:
    url, kind = instance.software_url, instance.software_type
    if not rows:
        project = session.scalar(PROJECT, {"project_id": instance.tree.project_id})
        return Refusal(
            Why.NO_PRODUCT,
            f"no product of the project {project} has the release {url}; a production manager "
            "can add it to one, or request a release that one has",
        )
    published = [row for row in rows if row.state == ProductState.PUBLISHED]
    if not published:
        return Refusal(
            Why.NO_PRODUCT,
            f"the release {url} is of the product {rows[0].product!r}, which is {rows[0].state}; "
            "a production manager can publish it",
        )
    product = published[0]
    typed = [row for row in published if row.weight is not None]
    if not typed:
        names = session.scalars(TYPES, {"product_id": product.product_id}).all()
        return Refusal(
            Why.NO_PRODUCT,
            f"the product {product.product!r} has no type {kind!r}; "
            f"it has: {', '.join(names) or 'none'}",
        )
    supplied = [row for row in typed if row.supply_id is not None]
    if any(row.enabled for row in supplied):
        said = "is only for other customers"
    elif supplied:
        said = "is disabled"
    else:
        said = ""
    begin = (
        f"each supply that allows the type {kind!r} of the release {url} {said}"
        if said
        else f"no supply allows the type {kind!r} of the release {url} on any node"
    )
    return Refusal(
        Why.NO_SUPPLY, f"{begin}; a production manager of the project can make one that does"
    )
