"""Coming in: the first administrator, passwords, sessions, and those who guess."""

from datetime import timedelta

from argon2 import PasswordHasher
from sqlalchemy import select

from slapos.master.identity import attempts, sign_in
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.credentials import Password, SignIn
from slapos.master.identity.one_way import hash_of
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, People, code_of

EMAIL = "customer-1@example.com"


def test_the_first_administrator_comes_by_a_link_that_is_good_once(people: People) -> None:
    secret, other = people.setup_secret(), people.setup_secret()
    asked = {"token": secret, "name": "operator", "email": "Op@Example.com", "password": PASSWORD}
    client = people.nobody()
    answer = client.post("/v1/setup", json={**asked, "project": "first"})
    assert answer.status_code == 200, answer.get_json()
    me = client.get("/v1/me").get_json()
    assert (me["kind"], me["email"]) == ("person", "op@example.com")
    roles = {(each["role"], each["project"] is None) for each in me["roles"]}
    assert roles == {("administrator", True), ("production_manager", False), ("customer", False)}
    for again in (secret, other, "x"):
        refused = people.nobody().post("/v1/setup", json={**asked, "token": again, "email": EMAIL})
        assert (refused.status_code, code_of(refused)) == (403, "token_invalid")


def test_a_setup_link_ends_after_a_day(people: People) -> None:
    secret = people.setup_secret()
    people.clock.advance(24 * 3600)
    asked = {"token": secret, "name": "operator", "email": EMAIL, "password": PASSWORD}
    assert code_of(people.nobody().post("/v1/setup", json=asked)) == "token_invalid"


def test_a_password_that_is_soon_guessed_is_refused_and_the_link_stays_good(people: People) -> None:
    asked = {"token": people.setup_secret(), "name": "operator", "email": EMAIL}
    for password in ("short", "passwordpassword", "customer-1@example.com", "x" * 257):
        answer = people.nobody().post("/v1/setup", json={**asked, "password": password})
        assert answer.status_code == 400
        assert answer.get_json()["fields"][0]["field"] == "password"
        assert password not in answer.text
    assert (
        people.nobody().post("/v1/setup", json={**asked, "password": PASSWORD}).status_code == 200
    )


def test_who_has_signed_in_is_known_by_a_cookie_that_no_page_can_read(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.nobody()
    assert code_of(client.get("/v1/me")) == "unauthorized"
    answer = people.sign_in(client, " Customer-1@example.com ")
    assert answer.get_json() == {"person": reference}
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-slapos=")
    for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie
    assert client.get("/v1/me").get_json()["reference"] == reference
    shown = client.get_cookie(COOKIE)
    assert shown is not None
    with people.session() as session:
        assert session.scalars(select(SignIn.hash)).all() == [hash_of(shown.value)]


def test_what_is_wrong_is_not_told(people: People) -> None:
    people.person(EMAIL)
    people.person("elsewhere@example.com", password=False)
    client = people.nobody()
    answers = [
        people.sign_in(client, EMAIL, "wrong"),
        people.sign_in(client, "nobody@example.com"),
        people.sign_in(client, "elsewhere@example.com"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert code_of(answers[0]) == "sign_in_refused"


def test_guessing_is_slowed_down_for_accounts_that_are_there_or_not(people: People) -> None:
    people.person(EMAIL)
    for email in (EMAIL, "nobody@example.com"):
        told = []
        for _ in range(6):
            answer = people.sign_in(people.nobody(f"2001:db8::{email[:1]}1:1"[:11]), email, "wrong")
            told.append((answer.status_code, code_of(answer)))
        assert told[:5] == [(401, "sign_in_refused")] * 5
        assert told[5] == (429, "too_many_attempts")
    refused = people.sign_in(people.nobody(), EMAIL)
    assert refused.status_code == 429
    assert "30 seconds" in refused.get_json()["message"]
    people.clock.advance(31)
    assert people.sign_in(people.nobody(), EMAIL).status_code == 200
    assert people.sign_in(people.nobody(), EMAIL, "wrong").status_code == 401


def test_the_wait_grows_and_ends(people: People) -> None:
    waits = []
    for _ in range(12):
        answer = people.sign_in(people.nobody(), EMAIL, "wrong")
        while answer.status_code == 429:
            waits.append(answer.get_json()["message"].rpartition(" in ")[2])
            people.clock.advance(15 * 60)
            answer = people.sign_in(people.nobody(), EMAIL, "wrong")
    assert waits[:4] == ["30 seconds", "60 seconds", "2 minutes", "4 minutes"]
    assert waits[-1] == "15 minutes"
    people.clock.advance(3 * 3600)
    answers = [people.sign_in(people.nobody(), EMAIL, "wrong").status_code for _ in range(5)]
    assert answers == [401] * 5


def test_guessing_many_accounts_from_one_address_is_slowed_down(people: People) -> None:
    people.person(EMAIL)
    for number in range(attempts.FREE_OF_ADDRESS):
        people.sign_in(people.nobody("2001:db8::7"), f"nobody-{number}@example.com", "wrong")
    assert people.sign_in(people.nobody("2001:db8::7"), EMAIL).status_code == 429
    assert people.sign_in(people.nobody("2001:db8::8"), EMAIL).status_code == 429  # a neighbour
    assert people.sign_in(people.nobody("2001:db8:0:1::7"), EMAIL).status_code == 200
    # A web server in front on this machine stands for everybody.
    for number in range(attempts.FREE_OF_ADDRESS):
        people.sign_in(people.nobody("127.0.0.1"), f"somebody-{number}@example.com", "wrong")
    assert people.sign_in(people.nobody("127.0.0.1"), EMAIL).status_code == 200


def test_a_password_kept_the_old_way_is_kept_the_new_way_at_the_next_sign_in(
    people: People,
) -> None:
    reference = people.person(EMAIL)
    weaker = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with people.session() as session:
        sign_in.set_password(session, people.clock, people.find(session, reference).id, weaker)
    people.signed_in(EMAIL)
    with people.session() as session:
        kept = session.scalars(select(Password.hash)).one()
    assert kept != weaker
    people.signed_in(EMAIL)


def test_a_session_ends_when_nobody_uses_it_and_after_a_week(people: People) -> None:
    people.person(EMAIL)
    idle, busy = people.signed_in(EMAIL), people.signed_in(EMAIL)
    for _ in range(23):
        people.clock.advance(7 * 3600)
        assert busy.get("/v1/me").status_code == 200
    assert idle.get("/v1/me").status_code == 401
    people.clock.advance(7 * 3600)
    assert busy.get("/v1/me").status_code == 401
    # One that is over does not keep anybody from signing in again.
    assert people.sign_in(busy, EMAIL).status_code == 200


def test_sessions_are_listed_and_ended(people: People) -> None:
    people.person(EMAIL)
    people.person("customer-2@example.com")
    here, there = people.signed_in(EMAIL), people.signed_in(EMAIL)
    foreign = people.signed_in("customer-2@example.com")
    listed = here.get("/v1/me/sessions").get_json()["sessions"]
    assert len(listed) == 2
    number = listed[1]["id"]
    assert foreign.delete(f"/v1/me/sessions/{number}").status_code == 404
    assert foreign.delete(f"/v1/me/sessions/{10**30}").status_code == 404
    assert here.delete(f"/v1/me/sessions/{number}").status_code == 204
    assert there.get("/v1/me").status_code == 401
    assert here.post("/v1/sign-out").status_code == 204
    assert here.get("/v1/me").status_code == 401


def test_another_password_ends_the_other_sessions(people: People) -> None:
    people.person(EMAIL)
    here, there = people.signed_in(EMAIL), people.signed_in(EMAIL)
    asked = {"present": "wrong", "password": OTHER_PASSWORD}
    assert here.put("/v1/me/password", json=asked).status_code == 401
    asked["present"] = PASSWORD
    assert here.put("/v1/me/password", json=asked).status_code == 204
    assert here.get("/v1/me").status_code == 200
    assert there.get("/v1/me").status_code == 401
    assert people.sign_in(people.nobody(), EMAIL).status_code == 401
    assert people.sign_in(people.nobody(), EMAIL, OTHER_PASSWORD).status_code == 200


def test_a_page_of_another_site_changes_nothing(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
    ):
        answer = client.patch("/v1/me", json={"name": "other"}, headers=headers)
        assert (answer.status_code, code_of(answer)) == (403, "cross_site")
        signing_in = client.post("/v1/sign-in", json={}, headers=headers)
        assert code_of(signing_in) == "cross_site"
    for own in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}, {}):
        assert client.patch("/v1/me", json={"name": "me"}, headers=own).status_code == 200
    assert client.get("/v1/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_who_is_suspended_is_out_at_once_and_comes_back(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.signed_in(EMAIL)
    program = people.with_token(people.token(client, "read"))
    people.person("operator@example.com", (None, "administrator"))  # type: ignore[arg-type]
    operator = people.signed_in("operator@example.com")
    person = f"/v1/persons/{reference}"
    assert operator.patch(person, json={"state": "suspended"}).get_json()["state"] == "suspended"
    assert client.get("/v1/me").status_code == 401
    assert program.get("/v1/me").status_code == 401
    refused = people.sign_in(people.nobody(), EMAIL)
    assert code_of(refused) == "sign_in_refused"
    assert operator.patch(person, json={"state": "active"}).get_json()["state"] == "active"
    assert client.get("/v1/me").status_code == 200


def test_the_time_of_the_last_use_is_kept_coarsely(people: People) -> None:
    people.person(EMAIL)
    client = people.signed_in(EMAIL)
    begun = people.clock.now()
    people.clock.advance(60)
    shown = client.get("/v1/me/sessions").get_json()["sessions"][0]
    assert shown["used_at"] == begun.isoformat()
    people.clock.advance(300)
    client.get("/v1/me")
    shown = client.get("/v1/me/sessions").get_json()["sessions"][0]
    assert shown["used_at"] == (begun + timedelta(seconds=360)).isoformat()
