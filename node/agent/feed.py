"""What is wanted of this node, as soon as it changes: the master's change feed, or polling.

A master that cannot be asked, or talks nonsense, stops nothing: what it said last goes on to count.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from slapos.node.agent.kept import Answer, keep, read_kept
from slapos.node.agent.older import Hesitation
from slapos.node.agent.plan import backed_off
from slapos.node.record import jittered
from slapos.node.settings import NodeSettings
from slapos.protocol.errors import MasterFailed, NotFound, SlapOSError
from slapos.protocol.json_reader import load_json
from slapos.protocol.messages import NodeInformation
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

logger = logging.getLogger(__name__)

#: Seconds that the master may keep a question open, and what an answer may take beyond that.
WAIT = 50
ANSWER_TIME = 20.0
#: Seconds after which everything is asked for although the feed told of no change, and after which
#: a master without a feed is asked again whether it has one.
FULL_INTERVAL = 300.0
#: An answer "nothing new" that came within so many seconds is of a feed that does not wait.
AT_ONCE = 1.0
#: Seconds between two questions while an older state waits, and after a change that was none.
OLDER_INTERVAL, SAME_WAIT = 30.0, 1.0
#: So many partitions are named in a warning.
SHOWN = 5


class Feed:
    """Asks one master, again and again; hands over each answer that is new.

    `ask` makes one exchange and returns after how many seconds the next one is due; `run` does that
    for ever, in a thread of its own.
    """

    def __init__(
        self,
        client: SlapClient,
        settings: NodeSettings,
        deliver: Callable[[NodeInformation], None],
        clock: Clock,
        identifiers: Identifiers,
        *,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """`client` needs a time limit above WAIT. `answered` is called with each good answer."""
        self._client = client
        self._node = settings.computer_id
        self._kept = settings.layout.kept_information
        self._deliver = deliver
        self._clock = clock
        self._identifiers = identifiers
        self._poll_interval = settings.poll_interval
        self._answered = answered
        self._hesitation = Hesitation(settings.older_state_patience)
        self._nudged = threading.Event()
        self._ended = threading.Event()
        self._last: Answer | None = None
        self._accepted: NodeInformation | None = None
        self._has_feed = True
        self._is_answered = False
        self._full_at = clock.monotonic() + FULL_INTERVAL
        self._failures = 0
        self._keeps = True

    def start_from_disk(self) -> None:
        """Hand over what the master said before the agent was started, if that is known."""
        found = read_kept(self._kept)
        if found is not None and found[1].reference == self._node:
            answer, self._accepted = found
            self._remember(answer)
            self._deliver(self._accepted)

    def run(self) -> None:
        """Ask until `end`."""
        while not self._ended.is_set():
            wait = self.ask()
            if wait > 0:
                self._nudged.wait(wait)
                self._nudged.clear()

    @property
    def is_connected(self) -> bool:
        """Whether the master has a feed, and answered the last question."""
        return self._has_feed and not self._failures and self._accepted is not None

    def nudge(self) -> None:
        """Something was done here that may have changed what is wanted: ask soon, if polling."""
        if not self._has_feed:
            self._nudged.set()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._nudged.set()

    def ask(self) -> float:
        """Ask once, and return the seconds until the next time."""
        try:
            wait = self._ask()
        except (SlapOSError, OSError) as error:
            self._failures += 1
            self._is_answered = False
            if self._failures == 1:
                logger.error("%s", error)
                logger.warning("the services on this node go on without the master")
            return jittered(backed_off(self._failures), self._identifiers.fraction())
        if self._failures:
            logger.info("the master answers again")
        self._failures = 0
        self._is_answered = True
        self._answered()
        return wait

    def _ask(self) -> float:
        now = self._clock.monotonic()
        if self._last is not None and now >= self._full_at:
            self._full_at = now + FULL_INTERVAL
            self._has_feed = True
            if wait := self._ask_all():
                return wait
        if self._has_feed:
            try:
                return self._ask_feed()
            except NotFound:  # it has no feed, or does not know this node, as is said next
                self._has_feed = False
        return self._ask_all() or self._poll_wait()

    def _ask_feed(self) -> float:
        """Wait for a change, and take it; return the seconds until the next question."""
        begun = self._clock.monotonic()
        # At the start, and after trouble, it is to be seen at once whether the master answers.
        may_wait = self._is_answered
        told = self._asked_feed(WAIT if may_wait else 0)
        token, document = str(told.get("token", "")), told.get("information")
        if not told.get("changed"):
            self._hesitation.settle()
            is_waiting = not may_wait or self._clock.monotonic() - begun > AT_ONCE
            return 0.0 if is_waiting else self._poll_wait()
        if not isinstance(document, str):
            return self._ask_all(token)
        before = self._accepted
        answer = Answer(document=document, etag=str(told.get("etag", "")), token=token)
        return self._take(answer) or (SAME_WAIT if self._accepted == before else 0.0)

    def _asked_feed(self, wait: int) -> dict[str, Any]:
        query = {"wait": str(wait), "information": "1"}
        if self._last is not None and self._last.token:
            query["since"] = self._last.token
        path = f"v1/nodes/{quote(self._node, safe='')}/changes"
        response = self._client.http.request("GET", path, query=query)
        try:
            told = load_json(response.content)
        except ValueError as error:
            raise MasterFailed(f"the master's answer makes no sense: {error}") from error
        if not isinstance(told, dict):
            raise MasterFailed("the master's answer makes no sense: the feed sent no object")
        return told

    def _ask_all(self, token: str | None = None) -> float:
        """Ask for all that is wanted, unless that is as it was; `token` is the feed's for it."""
        last = self._last
        found = self._client.node_document(self._node, etag=last.etag if last else "")
        if token is None:
            token = last.token if last else ""
        if found is not None:
            document, etag = found
            return self._take(Answer(document=document, etag=etag, token=token))
        self._hesitation.settle()
        if last is not None:
            self._last = replace(last, token=token)
        return 0.0

    def _take(self, answer: Answer) -> float:
        """Hand over an answer that is new; return the seconds that an older state has to wait."""
        information = answer.information()
        now = self._clock.monotonic()
        waited = self._hesitation.waits
        older = self._hesitation.judge(self._accepted, information, now)
        if older:
            if not waited:
                logger.warning(
                    "the master tells an older state than before, of %s: was it restored from a "
                    "copy? Nothing is done about it for %.0f s, then it is accepted",
                    ", ".join(older[:SHOWN]) + (", …" if len(older) > SHOWN else ""),
                    self._hesitation.left(now),
                )
            return min(self._hesitation.left(now), OLDER_INTERVAL)
        if waited:
            logger.warning("the master's state is accepted")
        if self._accepted is not None:
            information = information.sharing(self._accepted)
        if information != self._accepted:
            self._deliver(information)
        self._accepted = information
        self._keep(answer)
        self._remember(answer)
        return 0.0

    def _remember(self, answer: Answer) -> None:
        """Remember which answer was the last one; the document itself is on disk."""
        self._last = replace(answer, document="")

    def _keep(self, answer: Answer) -> None:
        try:
            keep(self._kept, answer)
            self._keeps = True
        except OSError as error:  # a full disk: it is in memory, and asked for after a start
            if self._keeps:
                logger.warning("what the master said is not kept for a start without it: %s", error)
            self._keeps = False

    def _poll_wait(self) -> float:
        return jittered(self._poll_interval, self._identifiers.fraction())
