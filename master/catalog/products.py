"""Software products: what customers may order, its releases and its types.

What is offered may be withdrawn at any time: nothing new is placed then, and what runs goes on.
What a supply names, or a node has installed, is not deleted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import jsonschema
from jsonschema.validators import validator_for
from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog import use
from slapos.master.catalog.model import (
    TITLE_LENGTH,
    ProductState,
    SoftwareProduct,
    SoftwareRelease,
    SoftwareType,
)
from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.service import find_project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.service import sense_project
from slapos.master.numbering import next_number
from slapos.master.text import URL_LENGTH, checked_text
from slapos.protocol.errors import Conflict, InvalidRequest, NotFound
from slapos.system.clock import Clock

DESCRIPTION_LENGTH = 10_000
#: The heaviest type: what PostgreSQL's integers hold.
LARGEST_WEIGHT = 2**31 - 1

PRODUCT = select(SoftwareProduct).where(SoftwareProduct.reference == bindparam("reference"))
LOCKED_PRODUCT = PRODUCT.with_for_update(of=SoftwareProduct)
OF_TITLE = select(SoftwareProduct.reference).where(
    SoftwareProduct.project_id == bindparam("project_id"),
    SoftwareProduct.title == bindparam("title"),
)
OF_URL = (
    select(SoftwareProduct.reference)
    .join(SoftwareRelease)
    .where(
        SoftwareProduct.project_id == bindparam("project_id"),
        SoftwareRelease.url == bindparam("url"),
    )
)
RELEASE = (
    select(SoftwareRelease)
    .where(
        SoftwareRelease.product_id == bindparam("product_id"),
        SoftwareRelease.id == bindparam("number"),
    )
    .with_for_update()
)
TYPE = (
    select(SoftwareType)
    .where(
        SoftwareType.product_id == bindparam("product_id"), SoftwareType.name == bindparam("name")
    )
    .with_for_update()
)


@dataclass(frozen=True, kw_only=True)
class ProductFilter:
    """Which products are looked for; `title` is a part of it, `url` that of one of its releases."""

    title: str | None = None
    project: str | None = None
    state: ProductState | None = None
    url: str | None = None


class ProductChange(TypedDict, total=False):
    """What is to be changed of a product."""

    title: str
    description: str
    state: ProductState


class ReleaseChange(TypedDict, total=False):
    """What is to be changed of a release; its URL is what it is."""

    version: str
    schema_url: str | None
    effective_at: datetime


class TypeChange(TypedDict, total=False):
    """What is to be changed of a type; its name is what is ordered."""

    weight: int
    parameter_schema: Mapping[str, Any] | None


def find_product(session: Session, reference: str, *, lock: bool = False) -> SoftwareProduct:
    """Return a product that the caller may see, or raise NotFound."""
    product = session.scalar(LOCKED_PRODUCT if lock else PRODUCT, {"reference": reference})
    if product is None:
        raise not_there(Subject(Kind.PRODUCT, reference))
    require(session, Action.SEE, product)
    return product


def matching(session: Session, wanted: ProductFilter) -> Select[SoftwareProduct]:
    """Return a SELECT of the products that are looked for and that the caller may see."""
    statement = select(SoftwareProduct)
    statement = visible(session, statement, Kind.PRODUCT, project=SoftwareProduct.project_id)
    if wanted.title:
        statement = statement.where(SoftwareProduct.title.icontains(wanted.title, autoescape=True))
    if wanted.project is not None:
        statement = statement.join(SoftwareProduct.project).where(
            Project.reference == wanted.project
        )
    if wanted.state is not None:
        statement = statement.where(SoftwareProduct.state == wanted.state)
    if wanted.url is not None:
        statement = statement.where(SoftwareProduct.releases.any(SoftwareRelease.url == wanted.url))
    return statement


def create(
    session: Session, clock: Clock, *, project: str, title: str, description: str = ""
) -> SoftwareProduct:
    """Make a product of a project, a draft: PROD-n."""
    found = find_project(session, project)
    require(session, Action.CREATE, Subject(Kind.PRODUCT, title, found.id))
    found.check_active()
    _check_title(session, found.id, title)
    product = SoftwareProduct(
        reference=f"PROD-{next_number(session)}",
        project_id=found.id,
        title=title,
        description=_checked_description(description),
        created_at=clock.now(),
    )
    session.add(product)
    session.flush()
    return product


def change(session: Session, reference: str, wanted: ProductChange) -> SoftwareProduct:
    """Change a product; published, it may be ordered, withdrawn it may not any more."""
    product = _changed(session, reference)
    if "title" in wanted and wanted["title"] != product.title:
        _check_title(session, product.project_id, wanted["title"])
        product.title = wanted["title"]
    if "description" in wanted:
        product.description = _checked_description(wanted["description"])
    if "state" in wanted and wanted["state"] != product.state:
        product.become(wanted["state"])
        sense_project(session, product.project_id)
    session.flush()
    return product


def remove(session: Session, reference: str) -> None:
    """Delete a product that is not in use, or raise Conflict."""
    product = find_product(session, reference, lock=True)
    require(session, Action.DESTROY, product)
    if product.state == ProductState.PUBLISHED:
        raise Conflict(f"the product {product.reference} is published; withdraw it first")
    for release in list(product.releases):
        _check_unused(session, product, _release(session, product, release.id))
    for each in product.types:
        _check_type_unused(session, each)
    session.delete(product)
    session.flush()


def add_release(
    session: Session,
    clock: Clock,
    reference: str,
    *,
    url: str,
    version: str = "",
    schema_url: str | None = None,
    effective_at: datetime | None = None,
) -> SoftwareRelease:
    """Add a release to a product; without `effective_at` it is the one to take from now on."""
    product = _changed(session, reference)
    checked_text("the URL of a release", url, URL_LENGTH)
    sought = {"project_id": product.project_id, "url": url}
    taken = session.scalar(OF_URL, sought)
    if taken is not None:
        raise Conflict(f"the release {url} is of the product {taken} already")
    release = SoftwareRelease(
        product=product,
        url=url,
        version=checked_text("a version", version, TITLE_LENGTH, empty=True),
        schema_url=_checked_schema_url(schema_url),
        effective_at=effective_at or clock.now(),
        created_at=clock.now(),
    )
    session.add(release)
    session.flush()
    sense_project(session, product.project_id)
    return release


def change_release(
    session: Session, reference: str, number: int, wanted: ReleaseChange
) -> SoftwareRelease:
    """Change what is said of a release."""
    release = _release(session, _changed(session, reference), number)
    if "version" in wanted:
        release.version = checked_text("a version", wanted["version"], TITLE_LENGTH, empty=True)
    if "schema_url" in wanted:
        release.schema_url = _checked_schema_url(wanted["schema_url"])
    if "effective_at" in wanted:
        release.effective_at = wanted["effective_at"]
    session.flush()
    return release


def remove_release(session: Session, reference: str, number: int) -> None:
    """Delete a release that no supply allows and no node has, or raise Conflict."""
    product = _changed(session, reference)
    release = _release(session, product, number)
    _check_unused(session, product, release)
    session.delete(release)
    session.flush()


def add_type(
    session: Session,
    reference: str,
    *,
    name: str,
    weight: int = 1,
    parameter_schema: Mapping[str, Any] | None = None,
) -> SoftwareType:
    """Add a type of instance to a product, and say how much one weighs on a node."""
    product = _changed(session, reference)
    checked_text("the name of a type", name, TITLE_LENGTH)
    if session.scalar(TYPE, {"product_id": product.id, "name": name}) is not None:
        raise Conflict(f"the product {product.reference} has a type {name!r} already")
    added = SoftwareType(
        product=product,
        name=name,
        weight=_checked_weight(weight),
        parameter_schema=_checked_schema(parameter_schema),
    )
    session.add(added)
    session.flush()
    sense_project(session, product.project_id)
    return added


def change_type(session: Session, reference: str, name: str, wanted: TypeChange) -> SoftwareType:
    """Change what is said of a type; what is placed already weighs as it did."""
    product = _changed(session, reference)
    found = _type(session, product, name)
    if "weight" in wanted:
        found.weight = _checked_weight(wanted["weight"])
        sense_project(session, product.project_id)
    if "parameter_schema" in wanted:
        found.parameter_schema = _checked_schema(wanted["parameter_schema"])
    session.flush()
    return found


def remove_type(session: Session, reference: str, name: str) -> None:
    """Delete a type that no supply allows, or raise Conflict."""
    found = _type(session, _changed(session, reference), name)
    _check_type_unused(session, found)
    session.delete(found)
    session.flush()


def _changed(session: Session, reference: str) -> SoftwareProduct:
    product = find_product(session, reference, lock=True)
    require(session, Action.CHANGE, product)
    return product


def _release(session: Session, product: SoftwareProduct, number: int) -> SoftwareRelease:
    """Return a release, kept from being put into a supply meanwhile."""
    sought = {"product_id": product.id, "number": number}
    release = session.scalar(RELEASE, sought)
    if release is None:
        raise NotFound(f"the product {product.reference} has no release number {number}")
    return release


def _type(session: Session, product: SoftwareProduct, name: str) -> SoftwareType:
    found = session.scalar(TYPE, {"product_id": product.id, "name": name})
    if found is None:
        raise NotFound(f"the product {product.reference} has no type {name!r}")
    return found


def _check_unused(session: Session, product: SoftwareProduct, release: SoftwareRelease) -> None:
    supplies = use.supplies_of_release(session, release.id)
    if supplies:
        raise Conflict(
            f"the release {release.url} is allowed by {', '.join(supplies)}; "
            "take it out of there first"
        )
    nodes = use.nodes_with(session, product.project_id, release.url)
    if nodes:
        raise Conflict(
            f"the release {release.url} is on {', '.join(nodes)}; it can be deleted when no node "
            "of the project has it: those that nothing uses are removed day by day"
        )


def _check_type_unused(session: Session, found: SoftwareType) -> None:
    supplies = use.supplies_of_type(session, found.id)
    if supplies:
        raise Conflict(
            f"the type {found.name!r} is allowed by {', '.join(supplies)}; "
            "take it out of there first"
        )


def _check_title(session: Session, project_id: int, title: str) -> None:
    checked_text("the title of a product", title, TITLE_LENGTH)
    taken = session.scalar(OF_TITLE, {"project_id": project_id, "title": title})
    if taken is not None:
        raise Conflict(f"the project has a product {title!r} already: {taken}")


def _checked_description(text: str) -> str:
    if len(text) > DESCRIPTION_LENGTH:
        raise InvalidRequest(
            f"the description has {len(text)} characters, {DESCRIPTION_LENGTH} are allowed"
        )
    if "\0" in text:
        raise InvalidRequest("the description has a character that no database can store")
    return text


def _checked_schema_url(url: str | None) -> str | None:
    return None if url is None else checked_text("the URL of a schema", url, URL_LENGTH)


def _checked_weight(weight: int) -> int:
    if not 0 <= weight <= LARGEST_WEIGHT:
        raise InvalidRequest(f"the weight of a type is {weight}; it can be 0 to {LARGEST_WEIGHT}")
    return weight


def _checked_schema(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    document = dict(schema)
    try:
        validator_for(document, default=jsonschema.Draft202012Validator).check_schema(document)
    except jsonschema.SchemaError as error:
        raise InvalidRequest(f"the parameter_schema is no JSON schema: {error.message}") from error
    return document
