"""What a release's JSON schema adds to parameters: its defaults, and types for what came as text.

A branch of `anyOf`, `oneOf` or `if` counts only when the value fits it.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import jsonschema
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from slapos.protocol.descriptor import BrokenDescriptor, Fetch, read_json

#: How deep parameters are followed, and branches within branches.
MAXIMUM_DEPTH = 50


@dataclass(frozen=True)
class _Place:
    """A schema: the URL of its document with a JSON pointer, and what stands there."""

    url: str
    schema: Any

    def below(self, *steps: str | int) -> "_Place":
        """Return what stands deeper."""
        url, schema = self.url, self.schema
        for step in steps:
            schema = schema[step]
            url += "/" + str(step).replace("~", "~0").replace("/", "~1")
        return _Place(url, schema)


class ParameterDefaults:
    """Completes parameters by the schema at a URL; raises BrokenDescriptor when that is broken."""

    def __init__(self, url: str, fetch: Fetch) -> None:
        def retrieve(asked: str) -> Resource[Any]:
            return Resource.from_contents(
                read_json(asked, fetch), default_specification=DRAFT202012
            )

        self._registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
        self._root = self._referred(url, "#")

    def with_defaults(self, value: Any) -> Any:
        """Return a copy of `value`, with the schema's defaults where it says nothing."""
        return self._completed(self._root, copy.deepcopy(value), 0)

    def with_types(self, value: Any) -> Any:
        """Return a copy of `value`, whose texts became the number or boolean that is wanted.

        What cannot become that stays text, for a validation to complain of.
        """
        return self._typed([self._root], copy.deepcopy(value), 0)

    def _completed(self, place: _Place, value: Any, depth: int) -> Any:
        if depth > MAXIMUM_DEPTH:
            return value
        for one in self._applicable(place, value, depth):
            if isinstance(value, dict):
                for name in one.schema.get("properties", {}):
                    inner = one.below("properties", name)
                    if name not in value:
                        self._add_default(inner, value, name)
                    if name in value:
                        value[name] = self._completed(inner, value[name], depth + 1)
            elif isinstance(value, list) and isinstance(one.schema.get("items"), dict):
                value[:] = [self._completed(one.below("items"), v, depth + 1) for v in value]
        return value

    def _add_default(self, place: _Place, value: dict[str, Any], name: str) -> None:
        for one in self._branches([place], ("allOf",)):
            if "default" in one.schema:
                value[name] = copy.deepcopy(one.schema["default"])
                return

    def _applicable(self, place: _Place, value: Any, depth: int) -> Iterator[_Place]:
        """Yield the schemas that say something of this very value."""
        if depth > MAXIMUM_DEPTH:
            return
        for one in self._branches([place], ("allOf",)):
            yield one
            for keyword in ("anyOf", "oneOf"):
                for number in range(len(one.schema.get(keyword, ()))):
                    branch = one.below(keyword, number)
                    if self._fits(branch, value):
                        yield from self._applicable(branch, value, depth + 1)
            if "if" in one.schema:
                then = "then" if self._fits(one.below("if"), value) else "else"
                if then in one.schema:
                    yield from self._applicable(one.below(then), value, depth + 1)

    def _branches(self, places: Iterable[_Place], keywords: tuple[str, ...]) -> list[_Place]:
        """Return schemas, and all that they refer to or are composed of by these keywords."""
        found: dict[str, _Place] = {}
        to_do = [*places]
        while to_do:
            place = to_do.pop(0)
            if place.url in found or not isinstance(place.schema, dict):
                continue
            found[place.url] = place
            if "$ref" in place.schema:
                to_do.append(self._referred(place.url, place.schema["$ref"]))
            for keyword in keywords:
                count = len(place.schema.get(keyword, ()))
                to_do += [place.below(keyword, number) for number in range(count)]
        return [*found.values()]

    def _fits(self, place: _Place, value: Any) -> bool:
        kind = validator_for(self._root.schema, default=jsonschema.Draft202012Validator)
        return bool(kind({"$ref": place.url}, registry=self._registry).is_valid(value))

    def _typed(self, places: list[_Place], value: Any, depth: int) -> Any:
        if depth > MAXIMUM_DEPTH:
            return value
        schemas = self._branches(places, ("allOf", "anyOf", "oneOf"))
        if isinstance(value, dict):
            for name in value:
                inner = [
                    one.below("properties", name)
                    for one in schemas
                    if name in one.schema.get("properties", {})
                ]
                value[name] = self._typed(inner, value[name], depth + 1)
        elif isinstance(value, list):
            inner = [s.below("items") for s in schemas if isinstance(s.schema.get("items"), dict)]
            value[:] = [self._typed(inner, item, depth + 1) for item in value]
        elif isinstance(value, str):
            return _converted(value, [one.schema.get("type") for one in schemas])
        return value

    def _referred(self, base: str, reference: str) -> _Place:
        url = urljoin(base, reference)
        document, _, pointer = url.partition("#")
        try:
            schema = self._registry.resolver(document).lookup(f"#{pointer}").contents
        except (Unresolvable, RecursionError) as error:
            cause = error.__cause__
            if isinstance(cause, BrokenDescriptor):
                raise cause from error
            raise BrokenDescriptor(f"{url} cannot be used: {error}") from error
        return _Place(f"{document}#{pointer}", schema)


def _converted(text: str, given: list[Any]) -> Any:
    types = [name for one in given for name in (one if isinstance(one, list) else [one])]
    if "string" in types:
        return text
    for kind, convert in (("integer", int), ("number", float)):
        if kind in types:
            try:
                return convert(text)
            except ValueError:
                continue
    if "boolean" in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
