"""Defaults and types that a schema adds to parameters."""

import json
from typing import Any

import pytest

from slapos.protocol.descriptor import BrokenDescriptor
from slapos.protocol.parameter_defaults import ParameterDefaults

URL = "file:///release/input.json"


def made(schema: Any, **others: Any) -> ParameterDefaults:
    documents = {URL: schema, **{f"file:///release/{name}": o for name, o in others.items()}}

    def fetch(url: str) -> bytes:
        if url not in documents:
            raise FileNotFoundError(2, "No such file")
        return json.dumps(documents[url]).encode()

    return ParameterDefaults(URL, fetch)


def properties(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named}


def test_defaults_fill_what_is_not_given() -> None:
    schema = properties(a={"default": 1}, b={"default": 2}, c={})
    assert made(schema).with_defaults({"b": 3}) == {"a": 1, "b": 3}


def test_what_was_given_is_not_changed() -> None:
    given: dict[str, Any] = {"in": {}}
    schema = properties(**{"in": properties(x={"default": [1]})})
    assert made(schema).with_defaults(given) == {"in": {"x": [1]}}
    assert given == {"in": {}}


def test_objects_and_lists_are_filled_within() -> None:
    item = properties(x={"default": 1})
    schema = properties(o={**item, "default": {}}, l={"items": item}, absent=item)
    value = made(schema).with_defaults({"l": [{}, {"x": 2}]})
    assert value == {"o": {"x": 1}, "l": [{"x": 1}, {"x": 2}]}


def test_references_are_followed() -> None:
    schema: dict[str, Any] = {
        "allOf": [{"$ref": "other.json#/$defs/s"}],
        **properties(y={"$ref": "#/$defs/d"}),
    }
    schema["$defs"] = {"d": {"default": "here"}}
    other = {"$defs": {"s": properties(x={"default": "there"})}}
    assert made(schema, **{"other.json": other}).with_defaults({}) == {"x": "there", "y": "here"}


@pytest.mark.parametrize(("kind", "added"), [("a", {"x": 1}), ("b", {"y": 2}), ("c", {})])
def test_only_the_branch_that_fits_counts(kind: str, added: dict[str, int]) -> None:
    def branch(name: str, **more: Any) -> Any:
        return properties(kind={"const": name}, **more)

    schema: dict[str, Any] = {
        "oneOf": [branch("a", x={"default": 1}), branch("b", y={"default": 2})]
    }
    assert made(schema).with_defaults({"kind": kind}) == {"kind": kind, **added}
    schema = {
        "if": branch("a"),
        "then": properties(x={"default": 1}),
        "else": {"anyOf": [branch("b", y={"default": 2})]},
    }
    assert made(schema).with_defaults({"kind": kind}) == {"kind": kind, **added}


def test_text_becomes_what_the_schema_wants() -> None:
    schema = properties(
        i={"type": "integer"},
        n={"type": "number"},
        b={"type": "boolean"},
        s={"type": "string"},
        either={"type": ["string", "integer"]},
        l={"items": {"type": "integer"}},
        bad={"type": "integer"},
    )
    given = {"i": "3", "n": "0.5", "b": "True", "s": "3", "either": "3", "l": ["1"], "bad": "x"}
    assert made(schema).with_types(given) == {
        "i": 3,
        "n": 0.5,
        "b": True,
        "s": "3",
        "either": "3",
        "l": [1],
        "bad": "x",
    }


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    schema = {"$ref": "#", **properties(deeper={"$ref": "#", "default": {}})}
    assert made(schema).with_types({"deeper": {"deeper": "x"}})["deeper"] == {"deeper": "x"}
    assert made(schema).with_defaults({"deeper": {}})["deeper"]["deeper"]["deeper"] is not None


@pytest.mark.parametrize("schema", [{"$ref": "gone.json"}, {"$ref": "#/none"}])
def test_a_broken_reference_is_told(schema: Any) -> None:
    with pytest.raises(BrokenDescriptor):
        made(schema).with_defaults({})
