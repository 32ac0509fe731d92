"""Holding nodes that wait for a change: thousands, with one query for all that may have one.

No change is missed: a node is entered before its first look into the database, and whoever hears
of a change that is being committed tells it after the commit. So either the look sees the change,
or what is heard comes after the node was entered, and leads to another look.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Engine,
    any_,
    bindparam,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from slapos.master.database import Database
from slapos.master.feed.watch import Watch, keep_watching
from slapos.master.monitoring.model import WATCH, NodeLoss
from slapos.master.nodes.exchange import Announcer
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.tasks.task import sense
from slapos.master.web.workers import Workers
from slapos.system.clock import Clock

#: Seconds between two times that it is stored which nodes wait: they are in contact.
CONTACT = 20.0
#: Seconds before a look that failed is tried again.
PAUSE = 1.0

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Waiter:
    """A node that waits. `told` gives its latest token; "" when it is not for the feed to say."""

    reference: str
    since: str
    seconds: float
    told: "asyncio.Future[str]"
    node_id: int | None = None
    timer: asyncio.TimerHandle | None = None

    def tell(self, token: str) -> None:
        """Let it go."""
        if not self.told.done():
            self.told.set_result(token)


@dataclass(slots=True)
class _Awaited:
    """Those who wait for a change of one node; they all have its latest token."""

    token: str
    waiters: set[Waiter] = field(default_factory=set)


class Feed:
    """All who wait, for the one event loop that runs it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        watch: Watch,
        announcer: Announcer,
        *,
        contact: float = CONTACT,
    ) -> None:
        self._looks = Looks(database.looking)
        self._database, self._clock = database, clock
        self._watch, self._announcer, self._contact = watch, announcer, contact
        self._reader, self._writer = Workers("feed", 1), Workers("feed-contact", 1)
        self._new: list[Waiter] = []
        self._awaited: dict[int, _Awaited] = {}
        self._woken: set[int] = set()
        self._all_woken = False
        #: Nodes that were here since it was stored last which ones are.
        self._heard: set[int] = set()
        #: Set when that is to be stored at once: one of them was lost.
        self._is_urgent = asyncio.Event()
        self._something = asyncio.Event()
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._new and not self._awaited

    def enter(self, reference: str, since: str, seconds: float) -> Waiter:
        """Let a node wait until its token is not `since`, or some seconds have passed."""
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiter = Waiter(reference, since, seconds, told)
        if self._closed:
            waiter.tell(since)
            return waiter
        self._new.append(waiter)
        self._something.set()
        self._attend()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Forget a node that does not wait any more."""
        waiter.tell(waiter.since)
        if waiter.timer is not None:
            waiter.timer.cancel()
        if waiter.node_id is not None:
            awaited = self._awaited[waiter.node_id]
            awaited.waiters.discard(waiter)
            if not awaited.waiters:
                del self._awaited[waiter.node_id]
        self._attend()

    def wake(self, node_ids: Collection[int] | None) -> None:
        """Have nodes looked at; None is all that are waited for."""
        if node_ids is None:
            self._all_woken = True
        else:
            self._woken.update(node_ids)
        self._something.set()

    def close(self) -> None:
        """Let everybody go, and nobody wait any more."""
        self._closed = True
        everybody = [*self._new, *(each for a in self._awaited.values() for each in a.waiters)]
        for waiter in everybody:
            waiter.tell(waiter.since)

    async def run(self) -> None:
        """Look and tell, for ever."""
        announced = partial(call_soon, asyncio.get_running_loop(), self.wake)
        self._announcer.listeners.append(announced)
        failure: type[Exception] = self._database.engine.dialect.loaded_dbapi.Error
        beside = (
            asyncio.create_task(keep_watching(self._watch, failure, self.wake)),
            asyncio.create_task(self._store_contacts()),
        )
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                await self._look()
        finally:
            self._announcer.listeners.remove(announced)
            for task in beside:
                task.cancel()
            # What is being read or stored comes to its end, unless the database hangs.
            for workers in (self._reader, self._writer):
                await workers.end(PAUSE)
            await asyncio.wait(beside)

    async def _look(self) -> None:
        """Look at those who are new, and at those of whom a change was heard: all in one go."""
        new = [waiter for waiter in self._new if not waiter.told.done()]
        woken = self._awaited.keys() if self._all_woken else self._woken & self._awaited.keys()
        known = {node_id: self._awaited[node_id].token for node_id in woken}
        self._new, self._woken, self._all_woken = [], set(), False
        if not new and not known:
            return
        references = {waiter.reference for waiter in new}
        try:
            changed, found = await self._reader.run(partial(self._looks.at, known, references))
        except SQLAlchemyError as error:
            log.warning("the change feed cannot read the database: %s", error)
            for waiter in new:
                waiter.tell("")
            await asyncio.sleep(PAUSE)
            self.wake(known)
            return
        for node_id, token in changed.items():
            self._tell(node_id, token)
        for waiter in new:
            self._place(waiter, found.get(waiter.reference))
        self._attend()

    def _attend(self) -> None:
        self._watch.attend(is_wanted=not self.is_empty)

    def _tell(self, node_id: int, token: str) -> None:
        awaited = self._awaited.get(node_id)
        if awaited is not None:
            awaited.token = token
            for waiter in awaited.waiters:
                waiter.tell(token)

    def _place(self, waiter: Waiter, found: tuple[int, str, bool] | None) -> None:
        """Tell one who is new, or let it wait among the others."""
        if waiter.told.done():
            return
        if found is None:
            waiter.tell("")
            return
        node_id, token, was_lost = found
        self._heard.add(node_id)
        if was_lost:
            self._is_urgent.set()
        if node_id in self._awaited and self._awaited[node_id].token != token:
            self._tell(node_id, token)
        if token != waiter.since:
            waiter.tell(token)
            return
        waiter.node_id = node_id
        self._awaited.setdefault(node_id, _Awaited(token)).waiters.add(waiter)
        loop = asyncio.get_running_loop()
        waiter.timer = loop.call_later(waiter.seconds, waiter.tell, waiter.since)

    async def _store_contacts(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_urgent.wait(), self._contact)
            self._is_urgent.clear()
            here = self._heard | self._awaited.keys()
            self._heard = set()
            if not here:
                continue
            try:
                await self._writer.run(partial(self._store, here, self._clock.now()))
            except SQLAlchemyError as error:
                log.warning("it cannot be stored which nodes are in contact: %s", error)
                self._heard |= here

    def _store(self, node_ids: Iterable[int], now: datetime) -> None:
        with self._database.writing.begin() as session:
            listed = {"listed": sorted(node_ids)}
            session.execute(self._looks.contact, {"now": now} | listed)
            if session.scalar(self._looks.any_lost, listed):
                sense(session, WATCH)


class Looks:
    """The statements that look at any number of nodes at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        ids = _is_listed(engine, NodeExchange.node_id)
        self._by_id = select(NodeExchange.node_id, NodeExchange.change).where(ids)
        self._by_reference = (
            select(
                ComputeNode.reference,
                NodeExchange.node_id,
                NodeExchange.change,
                exists().where(NodeLoss.node_id == NodeExchange.node_id).label("was_lost"),
            )
            .join(NodeExchange, NodeExchange.node_id == ComputeNode.id)
            .where(_is_listed(engine, ComputeNode.reference))
        )
        self.contact = (
            update(NodeExchange).where(ids).values(contacted_at=bindparam("now"), waits=True)
        )
        self.any_lost = select(exists().where(_is_listed(engine, NodeLoss.node_id)))

    def at(
        self, known: Mapping[int, str], references: Collection[str]
    ) -> tuple[dict[int, str], dict[str, tuple[int, str, bool]]]:
        """Return which of `known` have another token; by reference id, token, if it was lost."""
        with self._engine.connect() as connection:
            changed, found = {}, {}
            if known:
                rows = connection.execute(self._by_id, {"listed": list(known)})
                changed = {
                    row.node_id: row.change for row in rows if row.change != known[row.node_id]
                }
            if references:
                rows = connection.execute(self._by_reference, {"listed": list(references)})
                found = {row.reference: (row.node_id, row.change, row.was_lost) for row in rows}
        return changed, found


def _is_listed(engine: Engine, column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """Return that a column is in `listed`: one parameter, however many values it has."""
    if engine.dialect.name == "postgresql":
        return column == any_(bindparam("listed", type_=ARRAY(column.type)))
    listed: Any = func.json_each(bindparam("listed", type_=JSON)).table_valued("value")
    return column.in_(select(listed.c.value))


def call_soon(loop: asyncio.AbstractEventLoop, call: Any, *arguments: Any) -> None:
    """Have something called by a loop, from any thread; nothing when the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)
