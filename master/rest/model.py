"""The shapes of what is asked and answered."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema

from slapos.protocol.errors import InvalidFields, MalformedDocument
from slapos.protocol.json_reader import load_json

Shape = TypeVar("Shape", bound=BaseModel)

#: A time in an answer: ISO 8601 with its zone, as Python writes it.
Time = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
#: How many wrong fields an answer names.
NAMED_FIELDS = 20

_WORDS = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "string_type": "it must be a text",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "list_type": "it must be a list",
    "model_type": "it must be an object",
    "dict_type": "it must be an object",
}


class Body(BaseModel):
    """What comes as JSON: each field is of its very type, and none is unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """What comes in the URL after the question mark: texts, read as what the field is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """What is answered as JSON; it may be made from an object with such attributes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, serialize_by_alias=True
    )


def read_body(shape: type[Shape], content: bytes) -> Shape:
    """Return what a body says; raises MalformedDocument, InvalidFields."""
    try:
        document = load_json(content)
    except ValueError as error:
        raise MalformedDocument(f"the body is no JSON document: {error}") from error
    if not isinstance(document, dict):
        raise MalformedDocument("the body must be a JSON object: {…}")
    _refuse_nul("the body", document)
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        raise invalid_fields("the body", error) from error


def read_query(shape: type[Shape], arguments: Mapping[str, Sequence[str]]) -> Shape:
    """Return what the URL asks; a field that takes several values may come several times."""
    told: dict[str, Any] = {}
    for name, values in arguments.items():
        field = shape.model_fields.get(name)
        if field is not None and _takes_several(field.annotation):
            told[name] = list(values)
        elif len(values) > 1:
            raise InvalidFields(f"{name[:60]!r} is asked twice", {name[:60]: "it comes twice"})
        else:
            told[name] = values[0]
    _refuse_nul("the query", told)
    try:
        return shape.model_validate(told)
    except ValidationError as error:
        raise invalid_fields("the query", error) from error


def _takes_several(annotation: Any) -> bool:
    return any(get_origin(each) is list for each in (annotation, *get_args(annotation)))


def invalid_fields(what: str, error: ValidationError) -> InvalidFields:
    """Return the error for a client: which fields are wrong and why, without their values."""
    fields: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(step)[:60] for step in each["loc"]) or what
        told = each["msg"].removeprefix("Value error, ")
        fields.setdefault(name, _WORDS.get(each["type"], told[:1].lower() + told[1:]))
    named = dict(list(fields.items())[:NAMED_FIELDS])
    sentence = "; ".join(f"{name}: {reason}" for name, reason in named.items())
    return InvalidFields(f"{what} cannot be used: {sentence}", named)


def _refuse_nul(what: str, value: object) -> None:
    """Raise InvalidFields where a text has a character that databases cannot keep."""
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            if "\0" in each:
                raise InvalidFields(f"{what} has a text with a NUL character in it", {})
        elif isinstance(each, dict):
            rest += [*each, *each.values()]
        elif isinstance(each, list):
            rest += each
