"""Who asks is found out by an index and in one statement, however many people there are."""

from typing import Any

import pytest
from sqlalchemy import event

from slapos.master.identity.caller import Role
from tests.integration.master.people import People
from tests.integration.master.test_query_plans import scans

EMAIL = "customer-1@example.com"
TABLES = {"persons", "memberships", "projects", "sign_ins", "personal_tokens", "sign_in_attempts"}


@pytest.mark.parametrize("shown", ["a token", "a session"])
def test_who_asks_takes_one_statement_that_scans_nothing(people: People, shown: str) -> None:
    project = people.project("shop", people.person("manager-1@example.com"))
    people.person(EMAIL, (project, Role.CUSTOMER))
    client = people.signed_in(EMAIL)
    if shown == "a token":
        client = people.with_token(people.token(client, "read"))
        client.get("/v1/me")  # when it was used is written now, and not for an hour
    asked: list[tuple[str, Any]] = []
    engine = people.parts.database.engine

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    assert client.get("/sign-in").status_code == 303  # it asks for nothing else
    event.remove(engine, "before_cursor_execute", note)
    selects = [each for each in asked if each[0].startswith("SELECT")]
    assert len(selects) == 1, selects
    assert list(scans(engine, selects, TABLES)) == []


def test_signing_in_scans_nothing(people: People) -> None:
    people.person(EMAIL)
    asked: list[tuple[str, Any]] = []
    engine = people.parts.database.engine

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    people.signed_in(EMAIL)
    event.remove(engine, "before_cursor_execute", note)
    assert len(asked) > 5
    assert list(scans(engine, asked, TABLES)) == []
