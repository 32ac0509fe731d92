"""What holds of every page, form and operation, whatever is added: walked over all routes."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from werkzeug.routing import Rule

from slapos.master.http import SAFE_METHODS
from slapos.master.identity.caller import Role
from slapos.master.settings import Settings
from tests.fakes import FakeClock
from tests.integration.master.people import PASSWORD, People

EMAIL = "administrator@example.com"
#: By design: whom it sends to an OpenID provider it has to know again.
WRITES = frozenset({"panel.go_to_provider"})
OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def people(settings: Settings, clock: FakeClock, tmp_path: Path) -> Iterator[People]:
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    secret.chmod(0o600)
    people = People(replace(settings, secret_file=secret), clock)
    people.project("shop", people.person(EMAIL, (None, Role.ADMINISTRATOR)))
    yield people
    people.close()


def path_of(rule: Rule) -> str:
    """Return a path of a route."""
    path = re.sub(r"<any\(['\"]?(\w+)[^)]*\):\w+>", r"\1", rule.rule)
    return re.sub(r"<(\w+:)?\w+>", lambda found: "7" if found[1] == "int:" else "PROJ-2", path)


def routes(people: People, *, changing: bool) -> Iterator[tuple[str, str, str]]:
    """Yield endpoint, method and path of each route that changes something, or that does not."""
    for rule in people.app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if (method not in SAFE_METHODS) is changing:
                yield rule.endpoint, method, path_of(rule)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example.com"},
    ],
    ids=str,
)
def test_no_form_or_operation_is_had_by_a_page_of_another_site(
    people: People, headers: dict[str, str]
) -> None:
    client = people.signed_in(EMAIL)
    writes = statements(people)
    found = list(routes(people, changing=True))
    assert len(found) > 50
    for endpoint, method, path in found:
        answer = client.open(path, method=method, headers=headers, data={"title": "x"})
        assert answer.status_code == 403, (endpoint, answer.text)
        assert "another site" in answer.text, (endpoint, answer.text)
    assert writes == []


def test_no_get_changes_anything(people: People) -> None:
    client = people.signed_in(EMAIL)
    writes = statements(people)
    found = [each for each in routes(people, changing=False) if each[0] not in WRITES]
    assert len(found) > 50
    for endpoint, _method, path in found:
        answer = client.get(path, query_string={"token": "x"} if "panel" in endpoint else {})
        assert answer.status_code < 500, (endpoint, answer.text)
        # What was refused is counted, whatever the method.
        kept = [each for each in writes if not each.startswith(REFUSALS)]
        assert kept == [], endpoint


REFUSALS = tuple(
    f"{act} {table}"
    for act in ("INSERT INTO", "UPDATE")
    for table in ("refusals", "audit_log", "sign_in_attempts")
)


def statements(people: People) -> list[str]:
    """Note from now on what is written into the database."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            found.append(statement)

    event.listen(people.parts.database.engine, "before_cursor_execute", note)
    return found


def test_every_page_is_protected(people: People) -> None:
    stranger, client = people.nobody(), people.signed_in(EMAIL)
    shown = 0
    for endpoint, _method, path in routes(people, changing=False):
        for asking in (stranger, client):
            answer = asking.get(path, query_string={"token": "x"}, base_url="https://x")
            headers = answer.headers
            assert headers["X-Content-Type-Options"] == "nosniff", endpoint
            assert headers["X-Frame-Options"] == "DENY", endpoint
            assert headers["Referrer-Policy"] == "no-referrer", endpoint
            assert "max-age=" in headers["Strict-Transport-Security"], endpoint
            assert "Server" not in headers, endpoint
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy, endpoint
            assert "frame-ancestors 'none'" in policy, endpoint
            assert "unsafe" not in policy, endpoint
            if headers["Content-Type"].startswith("text/html"):
                shown += 1
                assert "<script" not in answer.text
                assert not re.search(r"\son\w+=|\sstyle=|javascript:", answer.text), endpoint
                assert headers["Cache-Control"] == "no-store", endpoint
    assert shown > 5


def test_every_cookie_is_for_this_host_tls_and_no_script(people: People) -> None:
    client = people.signed_in(EMAIL)
    client.post("/v1/me/second-factor")
    answers = [
        people.sign_in(people.nobody(), EMAIL),
        client.post("/sign-out", headers=OWN),
        people.nobody().post("/sign-in", data={"email": EMAIL, "password": PASSWORD}, headers=OWN),
    ]
    found = [cookie for each in answers for cookie in each.headers.getlist("Set-Cookie")]
    assert len(found) >= 3
    for cookie in found:
        name, *attributes = (part.strip() for part in cookie.split(";"))
        assert name.startswith("__Host-slapos")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes), cookie
        assert not any(each.startswith("Domain") for each in attributes)
