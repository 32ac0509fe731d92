"""Nodes that wait for a change are told of it, whoever makes it, and no change is missed."""

import asyncio
import json
import random
import selectors
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select

from slapos.master.app import create_app
from slapos.master.catalog import service as catalog
from slapos.master.database import Database
from slapos.master.feed.waiting import Feed
from slapos.master.feed.watch import Wake, Watch, watch_of
from slapos.master.http import Assembly
from slapos.master.monitoring.model import WATCH, NodeLoss
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.settings import Settings
from slapos.master.tasks.model import TaskMark
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, URL
from tests.integration.master.programs import client_of, configuration, running
from tests.integration.master.web_server import answer_of, connected, served

#: Long enough that nobody is told because the time is over.
LONG = 50.0


def ask(connection: socket.socket, node: str, **query: object) -> None:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    head = f"GET /v1/nodes/{node}/changes?{words} HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.sendall(head.encode())


def told(connection: socket.socket) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer_of(connection).partition(b"\r\n\r\n")[2])
    return found


def token_of(app: Flask, node: str = NODE) -> str:
    found: str = app.test_client().get(f"/v1/nodes/{node}/changes").get_json()["token"]
    return found


def supply(app: Flask, url: str = URL, node: str = NODE) -> None:
    answer = app.test_client().post("/supplySupply", data={"url": url, "computer_id": node})
    assert answer.status_code == 200


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    with served(app) as port:
        yield port


def test_a_node_that_waits_is_told_of_a_change(app: Flask, port: int) -> None:
    before = token_of(app)
    with connected(port) as connection:
        ask(connection, NODE, since=before)
        supply(app)
        assert told(connection) == {"token": token_of(app), "changed": True}
        ask(connection, NODE, since=before, information=1)
        answer = told(connection)
        assert URL in answer["information"]
        ask(connection, NODE, since=answer["token"], information=1)
        supply(app, URL + "/2")
        assert URL + "/2" in told(connection)["information"]


def test_a_change_by_another_process_is_told(app: Flask, port: int, settings: Settings) -> None:
    before = token_of(app)
    other = create_app(settings, SystemClock(), SystemIdentifiers())
    with connected(port) as connection:
        ask(connection, NODE, since=before)
        supply(other)
        assert told(connection) == {"token": token_of(app), "changed": True}
    other.extensions["slapos"].database.close()


def test_a_lost_node_that_comes_to_wait_is_heard_at_once(app: Flask, port: int) -> None:
    parts: Assembly = app.extensions["slapos"]
    long_ago = parts.clock.now() - timedelta(days=1)
    with parts.database.writing.begin() as session:
        lost = session.scalars(select(ComputeNode).where(ComputeNode.reference == NODE)).one()
        lost.exchange.contacted_at = long_ago
        session.add(NodeLoss(node_id=lost.id, heard_at=long_ago, lost_at=long_ago))
    with connected(port) as connection:
        ask(connection, NODE, since=token_of(app))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with parts.database.reading() as session:
                if session.scalar(select(TaskMark.name).where(TaskMark.name == WATCH)):
                    break
            time.sleep(0.02)
        with parts.database.reading() as session:
            assert session.scalar(select(TaskMark.name).where(TaskMark.name == WATCH)) == WATCH
            heard_at = session.scalar(
                select(NodeExchange.contacted_at).where(NodeExchange.node_id == lost.id)
            )
            assert heard_at is not None
            assert heard_at > long_ago


def test_after_its_time_a_node_is_told_that_nothing_changed(app: Flask, port: int) -> None:
    before = token_of(app)
    with connected(port) as connection:
        ask(connection, NODE, since=before, wait=0.05)
        assert told(connection) == {"token": before, "changed": False}


@pytest.mark.parametrize("query", [{}, {"since": "other"}, {"since": "", "wait": 50}])
def test_who_has_not_the_latest_token_is_told_at_once(
    app: Flask, port: int, query: dict[str, object]
) -> None:
    with connected(port) as connection:
        ask(connection, NODE, **query)
        assert told(connection) == {"token": token_of(app), "changed": True}


def test_what_cannot_be_waited_for_is_refused(port: int) -> None:
    with connected(port) as connection:
        ask(connection, "nobody", since="x")
        assert told(connection)["error"] == "not_found"
        ask(connection, NODE, since="x", wait="soon")
        assert told(connection)["fields"] == [{"field": "wait", "message": "it must be a number"}]


def test_one_that_waits_is_not_told_of_the_others(app: Flask, port: int) -> None:
    client = app.test_client()
    for node in ("one", "two"):
        client.post("/requestComputer", data={"computer_title": node})
    with connected(port) as one, connected(port) as two:
        ask(one, "one", since=token_of(app, "one"), wait=1)
        ask(two, "two", since=token_of(app, "two"))
        supply(app, node="two")
        assert told(two)["changed"]
        assert not told(one)["changed"]


def test_many_may_wait_for_one_node_and_go_away(app: Flask, port: int) -> None:
    before = token_of(app)
    with ExitStack() as stack:
        staying = [stack.enter_context(connected(port)) for _ in range(10)]
        for connection in staying:
            ask(connection, NODE, since=before)
        for _ in range(10):
            with connected(port) as leaving:
                ask(leaving, NODE, since=before)
        supply(app)
        assert {told(connection)["changed"] for connection in staying} == {True}


def test_a_database_that_fails_is_told_and_waited_for(app: Flask, port: int) -> None:
    parts: Assembly = app.extensions["slapos"]
    before = token_of(app)

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "node_exchanges.change" in statement:
            raise parts.database.engine.dialect.loaded_dbapi.OperationalError("gone")

    with connected(port) as waiting, connected(port) as new:
        ask(waiting, NODE, since=before)
        ask(new, NODE, since=before, wait=0.1)
        assert not told(new)["changed"]
        event.listen(parts.database.engine, "before_cursor_execute", fail)
        supply(app)
        ask(new, NODE, since=before)
        assert told(new)["error"] == "database_failed"
        event.remove(parts.database.engine, "before_cursor_execute", fail)
        assert told(waiting)["changed"]


# The feed by itself, on an event loop of the test.


@asynccontextmanager
async def feed_of(
    parts: Assembly, contact: float = 100.0, watch: Watch | None = None
) -> AsyncIterator[Feed]:
    watch = watch or watch_of(parts.database.looking)
    feed = Feed(parts.database, parts.clock, watch, parts.announcer, contact=contact)
    running = asyncio.create_task(feed.run())
    yield feed
    running.cancel()
    await asyncio.wait([running])


async def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0.01)


def test_a_node_that_waits_is_in_contact(app: Flask, clock: FakeClock) -> None:
    parts: Assembly = app.extensions["slapos"]
    token = token_of(app)
    clock.advance(1000)

    def contacted() -> bool:
        with parts.database.reading() as session:
            exchange = nodes.find_node(session, NODE).exchange
            return exchange.waits and exchange.contacted_at == clock.now()

    async def wait() -> None:
        async with feed_of(parts, contact=0.05) as feed:
            waiter = feed.enter(NODE, token, LONG)
            await until(contacted)
            clock.advance(1000)
            await until(contacted)
            feed.leave(waiter)
            assert feed.is_empty

    assert not contacted()
    asyncio.run(wait())


def test_all_who_have_to_be_looked_at_take_one_query(app: Flask) -> None:
    parts: Assembly = app.extensions["slapos"]
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "node_exchanges.change" in statement:
            statements.append(statement)

    names = [f"node{number}" for number in range(500)]
    with parts.database.writing.begin() as session:
        for name in names:
            nodes.ensure_node(session, parts.clock, name)
    with parts.database.reading() as session:
        tokens = {node.reference: node.exchange.change for node in nodes.nodes(session)}

    async def wait() -> int:
        async with feed_of(parts) as feed:
            event.listen(parts.database.engine, "before_cursor_execute", note)
            waiters = [feed.enter(name, tokens[name], LONG) for name in names]
            await until(lambda: all(waiter.node_id for waiter in waiters))
            feed.wake(None)
            with parts.database.writing.begin() as session:
                for name in names[:250]:
                    catalog.supply(session, parts.clock, node=name, url=URL, state="available")
            for waiter in waiters[:250]:
                await waiter.told
            for waiter in waiters:
                feed.leave(waiter)
            event.remove(parts.database.engine, "before_cursor_execute", note)
        return len(statements)

    # The new ones; what the watch cannot tell apart, at its beginning and at a change; the change.
    assert asyncio.run(wait()) <= 6


class Deaf:
    """A watch that hears nothing, so that what this process itself announces has to do."""

    def attend(self, *, is_wanted: bool) -> None:
        pass

    async def run(self, wake: Wake) -> None:
        await asyncio.Event().wait()


def test_a_change_between_look_and_wait_is_not_missed(app: Flask) -> None:
    """It is committed right after the first look has read the token, before anybody waits."""
    parts: Assembly = app.extensions["slapos"]
    token = token_of(app)
    left = [1]

    def change(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "node_exchanges.change" in statement and "compute_nodes" in statement and left:
            left.pop()
            supply(app)

    async def wait() -> str:
        async with feed_of(parts, watch=Deaf()) as feed:
            event.listen(parts.database.engine, "after_cursor_execute", change)
            waiter = feed.enter(NODE, token, LONG)
            async with asyncio.timeout(30):
                return await waiter.told

    assert asyncio.run(wait()) != token
    event.remove(parts.database.engine, "after_cursor_execute", change)
    assert left == []


# Real processes.

NODES = [f"node{number}" for number in range(8)]
#: Changes that the stress makes.
CHANGES = 150


def test_no_change_is_missed_between_processes(tmp_path: Path, database_uri: str) -> None:
    """Two masters on one database: each change, by either, is told by both within seconds."""
    cfg = configuration(tmp_path, database_uri)
    chance = random.Random(1)
    with ExitStack() as stack:
        urls = [stack.enter_context(running("--cfg", cfg))[0] for _ in range(2)]
        clients = [stack.enter_context(client_of(url)) for url in urls]
        for node in NODES:
            clients[0].http.request("POST", "/requestComputer", form={"computer_title": node})
        waiting = _Waiting(urls, stack)
        for number in range(CHANGES):
            node = chance.choice(NODES)
            chance.choice(clients).supply(f"{URL}/{number}", node)
            waiting.take_in(0)
        last = {
            node: clients[0].http.request("GET", f"/v1/nodes/{node}/changes").json()["token"]
            for node in NODES
        }
        deadline = time.monotonic() + 20
        while waiting.tokens != {(url, node): last[node] for url in urls for node in NODES}:
            assert time.monotonic() < deadline, "a change was missed"
            waiting.take_in(0.1)


class _Waiting:
    """Every node waiting at every master."""

    def __init__(self, urls: list[str], stack: ExitStack) -> None:
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self.tokens: dict[tuple[str, str], str] = {}
        for url in urls:
            for node in NODES:
                port = int(url.rstrip("/").rpartition(":")[2])
                connection = stack.enter_context(connected(port))
                self._selector.register(connection, selectors.EVENT_READ, (url, node))
                self.tokens[url, node] = "none"
                ask(connection, node, since="none")

    def take_in(self, timeout: float) -> None:
        """Take in what has come, and let these wait again."""
        for key, _ in self._selector.select(timeout):
            assert isinstance(key.fileobj, socket.socket)
            self.tokens[key.data] = told(key.fileobj)["token"]
            ask(key.fileobj, key.data[1], since=self.tokens[key.data])


@pytest.mark.parametrize("database_uri", ["postgresql"], indirect=True)
def test_a_watch_that_failed_begins_again(
    app: Flask, settings: Settings, database: Database, port: int
) -> None:
    """PostgreSQL ends the connection that listens; what happens meanwhile is told then."""
    before = token_of(app)
    other = create_app(settings, SystemClock(), SystemIdentifiers())
    with connected(port) as connection:
        ask(connection, NODE, since=before)
        with database.looking.connect() as killer:
            killer.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query = 'LISTEN slapos_changes' AND datname = current_database()"
            )
        supply(other)
        assert told(connection)["changed"]
    other.extensions["slapos"].database.close()
