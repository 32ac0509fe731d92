"""What every operation of REST v1 has in common."""

import base64
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import event

from slapos.master.database import Database
from slapos.master.rest.operation import operation_of
from slapos.master.settings import Settings
from tests.fakes import FakeClock
from tests.integration.master.rest_application import rest_application


@pytest.fixture
def tried(database: Database, clock: FakeClock, settings: Settings) -> FlaskClient:
    return rest_application(database, clock, settings).test_client()


def make(tried: FlaskClient, title: str) -> None:
    assert tried.post("/v1/tried", json={"title": title}).status_code == 201


def refusal(answer: Any) -> tuple[int, str, dict[str, str]]:
    told = answer.get_json()
    fields = {each["field"]: each["message"] for each in told["fields"]}
    return answer.status_code, told["error"], fields


def test_what_is_made_is_answered_with_its_place(tried: FlaskClient) -> None:
    answer = tried.post("/v1/tried", json={"title": "one"})
    assert answer.status_code == 201
    assert answer.location == "/v1/tried/one"
    shown = {"reference": "one", "title": "one", "created_at": "2026-03-01T12:00:00+00:00"}
    assert answer.get_json() == shown
    assert tried.get("/v1/tried/one").get_json() == shown


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"title": "it is missing"}),
        ({"title": 1}, {"title": "it must be a text"}),
        ({"title": ""}, {"title": "string should have at least 1 character"}),
        ({"title": "x", "colour": "red"}, {"colour": "there is no such field"}),
        ({"title": "x", "partitions": "1"}, {"partitions": "it must be a whole number"}),
        ({"title": "x", "labels": ["a", 2]}, {"labels.1": "it must be a text"}),
        ({"title": "x\0"}, {}),
        ({"title": "x", "labels": [{"\0": 1}]}, {}),
    ],
)
def test_a_wrong_field_is_named(
    tried: FlaskClient, body: dict[str, Any], fields: dict[str, str]
) -> None:
    assert refusal(tried.post("/v1/tried", json=body)) == (400, "invalid", fields)


def test_what_is_wrong_is_not_repeated(tried: FlaskClient) -> None:
    """It may be a secret in the wrong field."""
    answer = tried.post("/v1/tried", json={"title": ["5ecret"], "partitions": "5ecret"})
    assert answer.status_code == 400
    assert b"5ecret" not in answer.data


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_document"),
        (b"[]", "application/json", 400, "malformed_document"),
        (b"[" * 100_000, "application/json", 400, "malformed_document"),
        (b'{"title": "\xff"}', "application/json", 400, "malformed_document"),
        (b'{"title": "x", "partitions": NaN}', "application/json", 400, "invalid"),
        (b'{"title": "\\ud800"}', "application/json", 400, "invalid"),
        (b'{"title": "x"}', "text/plain", 415, "unsupported_content"),
        (b"title=x", "application/x-www-form-urlencoded", 415, "unsupported_content"),
    ],
)
def test_only_json_is_taken(
    tried: FlaskClient, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = tried.post("/v1/tried", data=content, content_type=kind)
    assert (answer.status_code, answer.get_json()["error"]) == (status, code)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("colour=red", "colour"),
        ("after=x", "after"),
        ("after=é", "after"),
        ("after=" + "9" * 2001, "after"),
    ],
)
def test_a_wrong_question_is_named(tried: FlaskClient, query: str, field: str) -> None:
    assert list(refusal(tried.get(f"/v1/tried?{query}"))[2]) == [field]


def test_nothing_is_asked_of_who_takes_no_question(tried: FlaskClient) -> None:
    make(tried, "one")
    assert refusal(tried.get("/v1/tried/one?x=1"))[2] == {"x": "there is no such field"}


def test_pages_give_all_and_each_once(tried: FlaskClient, clock: FakeClock) -> None:
    """Also those of one moment, and while others come."""
    for number in range(7):
        make(tried, f"node-{number}")
        clock.advance(number % 2)
    seen, after = [], ""
    while True:
        page = tried.get(f"/v1/tried?limit=3{after}").get_json()
        seen += [node["title"] for node in page["nodes"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
        make(tried, f"late-{len(seen)}")
        clock.advance(1)
    assert seen == [f"node-{number}" for number in reversed(range(7))]


def test_a_page_is_filtered(tried: FlaskClient) -> None:
    for title in ("a", "b"):
        make(tried, title)
    found = tried.get("/v1/tried?title=b&label=x&label=y").get_json()
    assert [node["title"] for node in found["nodes"]] == ["b"]


def cursor(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def test_a_cursor_is_checked(tried: FlaskClient) -> None:
    for title in ("a", "b"):
        make(tried, title)
    given = tried.get("/v1/tried?limit=1").get_json()["next"]
    check = json.loads(base64.urlsafe_b64decode(given + "=="))[0]
    assert tried.get(f"/v1/tried?after={given}").status_code == 200
    for wrong in (
        cursor(),
        cursor(check),
        cursor("other", "2026-03-01T12:00:00+00:00", 1),
        cursor(check, "2026-03-01T12:00:00", 1),
        cursor(check, "2026-03-01T12:00:00+00:00", "1"),
        cursor(check, "2026-03-01T12:00:00+00:00", 2**70),
        cursor(check, "2026-03-01T12:00:00+00:00", True),
        cursor(check, "x", 1),
        base64.urlsafe_b64encode(b"\xff").decode(),
    ):
        assert refusal(tried.get(f"/v1/tried?after={wrong}"))[2].keys() == {"after"}


def test_who_has_an_answer_does_not_get_it_again(tried: FlaskClient) -> None:
    make(tried, "one")
    first = tried.get("/v1/tried/one")
    tag = first.headers["ETag"]
    assert tag.startswith('W/"')
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = tried.get("/v1/tried/one", headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert tried.get("/v1/tried/one", headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_change_of_what_is_different_now_is_refused(tried: FlaskClient) -> None:
    make(tried, "one")
    tag = tried.get("/v1/tried/one").headers["ETag"]
    answer = tried.delete("/v1/tried/one", headers={"If-Match": '"other"'})
    assert (answer.status_code, answer.get_json()["error"]) == (412, "precondition_failed")
    assert tried.delete("/v1/tried/one", headers={"If-Match": tag}).status_code == 204
    assert tried.get("/v1/tried/one").status_code == 404


def test_a_state_that_is_not_looked_at_cannot_be_named(tried: FlaskClient) -> None:
    answer = tried.post("/v1/tried", json={"title": "one"}, headers={"If-Match": '"x"'})
    assert answer.status_code == 400
    assert tried.get("/v1/tried/one").status_code == 404


def test_a_change_of_whatever_is_there_now(tried: FlaskClient) -> None:
    make(tried, "one")
    answer = tried.delete("/v1/tried/one", headers={"If-Match": "*"})
    assert (answer.status_code, answer.data) == (204, b"")


def test_a_page_is_one_statement_by_an_index(tried: FlaskClient, database: Database) -> None:
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    tried.get("/v1/tried?limit=1")
    assert len([each for each in asked if each.startswith("SELECT")]) == 1


def described(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").get_json()
    return found


def test_what_is_described_is_an_openapi_document(client: FlaskClient, tried: FlaskClient) -> None:
    for each in (client, tried):
        OpenAPIV31SpecValidator(described(each)).validate()


def test_each_operation_is_described(app: Flask, client: FlaskClient) -> None:
    """A view of /v1 without `@rest.operation` fails here."""
    paths = described(client)["paths"]
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/v1/")]
    assert rules
    for rule in rules:
        assert operation_of(app.view_functions[rule.endpoint]) is not None, rule.rule
    operations = sum(len(path) for path in paths.values())
    methods = sum(len(rule.methods - {"HEAD", "OPTIONS"}) for rule in rules if rule.methods)
    assert operations == methods + 1  # the description itself


def test_a_description_says_what_is_taken_and_answered(tried: FlaskClient) -> None:
    document = described(tried)
    making = document["paths"]["/v1/tried"]["post"]
    schema = making["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/NewNode"}
    assert document["components"]["schemas"]["NewNode"]["required"] == ["title"]
    assert set(making["responses"]) == {"201", "400", "409", "default"}
    listed = document["paths"]["/v1/tried"]["get"]
    names = {each["name"] for each in listed["parameters"]}
    assert names == {"limit", "after", "title", "label", "If-None-Match"}
    removing = document["paths"]["/v1/tried/{reference}"]["delete"]
    assert "content" not in removing["responses"]["204"]
    assert removing["parameters"][0] == {
        "name": "reference",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
    }
