"""Parameters checked against a release's schema, and errors that point at the field."""

import json
from typing import Any

import pytest

from slapos.protocol.descriptor import BrokenDescriptor
from slapos.protocol.parameter_schema import ParameterSchema

KINTO: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "What the service is called"},
        "workers": {"type": "integer", "minimum": 1, "description": "Processes of gunicorn"},
        "ratio": {"type": "number"},
        "debug": {"type": "boolean"},
        "level": {"enum": ["info", "debug"]},
        "version": {"enum": [1, 2]},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "with.dot": {"type": "integer"},
        "either": {"type": ["integer", "string"]},
        "database": {"$ref": "database.json#/$defs/database"},
    },
}
DATABASE: dict[str, Any] = {
    "$defs": {
        "database": {
            "type": "object",
            "properties": {"port": {"type": "integer", "maximum": 65535}},
            "additionalProperties": False,
        }
    }
}
ROOT = "https://example.com/kinto/in.json"


def schema(document: Any = None, **others: Any) -> ParameterSchema:
    documents = {
        ROOT: KINTO if document is None else document,
        "https://example.com/kinto/database.json": DATABASE,
        **{f"https://example.com/kinto/{name}.json": value for name, value in others.items()},
    }

    def fetch(url: str) -> bytes:
        if url not in documents:
            raise FileNotFoundError(2, "No such file")
        return json.dumps(documents[url]).encode()

    return ParameterSchema(ROOT, fetch)


def said(value: Any, document: Any = None) -> list[str]:
    return [str(problem) for problem in schema(document).problems(value)]


def test_what_fits_has_no_problem() -> None:
    assert said({"name": "a", "workers": 2, "database": {"port": 5432}}) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "$.name: is missing (What the service is called)"),
        (
            {"name": "a", "workers": "two"},
            '$.workers: must be an integer, not "two" (Processes of gunicorn)',
        ),
        (
            {"name": "a", "workers": 0},
            "$.workers: must be at least 1, not 0 (Processes of gunicorn)",
        ),
        ({"name": "a", "level": "loud"}, '$.level: must be one of "info", "debug", not "loud"'),
        (
            {"name": "a", "wokers": 2},
            "$.wokers: there is no such parameter; did you mean 'workers'?",
        ),
        ({"name": "a", "hosts": ["x", 1]}, "$.hosts[1]: must be a text, not 1"),
        (
            {"name": "a", "database": {"port": 70000}},
            "$.database.port: must be at most 65535, not 70000",
        ),
        (
            {"name": "a", "database": {"x": 1}},
            "$.database.x: there is no such parameter (there are: port)",
        ),
    ],
)
def test_a_problem_points_at_its_field(value: Any, problem: str) -> None:
    assert said(value) == [problem]


def test_every_problem_is_told_once() -> None:
    assert len(said({"workers": "two", "wokers": 1})) == 3


def test_allowed_values_are_there_for_programs() -> None:
    (problem,) = schema().problems({"name": "a", "level": "loud"})
    assert problem.allowed == ("info", "debug")


def test_of_alternatives_the_one_that_was_meant_is_judged() -> None:
    document = {
        "properties": {
            "backup": {
                "oneOf": [
                    {"type": "null"},
                    {"type": "object", "properties": {"hour": {"type": "integer"}}},
                ]
            }
        }
    }
    assert said({"backup": {"hour": "x"}}, document) == [
        '$.backup.hour: must be an integer, not "x"'
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"workers": "4"}, {"workers": 4}),
        ({"ratio": "0.5"}, {"ratio": 0.5}),
        ({"ratio": "2"}, {"ratio": 2}),
        ({"debug": "True"}, {"debug": True}),
        ({"name": "4"}, {"name": "4"}),
        ({"version": "2"}, {"version": 2}),
        ({"hosts": '["a", "b"]'}, {"hosts": ["a", "b"]}),
        ({"database.port": "5432"}, {"database": {"port": 5432}}),
        ({"database": '{"port": 1}'}, {"database": {"port": 1}}),
        ({"with.dot": "1"}, {"with.dot": 1}),
        ({"either": "7"}, {"either": 7}),
        ({"either": "seven"}, {"either": "seven"}),
        ({"workers": "four"}, {"workers": "four"}),
        ({"un.known": "1"}, {"un.known": "1"}),
        ({"database.unknown": "1"}, {"database": {"unknown": "1"}}),
    ],
)
def test_words_become_what_the_schema_wants(given: dict[str, str], meant: dict[str, Any]) -> None:
    assert schema().from_strings(given) == meant


def test_types_are_found_in_composed_schemas() -> None:
    document = {
        "allOf": [{"properties": {"a": {"$ref": "#/$defs/count"}}}],
        "$defs": {"count": {"type": "integer"}},
    }
    assert schema(document).from_strings({"a": "1"}) == {"a": 1}


def test_a_schema_that_refers_to_itself_ends() -> None:
    document = {"$ref": "#", "properties": {}}
    assert schema(document).from_strings({"a": "1"}) == {"a": "1"}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"type": "nonsense"}, "is no JSON schema"),
        ([], "is no JSON schema"),
        ({"$ref": "absent.json"}, "absent.json cannot be read"),
        ({"$ref": "#/$defs/absent"}, "cannot be used"),
        ({"$ref": "#"}, "refers to itself"),
    ],
)
def test_a_broken_schema_is_said_to_be_broken(document: Any, reason: str) -> None:
    with pytest.raises(BrokenDescriptor, match=reason):
        schema(document).problems({})
