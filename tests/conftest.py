"""What every test may ask for; a test that asks for a database runs on each kind of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from slapos.master.app import create_app
from slapos.master.database import Database, open_database
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.settings import Settings, database_url
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql, SqliteTemplate
from tests.fakes import FakeClock, FakeIdentifiers

KINDS = ("sqlite", "postgresql")

# No database of examples: whoever runs the tests may not write here. No deadline: it may be busy.
hypothesis.settings.register_profile("slapos", database=None, deadline=None)
hypothesis.settings.load_profile("slapos")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def policy() -> LocalPolicy:
    return LocalPolicy("computer")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    server = Postgresql()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> SqliteTemplate:
    return SqliteTemplate(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=KINDS)
def empty_database_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What an operator writes as database_uri, for a database with nothing in it."""
    if request.param == "sqlite":
        yield str(tmp_path / "empty.db")
        return
    server: Postgresql = request.getfixturevalue("postgresql")
    yield server.url(server.empty())


@pytest.fixture(autouse=True)
def _umask_as_before() -> Iterator[None]:
    """Commands set their umask, also those that a test runs in its own process."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture(params=KINDS)
def database_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What an operator writes as database_uri, for a database with today's schema."""
    if request.param == "sqlite":
        template: SqliteTemplate = request.getfixturevalue("sqlite_template")
        template.copy_to(tmp_path / "master.db")
        yield str(tmp_path / "master.db")
        return
    server: Postgresql = request.getfixturevalue("postgresql")
    name = server.migrated()
    yield server.url(name)
    server.give_back(name)


@pytest.fixture
def settings(database_uri: str) -> Settings:
    return Settings(
        database_url=database_url(database_uri),
        software_products={"hello": "https://example.org/hello/software.cfg"},
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    found = open_database(settings.database_url, threads=settings.threads)
    count_exchanges(found.writing, SystemIdentifiers())
    yield found
    found.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A writing session, for services; it is not committed."""
    with database.writing() as session:
        yield session


@pytest.fixture
def app(settings: Settings, clock: FakeClock) -> Iterator[Flask]:
    app = create_app(settings, clock, FakeIdentifiers())
    yield app
    app.extensions["slapos"].database.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
