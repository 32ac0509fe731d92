"""A catalogue for tests of the full profile: a product, and a supply of it on nodes."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import (
    AllocationSupply,
    ProductState,
    SoftwareProduct,
    SoftwareRelease,
    SoftwareType,
    SupplyCell,
    SupplyNode,
)
from slapos.master.nodes.model import ComputeNode
from tests.fakes import NOON
from tests.integration.master.factories import URL


def add_product(
    session: Session,
    *,
    title: str = "product",
    urls: Sequence[str] = (URL,),
    types: Sequence[str] = ("default",),
    weight: int = 1,
    project_id: int = 1,
    state: ProductState = ProductState.PUBLISHED,
) -> SoftwareProduct:
    product = SoftwareProduct(
        reference=f"PROD-{project_id}-{title}",
        project_id=project_id,
        title=title,
        state=state,
        created_at=NOON,
    )
    product.releases = [
        SoftwareRelease(url=url, effective_at=NOON, created_at=NOON) for url in urls
    ]
    product.types = [SoftwareType(name=name, weight=weight) for name in types]
    session.add(product)
    session.flush()
    return product


def add_supply(
    session: Session,
    product: SoftwareProduct,
    nodes: Collection[str],
    *,
    title: str = "supply",
    customer_id: int | None = None,
    enabled: bool = True,
    shared_in_same_tree: bool = False,
    installs_by_need: bool = True,
) -> AllocationSupply:
    supply = AllocationSupply(
        reference=f"SUPPLY-{product.reference}-{title}",
        project_id=product.project_id,
        title=title,
        enabled=enabled,
        customer_id=customer_id,
        shared_in_same_tree=shared_in_same_tree,
        installs_by_need=installs_by_need,
        created_at=NOON,
    )
    ids = session.scalars(select(ComputeNode.id).where(ComputeNode.reference.in_(nodes))).all()
    supply.nodes = [SupplyNode(node_id=node_id) for node_id in ids]
    supply.cells = [
        SupplyCell(release_id=release.id, type_id=kind.id)
        for release in product.releases
        for kind in product.types
    ]
    session.add(supply)
    session.flush()
    return supply
