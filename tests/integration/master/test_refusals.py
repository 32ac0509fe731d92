"""Who is not let in is in the audit log, and cannot flood it."""

from collections.abc import Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from slapos.master.app import create_app
from slapos.master.audit import refusals
from slapos.master.audit.model import AuditEntry, Refusal
from slapos.master.audit.tasks import TASKS
from slapos.master.identity import attempts, links, sign_in
from slapos.master.identity.caller import Role
from slapos.master.tasks.task import Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.people import PASSWORD, People, code_of

EMAIL = "customer-1@example.com"
WRITE = next(task for task in TASKS if task.name == "write_refusals")


@pytest.fixture
def people(people: People) -> People:
    people.person("administrator@example.com", (None, Role.ADMINISTRATOR))
    return people


def refused(people: People) -> list[Mapping[str, Any]]:
    """Return what the log tells of refusals to an administrator, the oldest first."""
    client = people.signed_in("administrator@example.com")
    found = client.get("/v1/audit?limit=500").get_json()["entries"]
    return [each for each in reversed(found) if each["act"] == "refuse"]


def write(people: People) -> int:
    with people.session() as session:
        parts = people.parts
        turn = Turn(
            session=session,
            clock=people.clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
        )
        return WRITE.run(turn).count


def value(entry: Mapping[str, Any], name: str) -> Any:
    return entry["changes"][name][1]


def test_a_refused_sign_in_is_written_down_and_its_account_sees_it(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.nobody("192.0.2.7")
    assert people.sign_in(client, EMAIL, "not the one").status_code == 401
    (entry,) = refused(people)
    assert (entry["object_kind"], entry["object"]) == ("person", reference)
    assert value(entry, "reason") == "sign_in_refused"
    assert value(entry, "address") == "192.0.2.7"
    assert entry["caller_kind"] == "anonymous"
    assert "not the one" not in str(entry)
    own = people.signed_in(EMAIL).get("/v1/audit?limit=500").get_json()["entries"]
    assert "refuse" in [each["act"] for each in own]


def test_what_was_typed_for_no_account_is_not_written_down(people: People) -> None:
    people.sign_in(people.nobody(), "perhaps-a-password@example.com")
    (entry,) = refused(people)
    assert entry["object"] == "unknown"
    assert "perhaps" not in str(entry)


def test_guesses_are_two_entries_an_hour_and_the_lock_is_one_of_its_own(people: People) -> None:
    people.person(EMAIL)
    client = people.nobody()
    codes = [code_of(people.sign_in(client, EMAIL, "wrong")) for _ in range(12)]
    assert codes.count("sign_in_refused") == attempts.FREE_OF_ACCOUNT
    assert codes.count("too_many_attempts") == 12 - attempts.FREE_OF_ACCOUNT
    assert [value(each, "times") for each in refused(people)] == [1, 1]
    assert write(people) == 0
    people.clock.advance(refusals.TOGETHER.total_seconds())
    assert write(people) == 2
    told = {(value(each, "reason"), value(each, "times")) for each in refused(people)}
    assert told == {
        ("sign_in_refused", 1),
        ("sign_in_refused", attempts.FREE_OF_ACCOUNT),
        ("too_many_attempts", 1),
        ("too_many_attempts", 12 - attempts.FREE_OF_ACCOUNT),
    }
    with people.session() as session:
        assert session.scalar(select(func.count()).select_from(Refusal)) == 0


def test_many_addresses_do_not_flood_the_log(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "APART", 3)
    for number in range(8):
        people.sign_in(people.nobody(f"192.0.2.{number}"), f"{number}@example.com")
    with people.session() as session:
        rows = session.scalars(select(Refusal).order_by(Refusal.count)).all()
        assert [(row.address, row.count) for row in rows][-1] == ("", 5)
        count = session.scalar(
            select(func.count()).select_from(AuditEntry).where(AuditEntry.act == "refuse")
        )
    assert count == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/new-password", {"token": "x", "password": PASSWORD}),
        ("/v1/setup", {"token": "x", "name": "n", "email": EMAIL, "password": PASSWORD}),
        ("/v1/invitations/acceptance", {"token": "x"}),
    ],
)
def test_guessing_links_and_tokens_is_slowed_down_on_all_machines(
    people: People, path: str, body: dict[str, str]
) -> None:
    guesser, other = "2001:db8:1::1", "2001:db8:2::1"
    for _ in range(attempts.FREE_OF_ADDRESS):
        answer = people.nobody(guesser).post(path, json=body)
        assert code_of(answer) == "token_invalid", answer.text
    app = create_app(people.parts.settings, people.clock, FakeIdentifiers())  # another machine
    client = app.test_client()

    def asked(address: str) -> str:
        client.environ_base["REMOTE_ADDR"] = address
        return code_of(client.post(path, json=body))

    assert asked(guesser) == "too_many_attempts"
    assert asked("2001:db8:1::2") == "too_many_attempts"  # of the same customer
    assert asked(other) == "token_invalid"
    people.clock.advance(attempts.LONGEST_WAIT.total_seconds())
    assert asked(guesser) == "token_invalid"
    app.extensions["slapos"].database.close()


def test_pages_of_links_count_as_well(people: People) -> None:
    client = people.nobody("192.0.2.1")
    for _ in range(attempts.FREE_OF_ADDRESS):
        assert client.get("/new-password?token=x").status_code == 403
    assert client.get("/new-password?token=x").status_code == 429
    assert client.get("/invitation?token=x").status_code == 429


def test_a_token_that_does_not_count_is_written_down_once_a_minute(
    people: People, clock: FakeClock
) -> None:
    client = people.with_token("slapos_nonsense")

    def times() -> list[int]:
        return [value(each, "times") for each in refused(people)]

    for _ in range(5):
        assert client.get("/v1/me").status_code == 401
    assert times() == [1]
    clock.advance(61)
    client.get("/v1/me")
    with people.session() as session:
        assert session.scalars(select(Refusal.count)).all() == [6]


def deleted(client: FlaskClient) -> list[str]:
    found = client.get("/v1/audit?limit=500").get_json()["entries"]
    return [each["object"] for each in found if each["act"] == "delete"]


def test_the_end_of_sessions_and_tokens_is_written_down(people: People) -> None:
    reference = people.person(EMAIL)
    client = people.signed_in(EMAIL)
    people.token(client, "read")
    people.signed_in(EMAIL).post("/v1/sign-out")
    found = deleted(client)
    assert [each.partition(" ")[0] for each in found] == ["sign-in"]
    with people.session() as session:
        person = people.find(session, reference)
        links.make_reset_link(session, people.clock, people.parts.identifiers, person, "https://x")
        sign_in.forget_all(session, person.id)
    client = people.signed_in(EMAIL)
    assert len(deleted(client)) == 3  # the other session, and the token
    entries = client.get("/v1/audit?limit=500").get_json()["entries"]
    assert any(each["changes"].get("one_time_links.kind") == [None, "reset"] for each in entries)
