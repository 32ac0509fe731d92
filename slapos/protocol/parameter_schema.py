"""What a release's JSON schema says of parameters: what is wrong with them, and at which field."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jsonschema
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from slapos.protocol.descriptor import BrokenDescriptor, Fetch, read_json

#: How far `$ref`s and `allOf`s are followed when looking for a parameter's type.
MAXIMUM_DEPTH = 20
#: The longest value repeated in a message.
SHOWN_VALUE = 80
_NOTHING = object()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one parameter. `path` is a JSON path such as `$.database.port`."""

    path: str
    message: str
    description: str = ""
    allowed: tuple[Any, ...] = ()

    def __str__(self) -> str:
        meaning = f" ({self.description})" if self.description else ""
        return f"{self.path}: {self.message}{meaning}"


@dataclass(frozen=True)
class ParameterSchema:
    """The JSON schema of what goes into (or comes out of) an instance."""

    url: str
    fetch: Fetch
    _documents: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _root(self) -> Any:
        document = self._document(self.url)
        if not isinstance(document, dict | bool):
            raise BrokenDescriptor(f"{self.url} is no JSON schema: it is no object")
        validator = validator_for(document, default=jsonschema.Draft202012Validator)
        try:
            validator.check_schema(document)  # type: ignore[arg-type]
        except jsonschema.SchemaError as error:
            raise BrokenDescriptor(f"{self.url} is no JSON schema: {error.message}") from error
        return document

    def problems(self, value: Any) -> list[Problem]:
        """Return what is wrong with `value`, in the order of the fields.

        Raises BrokenDescriptor when the schema, or one that it refers to, cannot be used.
        """
        kind = validator_for(self._root, default=jsonschema.Draft202012Validator)
        validator = kind(
            {"$ref": self.url}, registry=self._registry(), format_checker=kind.FORMAT_CHECKER
        )
        try:
            errors = sorted(validator.iter_errors(value), key=lambda e: [str(p) for p in e.path])
        except Unresolvable as error:
            raise BrokenDescriptor(f"{self.url} cannot be used: {_first_cause(error)}") from error
        except RecursionError as error:
            raise BrokenDescriptor(f"{self.url} cannot be used: it refers to itself") from error
        found: list[Problem] = []
        for problem in (p for error in errors for p in _problems_of(error)):
            if problem not in found:  # two branches of a schema often say the same of one field
                found.append(problem)
        return found

    def _registry(self) -> Registry[Any]:
        registry: Registry[Any] = Registry(retrieve=self._resource)  # type: ignore[call-arg]
        return registry

    def _resource(self, url: str) -> Resource[Any]:
        return Resource.from_contents(self._document(url), default_specification=DRAFT202012)

    def _document(self, url: str) -> Any:
        if url not in self._documents:
            self._documents[url] = read_json(url, self.fetch)
        return self._documents[url]

    def from_strings(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return what `key=value` words of a command line mean to this schema.

        A key with dots goes into objects (`database.port`), unless the schema knows it as it is.
        A value becomes the integer, number, boolean, array or object (the last two in JSON) that
        the schema wants; what cannot become that stays text, for `problems` to complain of.
        """
        result: dict[str, Any] = {}
        for key, text in values.items():
            path = [key] if self._types([key]) is not None else key.split(".")
            types = self._types(path)
            if types is None and not self._is_object(path[:1]):
                path = [key]
            _put(result, path, _converted(text, types or ()))
        return result

    def _is_object(self, path: list[str]) -> bool:
        return "object" in (self._types(path) or ())

    def _types(self, path: list[str]) -> tuple[str, ...] | None:
        """Return the types a parameter may have, in the schema's order; None when unknown."""
        schemas = [(self.url, self._root)]
        for name in path:
            schemas = [
                (url, schema["properties"][name])
                for url, schema in self._branches(schemas)
                if isinstance(schema.get("properties"), dict) and name in schema["properties"]
            ]
        if not schemas:
            return None
        return tuple(
            dict.fromkeys(kind for _, schema in self._branches(schemas) for kind in _types(schema))
        )

    def _branches(
        self, schemas: list[tuple[str, Any]], depth: int = 0
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the schemas themselves and all that they refer to or are composed of."""
        for url, schema in schemas:
            if not isinstance(schema, dict) or depth > MAXIMUM_DEPTH:
                continue
            yield url, schema
            below = [
                (url, branch)
                for keyword in ("allOf", "anyOf", "oneOf")
                for branch in schema.get(keyword, ())
            ]
            below += [(url, schema[k]) for k in ("if", "then", "else") if k in schema]
            if "$ref" in schema:
                below.append(self._referred(url, schema["$ref"]))
            yield from self._branches(below, depth + 1)

    def _referred(self, url: str, reference: str) -> tuple[str, Any]:
        resource = self._resource(url)
        try:
            resolver = self._registry().with_resource(url, resource).resolver(url)
            return url, resolver.lookup(reference).contents
        except Unresolvable:
            return url, None


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        if isinstance(error.__cause__, OSError | ValueError):
            return error
        error = error.__cause__
    return error


def _types(schema: dict[str, Any]) -> tuple[str, ...]:
    given = schema.get("type")
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list):
        return tuple(map(str, given))
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return tuple(_type_name(value) for value in values)


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
        case list():
            return "array"
        case _:
            return "object"


def _put(target: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        below = target.setdefault(name, {})
        if not isinstance(below, dict):
            below = target[name] = {}
        target = below
    target[path[-1]] = value


def _converted(text: str, types: tuple[str, ...]) -> Any:
    for kind in types:
        if kind == "string":
            return text
        value = _as_json(text.lower() if kind in ("boolean", "null") else text)
        if value is _NOTHING:
            continue
        actual = _type_name(value)
        if actual == kind or (kind, actual) == ("number", "integer"):
            return value
    return text


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _NOTHING


def _problems_of(error: jsonschema.ValidationError) -> Iterator[Problem]:
    """Say what a validation error means to who typed the value, at the field where it is."""
    if error.validator in ("anyOf", "oneOf") and error.context:
        best = _nearest_branch(error)
        if best:
            for inner in best:
                yield from _problems_of(inner)
            return
    path = error.json_path
    schema = error.schema if isinstance(error.schema, dict) else {}
    match error.validator:
        case "required":
            name = _missing_name(error)
            about = schema.get("properties", {}).get(name, {})
            yield Problem(
                path=f"{path}.{name}", message="is missing", description=_description(about)
            )
        case "additionalProperties" | "unevaluatedProperties":
            yield from _unknown_parameters(error, path, schema)
        case _:
            yield Problem(
                path=path,
                message=_message(error),
                description=_description(schema),
                allowed=_allowed(error),
            )


def _nearest_branch(error: jsonschema.ValidationError) -> list[jsonschema.ValidationError]:
    """Return the errors of the branch that comes nearest: the one that goes deepest, then fewest.

    A branch that fails at its very type or constant was not meant; when all do, none is nearest.
    """
    branches: dict[Any, list[jsonschema.ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    meant = [
        errors
        for errors in branches.values()
        if not any(e.validator in ("type", "const", "enum") and not e.path for e in errors)
    ]
    return min(meant, key=len) if meant else []


def _missing_name(error: jsonschema.ValidationError) -> str:
    wanted = error.validator_value
    names = wanted if isinstance(wanted, list) else []
    return next((str(n) for n in names if error.message.startswith(repr(n))), "")


def _unknown_parameters(
    error: jsonschema.ValidationError, path: str, schema: dict[str, Any]
) -> Iterator[Problem]:
    known = list(schema.get("properties", {}))
    given = error.instance if isinstance(error.instance, dict) else {}
    unknown = [name for name in given if f"{name!r}" in error.message]
    for name in unknown or ["?"]:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listed = f" (there are: {', '.join(known)})" if known and not close else ""
        yield Problem(
            path=f"{path}.{name}",
            message=f"there is no such parameter{hint}{listed}",
            allowed=tuple(known),
        )


def _allowed(error: jsonschema.ValidationError) -> tuple[Any, ...]:
    if error.validator == "enum" and isinstance(error.validator_value, list):
        return tuple(error.validator_value)
    return (error.validator_value,) if error.validator == "const" else ()


def _message(error: jsonschema.ValidationError) -> str:
    shown = json.dumps(error.instance, ensure_ascii=False)
    shown = shown if len(shown) <= SHOWN_VALUE else f"{shown[: SHOWN_VALUE - 3]}..."
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            names = [wanted] if isinstance(wanted, str) else list(wanted)
            return f"must be {' or '.join(map(_with_article, names))}, not {shown}"
        case "enum":
            values = ", ".join(json.dumps(value, ensure_ascii=False) for value in wanted)
            return f"must be one of {values}, not {shown}"
        case "const":
            return f"must be {json.dumps(wanted, ensure_ascii=False)}, not {shown}"
        case "minimum":
            return f"must be at least {wanted}, not {shown}"
        case "maximum":
            return f"must be at most {wanted}, not {shown}"
        case "pattern":
            return f"must match the pattern {wanted}, which {shown} does not"
        case "format":
            return f"must be in the format {wanted}, not {shown}"
        case _:
            return error.message


def _with_article(kind: str) -> str:
    words = {"null": "nothing", "string": "a text"}
    return words.get(kind) or f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _description(schema: Any) -> str:
    if not isinstance(schema, dict):
        return ""
    return str(schema.get("description") or schema.get("title") or "").strip()
