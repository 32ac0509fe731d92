"""Looks into PostgreSQL from the event loop, without a thread and without waiting for it.

One connection of its own, on which one statement follows the other. Whoever cannot be answered by
it, as it is not there yet or is lost, goes the long way, by a thread.
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine

from slapos.master.looks import Look, LookFailed, Row

#: Seconds that one may wait for an answer, and until another connection is tried.
PATIENCE, PAUSE = 2.0, 1.0
#: Seconds that a connection may take to be there.
CONNECTING = 10.0
_PLACE = re.compile(r"%\((\w+)\)s")


@dataclass(eq=False)
class _Question:
    """A statement that is prepared under a name, its values, and who waits for the row."""

    name: bytes
    values: Sequence[bytes]
    look: Look
    answer: "asyncio.Future[Row | None]"


class Lookout:
    """Asks statements of a database; only from one event loop."""

    def __init__(self, engine: Engine, looks: Sequence[Look]) -> None:
        _, self._how = engine.dialect.create_connect_args(engine.url)
        self._looks = {look: f"slapos_look_{number}" for number, look in enumerate(looks)}
        self._places = {look: _PLACE.findall(look.text) for look in looks}
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[_Question] = deque()
        self._asked: _Question | None = None
        self._pause_until = 0.0

    async def first(self, look: Look, sought: Mapping[str, str | int]) -> Row | None:
        """Return the first row of a statement, None without one; raises LookFailed."""
        loop = asyncio.get_running_loop()
        if self._connection is None:
            self._connect(loop)
            raise LookFailed("there is no connection to the database yet")
        values = {**look.fixed, **sought}
        question = _Question(
            self._looks[look].encode(),
            [str(values[name]).encode() for name in self._places[look]],
            look,
            loop.create_future(),
        )
        self._waiting.append(question)
        late = loop.call_later(PATIENCE, self._give_up, question)
        try:
            self._ask_next(self._connection.pgconn)
            return await question.answer
        finally:
            late.cancel()

    def close(self) -> None:
        """Let the connection go, and all who wait the long way."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._lose("it is closed")

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._connecting is None and loop.time() >= self._pause_until:
            self._pause_until = loop.time() + PAUSE
            self._connecting = loop.create_task(self._prepare())

    async def _prepare(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(CONNECTING):
                connection = await psycopg.AsyncConnection.connect(**self._how, autocommit=True)
                for look, name in self._looks.items():
                    text = look.text
                    for number, place in enumerate(self._places[look], 1):
                        text = text.replace(f"%({place})s", f"${number}", 1)
                    await connection.execute(f"PREPARE {name} AS {text}".encode())
            loop = asyncio.get_running_loop()
            loop.add_reader(connection.pgconn.socket, self._read, connection.pgconn)
            self._connection, connection = connection, None
        except (psycopg.Error, TimeoutError):
            pass  # who asks by a thread meets it too, and has words for it
        finally:
            self._connecting = None
            if connection is not None:
                connection.pgconn.finish()

    def _ask_next(self, connection: PGconn) -> None:
        while self._asked is None and self._waiting:
            question = self._waiting.popleft()
            if question.answer.done():
                continue
            self._asked = question
            try:
                connection.send_query_prepared(question.name, question.values)
                if connection.flush():
                    self._lose("it takes nothing any more")
            except psycopg.Error as error:
                self._lose(str(error))

    def _read(self, connection: PGconn) -> None:
        try:
            connection.consume_input()
            while not connection.is_busy():
                result = connection.get_result()
                if result is None:
                    break
                self._take(result)
            else:
                return
        except psycopg.Error as error:
            self._lose(str(error))
            return
        if connection.status != 0:
            self._lose("it is gone")
            return
        self._asked = None
        self._ask_next(connection)

    def _take(self, result: PGresult) -> None:
        question = self._asked
        if question is None or question.answer.done():
            return
        if result.status != ExecStatus.TUPLES_OK:
            question.answer.set_exception(LookFailed("the database does not answer that"))
        elif not result.ntuples:
            question.answer.set_result(None)
        else:
            values = (result.get_value(0, number) for number in range(result.nfields))
            question.answer.set_result(
                tuple(
                    None if value is None else read(value.decode())
                    for read, value in zip(question.look.kinds, values, strict=True)
                )
            )

    def _give_up(self, question: _Question) -> None:
        if not question.answer.done():
            self._lose("it does not answer")

    def _lose(self, reason: str) -> None:
        """Let the connection go; whoever waits for it goes the long way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection.pgconn.socket)
            connection.pgconn.finish()
        left, self._asked = [self._asked, *self._waiting], None
        self._waiting.clear()
        for question in left:
            if question is not None and not question.answer.done():
                question.answer.set_exception(LookFailed(f"the database is not there: {reason}"))
