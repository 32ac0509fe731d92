"""The fast lane of a full master beneath its own web server: over TLS, on connections kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask
from sqlalchemy import event

from slapos.master.certificates import service as certificates
from slapos.master.certificates.showing import read_shown
from slapos.master.database import Database
from slapos.master.settings import Settings
from slapos.system.clock import SystemClock
from tests.integration.master.test_tls_server import Machine, application, in_session, until
from tests.integration.master.web_server import served

LOOKOUTS = (
    "FROM pg_stat_activity WHERE datname = current_database() "
    "AND starts_with(query, 'PREPARE slapos_look')"
)


@contextmanager
def connection_of(machine: Machine) -> Iterator[requests.Session]:
    """Give a connection that is kept."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(machine.folder / "authority.pem")
        session.cert = (str(machine.folder / "certificate.pem"), str(machine.folder / "key.pem"))
        yield session


def long_ways(app: Flask) -> list[str]:
    """Return a list of what the application, and not the lane, asks the database from now on."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "certificates.serial" in statement:
            found.append(statement)

    event.listen(app.extensions["slapos"].database.engine, "before_cursor_execute", note)
    return found


def url_of(port: int, machine: Machine) -> str:
    return f"https://127.0.0.1:{port}/getFullComputerInformation?computer_id={machine.reference}"


def past_the_application(session: requests.Session, url: str, asked: list[str]) -> bool:
    """Ask, and return whether the application had nothing to do with it."""
    asked.clear()
    answer = session.get(url, timeout=30)
    assert answer.status_code == 200, answer.text
    return not asked


def test_what_a_node_asks_again_is_answered_past_the_application(
    settings: Settings, tmp_path: Path
) -> None:
    app = application(settings, tmp_path, tls=True)
    machine, other = (Machine.join(app, tmp_path / name) for name in ("edge", "other"))
    asked = long_ways(app)
    with served(app) as port, connection_of(machine) as mine, connection_of(other) as others:
        url = url_of(port, machine)
        until(lambda: past_the_application(mine, url, asked))
        first = mine.get(url, timeout=30)
        again = mine.get(url, headers={"If-None-Match": first.headers["ETag"]}, timeout=30)
        assert (again.status_code, asked) == (304, [])
        assert others.get(url, timeout=30).status_code == 404
        serial = read_shown(_der(machine)).serial
        in_session(app, lambda session: certificates.revoke(session, SystemClock(), serial))
        refused = mine.get(url, timeout=30)
        assert refused.status_code == 401
        assert "revoked" in refused.text


def _der(machine: Machine) -> bytes:
    return machine.certificate.public_bytes(Encoding.DER)


def test_a_request_is_read_once_however_it_is_answered(settings: Settings, tmp_path: Path) -> None:
    """What the lane has looked at and not answered comes to the application in whole."""
    app = application(settings, tmp_path, tls=True)
    machine = Machine.join(app, tmp_path / "edge")
    with served(app) as port, connection_of(machine) as mine:
        url = f"https://127.0.0.1:{port}/requestComputerPartition"
        for _ in range(3):
            answer = mine.post(url, data={"software_release": "x"}, timeout=30)
            assert answer.status_code == 403, answer.text  # it is a node, and names no instance


@pytest.mark.parametrize("database_uri", ["postgresql"], indirect=True)
def test_a_look_that_is_cut_off_costs_no_answer(
    settings: Settings, tmp_path: Path, database: Database
) -> None:
    app = application(settings, tmp_path, tls=True)
    machine = Machine.join(app, tmp_path / "edge")
    asked = long_ways(app)
    with served(app) as port, connection_of(machine) as mine:
        url = url_of(port, machine)
        with database.looking.connect() as other:
            for _ in range(2):  # at first, and again once it was cut off
                until(lambda: past_the_application(mine, url, asked) and _count(other) == 1)
                other.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {LOOKOUTS}")
                assert mine.get(url, timeout=30).status_code == 200
    with database.looking.connect() as watcher:
        until(lambda: _count(watcher) == 0)


def _count(connection: Any) -> int:
    found: int = connection.exec_driver_sql(f"SELECT count(*) {LOOKOUTS}").scalar_one()
    return found


def test_many_ask_at_once_and_each_is_told_its_own(settings: Settings, tmp_path: Path) -> None:
    app = application(settings, tmp_path, tls=True)
    machines = [Machine.join(app, tmp_path / f"edge{number}") for number in range(4)]
    with served(app) as port, ThreadPoolExecutor(len(machines)) as pool:

        def ask(machine: Machine) -> list[bool]:
            with connection_of(machine) as mine:
                texts = [mine.get(url_of(port, machine), timeout=30).text for _ in range(50)]
            return [machine.reference in text for text in texts]

        assert list(pool.map(ask, machines)) == [[True] * 50] * len(machines)
