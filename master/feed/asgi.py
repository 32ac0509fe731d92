"""The change feed where the web server asks it: it waits here, and is answered by the views."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from prometheus_client import Gauge

from slapos.master.feed.views import LONGEST_WAIT
from slapos.master.feed.waiting import Feed
from slapos.master.web.gateway import Application, Message, Receive, Scope, Send
from slapos.system.identifier import Identifiers

PATH = re.compile("/v1/nodes/(.+)/changes")
#: This part of a wait is left to chance, so that nodes which come at once do not stay together.
JITTER = 0.1


@dataclass(frozen=True)
class Question:
    """What a node asks that is ready to wait."""

    reference: str
    since: str
    seconds: float
    information: bool


#: Says whether somebody may wait for what a node is told: of the request, and the node's reference.
Admits = Callable[[Scope, str], Awaitable[bool]]


class Changes:
    """Holds those who ask for changes until there are some; the rest of the work is others'.

    Who is not admitted does not wait, and has the application say why.
    """

    def __init__(
        self,
        feed: Feed,
        identifiers: Identifiers,
        otherwise: Application,
        waiting: Gauge,
        admits: Admits | None = None,
    ) -> None:
        self._feed = feed
        self._identifiers = identifiers
        self._otherwise = otherwise
        self._waiting = waiting
        self._admits = admits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        question = read_question(scope)
        if question is None or not await self._may_wait(scope, question):
            await self._otherwise(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass  # a question needs no body
        token = await self._wait(question, receive)
        changed = token != question.since
        if token == "" or (changed and question.information):
            await self._otherwise(scope, _receive_nothing, send)
            return
        content = json.dumps({"token": token, "changed": changed}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    async def _may_wait(self, scope: Scope, question: Question) -> bool:
        return self._admits is None or await self._admits(scope, question.reference)

    async def _wait(self, question: Question, receive: Receive) -> str:
        seconds = question.seconds * (1 - JITTER * self._identifiers.fraction())
        waiter = self._feed.enter(question.reference, question.since, seconds)
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(lambda _: waiter.tell(waiter.since))
        self._waiting.inc()
        try:
            return await waiter.told
        finally:
            self._waiting.dec()
            gone.cancel()
            self._feed.leave(waiter)


def read_question(scope: Scope) -> Question | None:
    """Return what is asked of the feed; None when there is nothing to wait for, or all is wrong."""
    path = PATH.fullmatch(scope["path"]) if scope["method"] == "GET" else None
    if path is None:
        return None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    since = query.get("since", [""])[0]
    try:
        seconds = min(float(query.get("wait", [LONGEST_WAIT])[0]), LONGEST_WAIT)
    except ValueError:
        return None
    if not since or not seconds > 0:
        return None
    return Question(path[1], since, seconds, query.get("information") == ["1"])


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
