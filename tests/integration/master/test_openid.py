"""Signing in at an OpenID provider: a real one over HTTP, and one that lies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import ECKey, OctKey
from werkzeug.test import TestResponse

from slapos.master.identity import service
from slapos.master.settings import Settings, database_url
from tests.database import SqliteTemplate
from tests.fakes import FakeClock
from tests.integration.master.openid_provider import (
    CLIENT,
    SECRET,
    OpenidProvider,
    started_provider,
)
from tests.integration.master.people import People
from tests.integration.master.test_second_factor import enrol, present_code

EMAIL = "customer-1@example.com"


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[OpenidProvider]:
    with started_provider() as provider:
        provider.now = int(clock.now().timestamp())
        yield provider


@pytest.fixture
def people(
    provider: OpenidProvider, tmp_path: Path, sqlite_template: SqliteTemplate, clock: FakeClock
) -> Iterator[People]:
    sqlite_template.copy_to(tmp_path / "master.db")
    (tmp_path / "client").write_text(f"{SECRET}\n")
    settings = Settings(
        database_url=database_url(str(tmp_path / "master.db")),
        openid_issuer=provider.issuer,
        openid_client_id=CLIENT,
        openid_client_secret_file=tmp_path / "client",
        openid_title="Example",
        secret_file=tmp_path / "secret",
    )
    (tmp_path / "secret").write_text("s" * 64)
    (tmp_path / "secret").chmod(0o600)
    people = People(replace(settings), clock)
    yield people
    people.close()


def go(client: FlaskClient, provider: OpenidProvider) -> TestResponse:
    """Go to the provider and back."""
    sent = client.get("/sign-in/openid?next=/account")
    assert sent.status_code == 303, sent.text
    return client.get("/sign-in/openid/back", query_string=provider.authorise(sent.location))


def is_refused(answer: TestResponse) -> bool:
    return answer.status_code in (401, 403) and "Set-Cookie" not in answer.headers


def test_who_is_known_there_is_known_here(people: People, provider: OpenidProvider) -> None:
    reference = people.person(EMAIL, password=False)
    client = people.nobody()
    assert "Sign in with Example" in client.get("/sign-in").text
    answer = go(client, provider)
    assert (answer.status_code, answer.location) == (303, "/account")
    assert client.get("/v1/me").get_json()["reference"] == reference
    # From now on she is known by issuer and subject, whatever her e-mail address is there.
    provider.claims = {"email": "other@example.com", "email_verified": False}
    again = people.nobody()
    assert go(again, provider).location == "/account"
    assert again.get("/v1/me").get_json()["reference"] == reference
    assert provider.asked.count("GET /.well-known/openid-configuration") == 1


def test_the_provider_does_not_go_around_a_second_factor(
    people: People, provider: OpenidProvider
) -> None:
    people.person(EMAIL)
    secret, _ = enrol(people, people.signed_in(EMAIL))
    client = people.nobody()
    sent = go(client, provider)
    assert sent.location == "/sign-in/code?next=/account"
    assert client.get("/v1/me").status_code == 401
    typed = {"code": present_code(people, secret), "next": "/account"}
    assert client.post("/sign-in/code", data=typed).location == "/account"
    assert client.get("/v1/me").status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "stranger@example.com"},
        {"iss": "https://other.example.com"},
        {"aud": "another"},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": 7},
    ],
    ids=str,
)
def test_what_does_not_fit_lets_nobody_in(
    people: People, provider: OpenidProvider, claims: dict[str, Any]
) -> None:
    people.person(EMAIL)
    provider.claims = claims
    client = people.nobody()
    answer = go(client, provider)
    assert is_refused(answer)
    assert client.get("/v1/me").status_code == 401


def test_a_token_signed_by_another_key_or_by_the_secret_lets_nobody_in(
    people: People, provider: OpenidProvider
) -> None:
    people.person(EMAIL)
    provider.signing_key = ECKey.generate_key("P-256", parameters={"kid": "1"})
    assert is_refused(go(people.nobody(), provider))
    provider.algorithm = "HS256"
    provider.signing_key = OctKey.import_key(SECRET.ljust(32))  # type: ignore[assignment]
    assert is_refused(go(people.nobody(), provider))


def test_only_the_browser_that_was_sent_away_comes_back_and_once(
    people: People, provider: OpenidProvider
) -> None:
    people.person(EMAIL)
    client, other = people.nobody(), people.nobody()
    back = provider.authorise(client.get("/sign-in/openid").location)
    foreign = other.get("/sign-in/openid/back", query_string=back)
    assert is_refused(foreign)
    assert is_refused(client.get("/sign-in/openid/back", query_string={**back, "state": "x"}))
    first = client.get("/sign-in/openid/back", query_string=back)
    assert first.status_code == 303
    state = f"__Host-slapos-openid={back['state']}"
    again = people.nobody().get(
        "/sign-in/openid/back", query_string=back, headers={"Cookie": state}
    )
    assert is_refused(again)


def test_who_takes_too_long_or_is_not_let_in_begins_again(
    people: People, provider: OpenidProvider
) -> None:
    people.person(EMAIL)
    client = people.nobody()
    back = provider.authorise(client.get("/sign-in/openid").location)
    people.clock.advance(601)
    assert is_refused(client.get("/sign-in/openid/back", query_string=back))
    sent = provider.authorise(client.get("/sign-in/openid").location)
    denied = {"state": sent["state"], "error": "access_denied"}
    answer = client.get("/sign-in/openid/back", query_string=denied)
    assert answer.status_code == 401
    assert "not let you in" in answer.text


def test_who_is_suspended_stays_out(people: People, provider: OpenidProvider) -> None:
    reference = people.person(EMAIL)
    assert go(people.nobody(), provider).location == "/account"
    with people.session() as session:
        service.suspend_person(session, people.find(session, reference))
    assert is_refused(go(people.nobody(), provider))


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example.com"},
        {"token_endpoint": "http://evil.example.com/token"},
        {"authorization_endpoint": None},
    ],
    ids=str,
)
def test_a_provider_that_says_nonsense_is_told_as_such(
    people: People, provider: OpenidProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    client = people.nobody()
    answer = client.get("/sign-in/openid")
    if answer.status_code == 303:  # it is needed only on the way back
        back = provider.authorise(answer.location)
        answer = client.get("/sign-in/openid/back", query_string=back)
    assert answer.status_code == 502
    assert "This did not work" in answer.text or "Sign in" in answer.text


def test_a_provider_that_is_gone_leaves_passwords(
    people: People, provider: OpenidProvider, tmp_path: Path
) -> None:
    dialogue = people.app.extensions["slapos_openid"]
    gone = replace(dialogue.provider, issuer="http://127.0.0.1:9")
    dialogue.provider = gone
    people.person(EMAIL)
    client = people.nobody()
    assert client.get("/sign-in/openid").status_code == 502
    assert people.sign_in(client, EMAIL).status_code == 200
