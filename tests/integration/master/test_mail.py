"""E-mail of a full master, by a real mail server: links, notices, and nothing for strangers."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from sqlalchemy import func, select

from slapos.master.identity import attempts, forgotten
from slapos.master.identity.caller import Role
from slapos.master.mail.model import KnownAddress, Mail
from slapos.master.mail.outbox import SEND
from slapos.master.mail.tasks import FIRST_WAIT, GIVEN_UP
from slapos.master.settings import Settings
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.worker import Doors, make_rows
from tests.fakes import FakeClock
from tests.integration.master.mail_server import PASSWORD as SERVER_PASSWORD
from tests.integration.master.mail_server import (
    MailServer,
    started_mail_server,
    started_plain_mail_server,
)
from tests.integration.master.people import OTHER_PASSWORD, PASSWORD, URL, People, code_of
from tests.integration.master.test_second_factor import enrol

EMAIL = "customer-1@example.com"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with started_mail_server(tmp_path_factory.mktemp("mail")) as server:
        yield server


@pytest.fixture
def server(started: MailServer) -> MailServer:
    started.got.clear()
    started.recipients.clear()
    started.refusals.clear()
    return started


@pytest.fixture
def people(
    settings: Settings, clock: FakeClock, tmp_path: Path, server: MailServer
) -> Iterator[People]:
    for name, text in (("secret", "s" * 64), ("smtp-password", SERVER_PASSWORD)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    settings = replace(
        settings,
        secret_file=tmp_path / "secret",
        public_url=f"{URL}/",
        smtp_url=server.url,
        smtp_password_file=tmp_path / "smtp-password",
        smtp_ca_file=server.authorities,
        mail_from="SlapOS <master@example.com>",
    )
    people = People(settings, clock)
    yield people
    people.close()


def settle(people: People) -> None:
    """Have the task send what is to be sent now."""
    parts = people.parts
    doors = Doors(
        database=parts.database,
        clock=parts.clock,
        identifiers=parts.identifiers,
        settings=parts.settings,
        policy=parts.policy,
    )
    chosen = {SEND: replace(TASKS[SEND], every=None)}
    make_rows(doors, chosen)
    runner = Runner(doors, chosen)
    for _ in range(20):
        if runner.round():
            return
    raise AssertionError("it never comes to an end")


def subjects(people: People, server: MailServer) -> list[str]:
    settle(people)
    found = [str(each["Subject"]) for each in server.got]
    server.got.clear()
    return found


def link_in(server: MailServer) -> str:
    found = re.search(rf"{URL}/\S+\?token=(\S+)", server.got[-1].get_content())
    assert found is not None, server.got[-1].get_content()
    return found[1]


def waiting(people: People) -> int:
    with people.session() as session:
        return session.scalar(select(func.count()).select_from(Mail)) or 0


def test_who_has_forgotten_the_password_gets_a_link_that_is_good_once(
    people: People, server: MailServer
) -> None:
    people.person(EMAIL)
    client = people.nobody()
    assert client.post("/v1/forgotten-password", json={"email": EMAIL.upper()}).status_code == 204
    settle(people)
    (message,) = server.got
    assert server.recipients == [EMAIL]
    assert str(message["From"]) == "SlapOS <master@example.com>"
    assert message["Message-ID"].endswith("@example.com>")
    token = link_in(server)
    asked = {"token": token, "password": OTHER_PASSWORD}
    assert client.post("/v1/new-password", json=asked).status_code == 200
    assert code_of(client.post("/v1/new-password", json=asked)) == "token_invalid"
    assert people.sign_in(people.nobody(), EMAIL, OTHER_PASSWORD).status_code == 200
    assert subjects(people, server)[-1] == "Your password was changed"
    assert waiting(people) == 0


def test_nobody_learns_who_has_an_account(people: People, server: MailServer) -> None:
    people.person(EMAIL)
    suspended = people.person("gone@example.com")
    with people.session() as session:
        people.find(session, suspended).suspend()
    told = set()
    for email in (EMAIL, "nobody@example.com", "gone@example.com"):
        for _ in range(forgotten.FREE_OF_ACCOUNT):
            answer = people.nobody().post("/v1/forgotten-password", json={"email": email})
            told.add((answer.status_code, answer.data))
        answer = people.nobody().post("/v1/forgotten-password", json={"email": email})
        assert code_of(answer) == "too_many_attempts"
    assert told == {(204, b"")}
    settle(people)
    assert set(server.recipients) == {EMAIL}
    assert waiting(people) == 0
    page = people.nobody().post("/forgotten-password", data={"email": "x@example.com"})
    assert "If there is an account" in page.text


def test_one_address_does_not_send_to_many(people: People) -> None:
    client = people.nobody("192.0.2.1")
    codes = [
        client.post("/v1/forgotten-password", json={"email": f"{number}@example.com"}).status_code
        for number in range(attempts.FREE_OF_ADDRESS + 1)
    ]
    assert codes == [204] * attempts.FREE_OF_ADDRESS + [429]


def test_an_invitation_is_sent(people: People, server: MailServer) -> None:
    project = people.project("a shop", people.person("manager-1@example.com"))
    manager = people.signed_in("manager-1@example.com")
    asked = {"email": EMAIL, "role": "production_agent"}
    answer = manager.post(f"/v1/projects/{project}/invitations", json=asked)
    assert answer.get_json()["mailed"] is True
    settle(people)
    assert str(server.got[-1]["Subject"]) == "You are invited as production agent in a shop"
    accepted = {"token": link_in(server), "name": "c", "password": PASSWORD}
    assert people.nobody().post("/v1/invitations/acceptance", json=accepted).status_code == 200


def test_people_are_told_of_what_changes_of_their_account(
    people: People, server: MailServer
) -> None:
    reference = people.person(EMAIL)
    people.person("administrator@example.com", (None, Role.ADMINISTRATOR))
    client = people.signed_in(EMAIL)
    assert subjects(people, server) == []  # neither the first password nor the first sign-in
    _, codes = enrol(people, client)
    assert subjects(people, server) == ["Your account has a second factor"]
    client.post("/v1/me/second-factor/removal", json={"code": codes[0]})
    assert subjects(people, server) == ["Your account has no second factor any more"]
    asked = {"present": PASSWORD, "password": OTHER_PASSWORD}
    assert client.put("/v1/me/password", json=asked).status_code == 204
    assert subjects(people, server) == ["Your password was changed"]
    administrator = people.signed_in("administrator@example.com")
    server.recipients.clear()
    path = f"/v1/persons/{reference}"
    assert administrator.patch(path, json={"email": "new@example.com"}).status_code == 200
    assert subjects(people, server) == ["Your account has another e-mail address"]
    assert server.recipients == [EMAIL]  # the one before


def test_a_new_address_of_a_sign_in_is_told_once(people: People, server: MailServer) -> None:
    people.person(EMAIL)
    people.sign_in(people.nobody("192.0.2.1"), EMAIL)
    people.sign_in(people.nobody("192.0.2.1"), EMAIL)
    assert subjects(people, server) == []
    people.sign_in(people.nobody("192.0.2.2"), EMAIL)
    people.sign_in(people.nobody("192.0.2.2"), EMAIL)
    settle(people)
    assert "from 192.0.2.2" in " ".join(server.got[0].get_content().split())
    assert subjects(people, server) == ["You have signed in from a new address"]
    people.sign_in(people.nobody("192.0.2.1"), EMAIL)
    assert subjects(people, server) == []
    with people.session() as session:
        assert "192.0.2" not in str(session.scalars(select(KnownAddress.hash)).all())


def test_a_server_that_does_not_take_it_is_asked_again_and_in_the_end_not(
    people: People, server: MailServer, clock: FakeClock
) -> None:
    people.person(EMAIL)
    people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
    server.refusals.append("451 try again later")
    assert subjects(people, server) == []
    assert waiting(people) == 1
    assert subjects(people, server) == []  # not before its time
    clock.advance(FIRST_WAIT.total_seconds() + 1)
    assert subjects(people, server) == ["A new password"]
    people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
    server.refusals.append("550 nobody of that name")
    assert subjects(people, server) == []
    assert waiting(people) == 0
    people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
    clock.advance(GIVEN_UP.total_seconds())
    server.refusals.append("451 try again later")
    settle(people)
    assert waiting(people) == 0


def test_no_secret_is_in_the_database_or_in_the_log(
    people: People, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    project = people.project("a shop", people.person("manager-1@example.com"))
    manager = people.signed_in("manager-1@example.com")
    asked = {"email": EMAIL, "role": "customer"}
    token = manager.post(f"/v1/projects/{project}/invitations", json=asked).get_json()["token"]
    with people.session() as session:
        assert token not in session.scalars(select(Mail.sealed)).one()
    server.refusals.append("451 try again later")
    settle(people)
    ours = "\n".join(
        each.getMessage() for each in caplog.records if each.name.startswith("slapos.")
    )
    assert "is tried again: the recipient is refused (451)" in ours
    for secret in (token, EMAIL, SERVER_PASSWORD):
        assert secret not in ours


def test_a_server_that_does_not_prove_who_it_is_gets_nothing(
    people: People, server: MailServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "others.pem"))
    other = replace(people.parts.settings, smtp_ca_file=tmp_path / "others.pem")
    people.parts = replace(people.parts, settings=other)
    people.person(EMAIL)
    people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
    assert subjects(people, server) == []
    assert waiting(people) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_mail_server_on_this_machine_needs_no_tls_and_any_other_does(
    people: People, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people.person(EMAIL)
    for host, count in (("127.0.0.1", 1), ("127.0.0.2", 0)):
        with started_plain_mail_server(tmp_path, host) as plain:
            settings = replace(
                people.parts.settings,
                smtp_url=f"smtp://{host}:{plain.port}",
                smtp_password_file=None,
                smtp_ca_file=None,
            )
            people.parts = replace(people.parts, settings=settings)
            people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
            assert len(subjects(people, plain)) == count
    assert waiting(people) == 1


def test_without_a_mail_server_an_administrator_makes_links(
    settings: Settings, clock: FakeClock
) -> None:
    people = People(settings, clock)
    people.person(EMAIL)
    answer = people.nobody().post("/v1/forgotten-password", json={"email": EMAIL})
    assert (answer.status_code, code_of(answer)) == (409, "conflict")
    assert "An administrator can give you a link" in people.nobody().get("/sign-in").text
    assert waiting(people) == 0
    people.close()
