"""A full master whose people sign in for real."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.http import Assembly
from slapos.master.identity import links, passwords, service, sign_in
from slapos.master.identity.caller import SYSTEM, Role, serve
from slapos.master.identity.model import Person, PersonState, Project
from slapos.master.settings import Profile, Settings
from tests.fakes import FakeClock, FakeIdentifiers

PASSWORD = "a kettle under seven clouds"
OTHER_PASSWORD = "nine gravel roads to the sea"
#: Argon2 takes its time, so once for all.
KEPT = passwords.hash_password(PASSWORD)
URL = "https://master.example.com"


class People:
    """A full master, and how to come in as somebody."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.clock = clock
        self.app: Flask = create_app(
            replace(settings, profile=Profile.FULL), clock, FakeIdentifiers()
        )
        self.parts: Assembly = self.app.extensions["slapos"]

    def close(self) -> None:
        self.parts.database.close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that may all, and commit it."""
        with self.parts.database.writing.begin() as session:
            serve(session, SYSTEM)
            yield session

    def setup_secret(self) -> str:
        with self.session() as session:
            link = links.make_setup_link(session, self.clock, self.parts.identifiers, URL)
        assert link.startswith(f"{URL}/setup?token=")
        return link.partition("token=")[2]

    def person(self, email: str, *roles: tuple[str | None, Role], password: bool = True) -> str:
        """Make somebody who can sign in, with roles in projects (None: everywhere)."""
        with self.session() as session:
            person = service.add_person(
                session, self.clock, email, email.split("@", maxsplit=1)[0], PersonState.ACTIVE
            )
            for project, role in roles:
                found = None if project is None else service.find_project(session, project)
                service.grant(session, self.clock, person, found, role)
            if password:
                sign_in.set_password(session, self.clock, person.id, KEPT)
            return person.reference

    def project(self, title: str, owner: str) -> str:
        with self.session() as session:
            found = service.find_person(session, owner)
            return service.create_project(session, self.clock, title, owner=found).reference

    def nobody(self, address: str = "2001:db8::1") -> FlaskClient:
        """Return a client of somebody who has not signed in."""
        client = self.app.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        return client

    def signed_in(self, email: str) -> FlaskClient:
        """Return a browser in which somebody has signed in."""
        client = self.nobody()
        answer = self.sign_in(client, email)
        assert answer.status_code == 200, answer.get_json()
        return client

    def sign_in(self, client: FlaskClient, email: str, password: str = PASSWORD) -> TestResponse:
        return client.post("/v1/sign-in", json={"email": email, "password": password})

    def token(self, client: FlaskClient, *scopes: str, **fields: Any) -> str:
        """Make a token of who has signed in."""
        expires = self.clock.now().replace(year=self.clock.now().year + 1).isoformat()
        asked = {"title": "ci", "scopes": scopes, "expires_at": expires} | fields
        answer = client.post("/v1/tokens", json=asked)
        assert answer.status_code == 201, answer.get_json()
        return str(answer.get_json()["token"])

    def with_token(self, token: str) -> FlaskClient:
        """Return a program that shows a token."""
        client = self.nobody()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    def find(self, session: Session, reference: str) -> Person:
        return service.find_person(session, reference)

    def find_project(self, session: Session, reference: str) -> Project:
        return service.find_project(session, reference)


def code_of(answer: TestResponse) -> str:
    """Return why something was refused."""
    return str((answer.get_json() or {}).get("error", answer.status_code))
