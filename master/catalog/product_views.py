"""Software products, their releases and types, over HTTP."""

from datetime import UTC
from typing import Annotated, Any, cast

from flask import Blueprint
from pydantic import AfterValidator, AwareDatetime, Field
from sqlalchemy.orm import selectinload

from slapos.master import rest
from slapos.master.catalog import products, service
from slapos.master.catalog.model import ProductState, SoftwareProduct, SoftwareRelease, SoftwareType
from slapos.master.http import context
from slapos.master.nodes.shapes import LEFT_OUT, Reference, Text
from slapos.master.settings import Profile
from slapos.master.text import URL_LENGTH
from slapos.protocol.errors import Conflict, Forbidden, NotFound

blueprint = Blueprint("products", __name__, url_prefix="/v1/products")

Url = Annotated[str, Field(min_length=1, max_length=URL_LENGTH)]
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Description = Annotated[str, Field(max_length=products.DESCRIPTION_LENGTH)]
Weight = Annotated[
    int, Field(ge=0, le=products.LARGEST_WEIGHT, description="How much one weighs on a node.")
]
CHANGES = (NotFound, Forbidden, Conflict)


class ProductShown(rest.Answer):
    """A software product; the best of its releases comes first.

    A local master knows of it only its name and its releases.
    """

    reference: str
    releases: list[str]
    types: Annotated[list[str], Field(default_factory=list)]
    project: Reference | None = None
    title: str | None = None
    description: str = ""
    state: ProductState = ProductState.PUBLISHED
    created_at: rest.Time | None = None


class ProductsShown(rest.Paged):
    """Software products, the oldest first."""

    products: list[ProductShown]


class ProductsQuery(rest.PagedQuery):
    """Which products are looked for."""

    title: Annotated[str | None, Field(description="A part of the title, in any case.")] = None
    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None
    state: ProductState | None = None
    release: Annotated[str | None, Field(description="The URL of one of its releases.")] = None


class NewProduct(rest.Body):
    """A product that is to be made; it is a draft at first."""

    project: Text
    title: Text
    description: Description = ""


class ProductChanged(rest.Body):
    """What is to be changed of a product; what is left out stays."""

    title: Text = LEFT_OUT
    description: Description = LEFT_OUT
    state: ProductState = LEFT_OUT


class ReleaseShown(rest.Answer):
    """A release of a product."""

    number: int
    url: str
    version: str
    schema_url: str | None
    effective_at: rest.Time
    created_at: rest.Time


class ReleasesShown(rest.Answer):
    """The releases of a product, the best first."""

    releases: list[ReleaseShown]


class NewRelease(rest.Body):
    """A release that is to be added; without `effective_at` it is the best from now on."""

    url: Url
    version: Annotated[str, Field(max_length=200)] = ""
    schema_url: Url | None = None
    effective_at: Moment | None = None


class ReleaseChanged(rest.Body):
    """What is to be changed of a release; what is left out stays."""

    version: Annotated[str, Field(max_length=200)] = LEFT_OUT
    schema_url: Url | None = LEFT_OUT
    effective_at: Moment = LEFT_OUT


class TypeShown(rest.Answer):
    """A type of instance that a product's releases offer."""

    name: str
    weight: int
    parameter_schema: dict[str, Any] | None


class TypesShown(rest.Answer):
    """The types of a product, the oldest first."""

    types: list[TypeShown]


class NewType(rest.Body):
    """A type that is to be added."""

    name: Text
    weight: Weight = 1
    parameter_schema: dict[str, Any] | None = None


class TypeChanged(rest.Body):
    """What is to be changed of a type; what is left out stays."""

    weight: Weight = LEFT_OUT
    parameter_schema: dict[str, Any] | None = LEFT_OUT


@blueprint.get("")
@rest.operation(
    summary="Show software products, the oldest first", query=ProductsQuery, answer=ProductsShown
)
def show_all(query: ProductsQuery) -> dict[str, Any]:
    """Show the software products: those of the catalogue, or in a local master of its settings."""
    if context().settings.profile is Profile.LOCAL:
        named = context().settings.software_products
        return {
            "products": [
                {"reference": name, "releases": service.releases_of(named, name)}
                for name in sorted(named)
            ]
        }
    wanted = products.ProductFilter(
        title=query.title, project=query.project, state=query.state, url=query.release
    )
    statement = products.matching(context().session, wanted).options(
        selectinload(SoftwareProduct.project),
        selectinload(SoftwareProduct.releases),
        selectinload(SoftwareProduct.types),
    )
    found = rest.page(context().session, statement, [SoftwareProduct.id], query)
    return {"products": [render(each) for each in found], "next": found.next}


@blueprint.post("")
@rest.operation(
    summary="Make a software product",
    body=NewProduct,
    answer=ProductShown,
    status=201,
    errors=CHANGES,
)
def create(body: NewProduct) -> rest.Reply:
    """Make a software product."""
    made = products.create(context().session, context().clock, **dict(body))
    return rest.Reply(render(made), location=f"/v1/products/{made.reference}")


@blueprint.get("/<reference>")
@rest.operation(summary="Show a software product", answer=ProductShown, errors=(NotFound,))
def show(reference: str) -> ProductShown:
    """Show a software product."""
    return render(products.find_product(context().session, reference))


@blueprint.patch("/<reference>")
@rest.operation(
    summary="Change a software product: publish it, withdraw it",
    body=ProductChanged,
    answer=ProductShown,
    errors=CHANGES,
    matches=True,
)
def change(reference: str, body: ProductChanged) -> ProductShown:
    """Change a software product: publish it, withdraw it."""
    session = context().session
    rest.check_match(render(products.find_product(session, reference, lock=True)))
    wanted = cast("products.ProductChange", body.model_dump(exclude_unset=True))
    return render(products.change(session, reference, wanted))


@blueprint.delete("/<reference>")
@rest.operation(summary="Delete a software product that is not in use", answer=None, errors=CHANGES)
def remove(reference: str) -> None:
    """Delete a software product that is not in use."""
    products.remove(context().session, reference)


@blueprint.get("/<reference>/releases")
@rest.operation(
    summary="Show the releases of a product, the best first",
    answer=ReleasesShown,
    errors=(NotFound,),
)
def show_releases(reference: str) -> dict[str, Any]:
    """Show the releases of a product, the best first."""
    product = products.find_product(context().session, reference)
    found = service.best_first(product.releases, context().clock.now())
    return {"releases": [_render_release(each) for each in found]}


@blueprint.post("/<reference>/releases")
@rest.operation(
    summary="Add a release to a product",
    body=NewRelease,
    answer=ReleaseShown,
    status=201,
    errors=CHANGES,
)
def add_release(reference: str, body: NewRelease) -> rest.Reply:
    """Add a release to a product."""
    added = products.add_release(context().session, context().clock, reference, **dict(body))
    location = f"/v1/products/{reference}/releases/{added.id}"
    return rest.Reply(_render_release(added), location=location)


@blueprint.patch("/<reference>/releases/<int:number>")
@rest.operation(
    summary="Change what is said of a release",
    body=ReleaseChanged,
    answer=ReleaseShown,
    errors=CHANGES,
)
def change_release(reference: str, number: int, body: ReleaseChanged) -> ReleaseShown:
    """Change what is said of a release."""
    wanted = cast("products.ReleaseChange", body.model_dump(exclude_unset=True))
    return _render_release(products.change_release(context().session, reference, number, wanted))


@blueprint.delete("/<reference>/releases/<int:number>")
@rest.operation(summary="Delete a release that is not in use", answer=None, errors=CHANGES)
def remove_release(reference: str, number: int) -> None:
    """Delete a release that is not in use."""
    products.remove_release(context().session, reference, number)


@blueprint.get("/<reference>/types")
@rest.operation(summary="Show the types of a product", answer=TypesShown, errors=(NotFound,))
def show_types(reference: str) -> dict[str, Any]:
    """Show the types of a product."""
    product = products.find_product(context().session, reference)
    return {"types": [_render_type(each) for each in product.types]}


@blueprint.post("/<reference>/types")
@rest.operation(
    summary="Add a type to a product", body=NewType, answer=TypeShown, status=201, errors=CHANGES
)
def add_type(reference: str, body: NewType) -> rest.Reply:
    """Add a type to a product."""
    return rest.Reply(_render_type(products.add_type(context().session, reference, **dict(body))))


@blueprint.patch("/<reference>/types/<path:name>")
@rest.operation(
    summary="Change what is said of a type", body=TypeChanged, answer=TypeShown, errors=CHANGES
)
def change_type(reference: str, name: str, body: TypeChanged) -> TypeShown:
    """Change what is said of a type."""
    wanted = cast("products.TypeChange", body.model_dump(exclude_unset=True))
    return _render_type(products.change_type(context().session, reference, name, wanted))


@blueprint.delete("/<reference>/types/<path:name>")
@rest.operation(summary="Delete a type that no supply allows", answer=None, errors=CHANGES)
def remove_type(reference: str, name: str) -> None:
    """Delete a type that no supply allows."""
    products.remove_type(context().session, reference, name)


def render(product: SoftwareProduct) -> ProductShown:
    """Return what a client sees of a product."""
    found = service.best_first(product.releases, context().clock.now())
    return ProductShown(
        reference=product.reference,
        releases=[each.url for each in found],
        types=[each.name for each in product.types],
        project=product.project.reference,
        title=product.title,
        description=product.description,
        state=ProductState(product.state),
        created_at=product.created_at,
    )


def _render_release(release: SoftwareRelease) -> ReleaseShown:
    return ReleaseShown(
        number=release.id,
        url=release.url,
        version=release.version,
        schema_url=release.schema_url,
        effective_at=release.effective_at,
        created_at=release.created_at,
    )


def _render_type(found: SoftwareType) -> TypeShown:
    return TypeShown(name=found.name, weight=found.weight, parameter_schema=found.parameter_schema)
