"""Codes beside the password: whole, once each, and what stands in for them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from slapos.master.identity import links, second_factor
from slapos.master.identity.credentials import SecondFactor
from slapos.master.settings import Settings
from tests.fakes import FakeClock
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, URL, People, code_of

EMAIL = "customer-1@example.com"


@pytest.fixture
def people(settings: Settings, clock: FakeClock, tmp_path: Path) -> Iterator[People]:
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    secret.chmod(0o600)
    people = People(replace(settings, secret_file=secret), clock)
    yield people
    people.close()


def present_code(people: People, secret: str, ahead: int = 0) -> str:
    return second_factor.code_at(secret, second_factor.step_of(people.clock) + ahead)


def enrol(people: People, client: FlaskClient) -> tuple[str, list[str]]:
    """Have a second factor; return its secret and the recovery codes."""
    begun = client.post("/v1/me/second-factor").get_json()
    assert begun["uri"].startswith("otpauth://totp/SlapOS%3Acustomer-1%40example.com?secret=")
    code = {"code": present_code(people, begun["secret"])}
    answer = client.post("/v1/me/second-factor/confirmation", json=code)
    assert answer.status_code == 200, answer.text
    people.clock.advance(60)
    return begun["secret"], answer.get_json()["recovery_codes"]


def sign_in(people: People, code: str | None, client: FlaskClient | None = None) -> str:
    asked = {"email": EMAIL, "password": PASSWORD} | ({"code": code} if code else {})
    answer = (client or people.nobody()).post("/v1/sign-in", json=asked)
    return "in" if answer.status_code == 200 else code_of(answer)


def test_a_code_is_asked_for_and_counts_once(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    secret, _ = enrol(people, client)
    assert sign_in(people, None) == "second_factor_needed"
    assert sign_in(people, "000000") == "sign_in_refused"
    code = present_code(people, secret)
    assert sign_in(people, code) == "in"
    assert sign_in(people, code) == "sign_in_refused"
    people.clock.advance(60)
    assert sign_in(people, present_code(people, secret, ahead=1)) == "in"
    people.clock.advance(120)
    assert sign_in(people, present_code(people, secret, ahead=-2)) == "sign_in_refused"
    assert sign_in(people, present_code(people, secret, ahead=-1)) == "in"


def test_a_wrong_password_does_not_tell_of_a_second_factor(people: People) -> None:
    people.person(EMAIL)
    enrol(people, people.signed_in(EMAIL))
    answer = people.sign_in(people.nobody(), EMAIL, "wrong")
    assert code_of(answer) == "sign_in_refused"


def test_guessing_codes_is_slowed_down(people: People) -> None:
    people.person(EMAIL)
    enrol(people, people.signed_in(EMAIL))
    told = [sign_in(people, f"{number:06}") for number in range(6)]
    assert told == ["sign_in_refused"] * 5 + ["too_many_attempts"]


def test_recovery_codes_stand_in_once_each(people: People) -> None:
    people.person(EMAIL)
    _, codes = enrol(people, people.signed_in(EMAIL))
    assert len(set(codes)) == 10
    assert sign_in(people, codes[0]) == "in"
    assert sign_in(people, codes[0]) == "sign_in_refused"
    assert sign_in(people, codes[1].replace("-", "")) == "in"


def test_the_secret_is_sealed_and_told_only_until_it_is_confirmed(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    first = client.post("/v1/me/second-factor").get_json()["secret"]
    assert first in client.get("/account").text
    assert "data:image/svg+xml" in client.get("/account").text
    wrong = client.post("/v1/me/second-factor/confirmation", json={"code": "000000"})
    assert wrong.status_code == 400
    assert sign_in(people, None) == "in"  # not asked for before it is confirmed
    secret, _ = enrol(people, client)
    assert secret not in client.get("/account").text
    assert client.post("/v1/me/second-factor").status_code == 409
    with people.session() as session:
        assert secret not in session.scalars(select(SecondFactor.sealed)).one()


def test_it_is_removed_by_a_last_code_or_by_an_administrator(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.signed_in(EMAIL)
    secret, _ = enrol(people, client)
    removal = "/v1/me/second-factor/removal"
    assert client.post(removal, json={"code": "000000"}).status_code == 401
    token = people.token(client, "operate")
    refused = people.with_token(token).post(removal, json={"code": present_code(people, secret)})
    assert refused.status_code == 403
    assert client.post(removal, json={"code": present_code(people, secret)}).status_code == 204
    assert sign_in(people, None) == "in"
    enrol(people, client)
    with people.session() as session:
        second_factor.remove(session, people.find(session, reference))
    assert sign_in(people, None) == "in"


def test_on_the_pages_the_code_comes_after_the_password(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    client.post("/account/second-factor")
    found = re.search(r'class="secret">(\w{32})<', client.get("/account").text)
    assert found is not None
    secret = found[1]
    wrong = client.post("/account/second-factor/confirmation", data={"code": "000000"})
    assert (wrong.status_code, "not the present one" in wrong.text) == (400, True)
    code = {"code": present_code(people, secret)}
    confirmed = client.post("/account/second-factor/confirmation", data=code)
    assert "Your recovery codes" in confirmed.text
    people.clock.advance(60)
    browser = people.nobody()
    assert browser.get("/sign-in/code").status_code == 403
    asked = {"email": EMAIL, "password": PASSWORD, "next": "/account"}
    answer = browser.post("/sign-in", data=asked)
    assert answer.location == "/sign-in/code?next=/account"
    assert browser.get("/account").location == "/sign-in"
    refused = browser.post("/sign-in/code", data={"code": "000000", "next": "/account"})
    assert (refused.status_code, "The code of your device" in refused.text) == (401, True)
    code = {"code": present_code(people, secret), "next": "/account"}
    assert browser.post("/sign-in/code", data=code).location == "/account"
    assert browser.get("/account").status_code == 200
    people.clock.advance(60)
    removed = browser.post(
        "/account/second-factor/removal", data={"code": present_code(people, secret)}
    )
    assert removed.location == "/account"


def test_a_new_password_by_a_link_does_not_go_around_the_code(people: People) -> None:
    reference = people.person(EMAIL)
    enrol(people, people.signed_in(EMAIL))
    with people.session() as session:
        person = people.find(session, reference)
        link = links.make_reset_link(session, people.clock, people.parts.identifiers, person, URL)
    client, token = people.nobody(), link.partition("token=")[2]
    asked = {"token": token, "password": OTHER_PASSWORD}
    assert client.post("/v1/new-password", json=asked).status_code == 200
    assert client.get("/v1/me").status_code == 401


def test_who_has_a_code_to_type_begins_again_when_the_password_changes(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    secret, _ = enrol(people, client)
    browser = people.nobody()
    browser.post("/sign-in", data={"email": EMAIL, "password": PASSWORD})
    asked = {"present": PASSWORD, "password": OTHER_PASSWORD}
    assert client.put("/v1/me/password", json=asked).status_code == 204
    assert (
        browser.post("/sign-in/code", data={"code": present_code(people, secret)}).status_code
        == 403
    )
