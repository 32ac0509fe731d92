"""Allocation supplies: which releases and types may be placed on which nodes, and for whom.

What is placed stays where it is when a supply changes or goes: it says where new ones may go.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Select, bindparam, func, or_, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import (
    TITLE_LENGTH,
    AllocationSupply,
    SoftwareProduct,
    SoftwareRelease,
    SoftwareType,
    SupplyCell,
    SupplyNode,
)
from slapos.master.identity.caller import Role
from slapos.master.identity.model import Membership, Person, Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.service import find_project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.nodes.service import sense_project
from slapos.master.numbering import next_number
from slapos.master.text import checked_text
from slapos.protocol.errors import InvalidRequest
from slapos.system.clock import Clock

#: How many names an error message lists.
NAMED = 10
#: How many nodes are looked for in one statement.
PIECE = 500

SUPPLY = select(AllocationSupply).where(AllocationSupply.reference == bindparam("reference"))
LOCKED_SUPPLY = SUPPLY.with_for_update(of=AllocationSupply)
NODES = select(ComputeNode.reference, ComputeNode.id).where(
    ComputeNode.project_id == bindparam("project_id"),
    ComputeNode.invalidated_at.is_(None),
    ComputeNode.reference.in_(bindparam("references", expanding=True)),
)
ALL_NODES = select(ComputeNode.id).where(
    ComputeNode.project_id == bindparam("project_id"),
    ComputeNode.invalidated_at.is_(None),
    ~ComputeNode.is_remote,  # what goes to another master is said by name
)
#: What is put into a supply is kept from being deleted meanwhile.
OFFERED = (
    select(SoftwareRelease.id, SoftwareType.id)
    .select_from(SoftwareRelease)
    .join(SoftwareProduct, SoftwareProduct.id == SoftwareRelease.product_id)
    .join(SoftwareType, SoftwareType.product_id == SoftwareProduct.id)
    .where(
        SoftwareProduct.project_id == bindparam("project_id"),
        SoftwareProduct.reference == bindparam("product"),
        SoftwareRelease.url == bindparam("release"),
        SoftwareType.name == bindparam("type"),
    )
    .with_for_update(read=True, key_share=True, of=(SoftwareRelease, SoftwareType))
)
CUSTOMER = (
    select(Person)
    .join(Membership)
    .where(
        Person.reference == bindparam("reference"),
        Membership.project_id == bindparam("project_id"),
        Membership.role == Role.CUSTOMER,
    )
)
COUNT_NODES = select(func.count()).where(SupplyNode.supply_id == bindparam("supply_id"))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A release and a type that a supply allows: a product's reference, a URL, a type's name."""

    product: str
    release: str
    type: str


class SupplyChange(TypedDict, total=False):
    """What a supply is to be; `nodes` and `cells` are all that it is to have.

    `customer` is a person's reference, None for all customers of the project.
    """

    title: str
    enabled: bool
    customer: str | None
    shared_in_same_tree: bool
    installs_by_need: bool
    nodes: Sequence[str]
    cells: Sequence[Cell]


def find_supply(session: Session, reference: str, *, lock: bool = False) -> AllocationSupply:
    """Return a supply that the caller may see, or raise NotFound."""
    supply = session.scalar(LOCKED_SUPPLY if lock else SUPPLY, {"reference": reference})
    if supply is None:
        raise not_there(Subject(Kind.SUPPLY, reference))
    require(session, Action.SEE, supply)
    return supply


def matching(session: Session, project: str | None = None) -> Select[AllocationSupply]:
    """Return a SELECT of the supplies that the caller may see, of one project or of all."""
    public = AllocationSupply.enabled & AllocationSupply.customer_id.is_(None)
    ids, of_project = select(AllocationSupply.id), AllocationSupply.project_id
    seen = [
        visible(session, ids.where(public), Kind.SUPPLY, project=of_project),
        visible(session, ids.where(~public), Kind.PRIVATE_SUPPLY, project=of_project),
        visible(
            session,
            ids.where(AllocationSupply.enabled),
            Kind.PRIVATE_SUPPLY,
            owner=AllocationSupply.customer_id,
        ),
    ]
    statement = select(AllocationSupply).where(
        or_(*(AllocationSupply.id.in_(each) for each in seen))
    )
    if project is not None:
        statement = statement.join(AllocationSupply.project).where(Project.reference == project)
    return statement


def nodes_of(session: Session, supply: AllocationSupply) -> Select[ComputeNode]:
    """Return a SELECT of a supply's nodes; whoever sees the supply may see them."""
    require(session, Action.SEE, supply)
    return select(ComputeNode).join(SupplyNode).where(SupplyNode.supply_id == supply.id)


def count_nodes(session: Session, supply: AllocationSupply) -> int:
    """Return how many nodes a supply has."""
    return session.scalar(COUNT_NODES, {"supply_id": supply.id}) or 0


def create(
    session: Session, clock: Clock, *, project: str, title: str, wanted: SupplyChange
) -> AllocationSupply:
    """Make a supply of a project: SUPPLY-n."""
    found = find_project(session, project)
    require(session, Action.CREATE, Subject(Kind.SUPPLY, title, found.id))
    found.check_active()
    supply = AllocationSupply(
        reference=f"SUPPLY-{next_number(session)}",
        project_id=found.id,
        title=title,
        created_at=clock.now(),
    )
    session.add(supply)
    session.flush()
    return _set(session, supply, {**wanted, "title": title})


def change(session: Session, reference: str, wanted: SupplyChange) -> AllocationSupply:
    """Change a supply; who waits for a place may have one then."""
    supply = find_supply(session, reference, lock=True)
    require(session, Action.CHANGE, supply)
    return _set(session, supply, wanted)


def remove(session: Session, reference: str) -> None:
    """Delete a supply: nothing new is placed by it, what is placed stays."""
    supply = find_supply(session, reference, lock=True)
    require(session, Action.DESTROY, supply)
    session.delete(supply)
    session.flush()


def add_nodes(session: Session, reference: str, nodes: Collection[str] | None) -> int:
    """Add nodes to a supply, None for all of its project; return how many are new to it."""
    supply = find_supply(session, reference, lock=True)
    require(session, Action.CHANGE, supply)
    if nodes is None:
        ids = set(session.scalars(ALL_NODES, {"project_id": supply.project_id}))
    else:
        ids = set(_ids_of(session, supply, nodes))
    added = ids - {each.node_id for each in supply.nodes}
    supply.nodes.extend(SupplyNode(node_id=each) for each in sorted(added))
    session.flush()
    if added:
        sense_project(session, supply.project_id)
    return len(added)


def remove_node(session: Session, reference: str, node: str) -> None:
    """Take a node out of a supply; it does nothing when the node is not in it."""
    supply = find_supply(session, reference, lock=True)
    require(session, Action.CHANGE, supply)
    (node_id,) = _ids_of(session, supply, [node])
    found = session.get(SupplyNode, (supply.id, node_id))
    if found is not None:
        session.delete(found)
        session.flush()


def _set(session: Session, supply: AllocationSupply, wanted: SupplyChange) -> AllocationSupply:
    if "title" in wanted:
        supply.title = checked_text("the title of a supply", wanted["title"], TITLE_LENGTH)
    for name in ("enabled", "shared_in_same_tree", "installs_by_need"):
        if name in wanted:
            setattr(supply, name, wanted[name])
    if "customer" in wanted:
        supply.customer = _customer(session, supply, wanted["customer"])
    if "nodes" in wanted:
        _set_nodes(supply, _ids_of(session, supply, wanted["nodes"]))
    if "cells" in wanted:
        _set_cells(supply, [_ids_of_cell(session, supply, cell) for cell in wanted["cells"]])
    session.flush()
    if wanted.keys() - {"title"}:
        sense_project(session, supply.project_id)
    return supply


def _set_nodes(supply: AllocationSupply, ids: Collection[int]) -> None:
    present = {each.node_id for each in supply.nodes}
    supply.nodes = [
        *(each for each in supply.nodes if each.node_id in ids),
        *(SupplyNode(node_id=each) for each in sorted(set(ids) - present)),
    ]


def _set_cells(supply: AllocationSupply, ids: Collection[tuple[int, int]]) -> None:
    present = {(each.release_id, each.type_id): each for each in supply.cells}
    supply.cells = [
        present.get(each) or SupplyCell(release_id=each[0], type_id=each[1])
        for each in dict.fromkeys(ids)
    ]


def _ids_of(
    session: Session, supply: AllocationSupply, references: Collection[str]
) -> Collection[int]:
    found: dict[str, int] = {}
    listed = sorted(set(references))
    for begin in range(0, len(listed), PIECE):
        piece = listed[begin : begin + PIECE]
        sought = {"project_id": supply.project_id, "references": piece}
        found |= {str(reference): node_id for reference, node_id in session.execute(NODES, sought)}
    missing = [each for each in listed if each not in found]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise InvalidRequest(
            f"the project of {supply.reference} has no node {', '.join(missing[:NAMED])}{more}"
        )
    return found.values()


def _ids_of_cell(session: Session, supply: AllocationSupply, cell: Cell) -> tuple[int, int]:
    found = session.execute(OFFERED, {"project_id": supply.project_id, **vars(cell)}).first()
    if found is None:
        raise InvalidRequest(
            f"the project of {supply.reference} has no product {cell.product[:60]!r} with the "
            f"release {cell.release[:200]} and the type {cell.type[:60]!r}"
        )
    return found[0], found[1]


def _customer(session: Session, supply: AllocationSupply, reference: str | None) -> Person | None:
    if reference is None:
        return None
    sought = {"project_id": supply.project_id, "reference": reference}
    person = session.scalar(CUSTOMER, sought)
    if person is None:
        raise InvalidRequest(
            f"{reference[:60]!r} is no customer of the project of {supply.reference}; "
            "invite that person first"
        )
    return person
