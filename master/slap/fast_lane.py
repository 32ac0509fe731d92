"""What nodes and instances ask over and over, answered before the web framework sees it.

A node asks what it has to do, and each of its instances requests the same again with every pass.
Both answers are kept, and given as long as one look into the database says that nothing of it has
changed. Everything else goes on to the application; so the fast lane never has to know why.
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from sqlalchemy import and_, bindparam, exists, literal, or_, select
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.compression import accepts_gzip
from slapos.master.database import Database
from slapos.master.identity.caller import Caller
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.slap.node_view import NODE_VERSION, XML, Answer, NodeViews

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

INFORMATION = ("GET", "/getFullComputerInformation")
REQUEST = ("POST", "/requestComputerPartition")
#: A request that is longer goes the long way.
LONGEST_FORM = 64 * 1024
#: Answers that a process keeps, about 3 KB each.
KEPT_ANSWERS = 10_000
#: What an answer depends on beside its form: who asks, and the URL that it is told.
DEPENDS_ON = (
    "QUERY_STRING",
    "HTTP_AUTHORIZATION",
    "HTTP_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PREFIX",
)
KEY = "slapos.request_key"
#: Where an application has its fast lane.
FAST_LANE = "slapos.fast_lane"

REQUESTER = SoftwareInstance.__table__.alias("requester")
#: One row when the instance is as it was, and so is the state of its requester, if it has one.
UNCHANGED = select(literal(1)).where(
    SoftwareInstance.id == bindparam("instance"),
    SoftwareInstance.revision == bindparam("revision"),
    or_(
        bindparam("requester") == 0,
        exists().where(
            and_(
                REQUESTER.c.id == bindparam("requester"),
                REQUESTER.c.requested_state == bindparam("requester_state"),
            )
        ),
    ),
)


@dataclass(frozen=True)
class KeptAnswer:
    """An answer to a request, and what it goes by; `requester` is 0 when a person asked.

    `caller` is who asked, in the full profile: an instance, or the node that holds the requester.
    """

    content: bytes
    instance: int
    revision: int
    requester: int = 0
    requester_state: str = ""
    requester_partition: int | None = None
    caller: Caller | None = None


class KeptAnswers:
    """The answers to requests that a process has given last, by a digest of the request."""

    def __init__(self) -> None:
        self._answers: dict[bytes, KeptAnswer] = {}
        self._lock = Lock()

    def get(self, key: bytes) -> KeptAnswer | None:
        """Return a kept answer."""
        return self._answers.get(key)

    def keep(self, key: bytes, answer: KeptAnswer) -> None:
        """Keep an answer, in place of the oldest one if there are many."""
        with self._lock:
            self._answers.pop(key, None)
            while len(self._answers) >= KEPT_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = answer


class FastLane:
    """Answers what is kept; the application answers the rest."""

    def __init__(
        self, application: WsgiApp, database: Database, views: NodeViews, answers: KeptAnswers
    ) -> None:
        self._application = application
        self._engine = database.looking
        self._views = views
        self._answers = answers

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (WSGI)."""
        kept = self.answer(environ)
        if kept is None:
            return self._application(environ, start_response)
        status, headers, content = kept
        start_response(status, headers)
        return [content]

    def answer(self, environ: Environ) -> Answer | None:
        """Return what is kept, if it is still true; that takes one look into the database."""
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        try:
            if asked == INFORMATION:
                return self._kept_document(environ)
            if asked == REQUEST:
                return self._kept_answer(environ)
        except SQLAlchemyError:
            pass  # the application meets it too, and has words for it
        return None

    def _kept_document(self, environ: Environ) -> Answer | None:
        reference = asked_node(environ)
        kept = self._views.kept(reference)
        if kept is None:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(NODE_VERSION, {"reference": reference}).first()
        if row is None or row.version != kept.version:
            return None
        accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
        if accepts_gzip(accepted) and not kept.is_gzipped:
            return None  # that takes its time, which is not this lane's to give
        return kept.answer(environ.get("HTTP_IF_NONE_MATCH", ""), accepted)

    def _kept_answer(self, environ: Environ) -> Answer | None:
        form = read_form(environ)
        if form is None:
            return None
        digest = hashlib.sha256(form)
        for name in DEPENDS_ON:
            digest.update(f"\0{environ.get(name, '')}".encode())
        environ[KEY] = key = digest.digest()
        kept = self._answers.get(key)
        if kept is None:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(
                UNCHANGED,
                {
                    "instance": kept.instance,
                    "revision": kept.revision,
                    "requester": kept.requester,
                    "requester_state": kept.requester_state,
                },
            ).first()
        return None if row is None else ("200 OK", headers_of(kept.content), kept.content)


def asked_node(environ: Environ) -> str:
    """Return of which node somebody asks; "" when that is not clear."""
    (reference, *others) = parse_qs(environ["QUERY_STRING"]).get("computer_id", [""])
    return "" if others else reference


def read_form(environ: Environ) -> bytes | None:
    """Return the form of a request, also left for the application; None if it is no short form."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return None
    kind = environ.get("CONTENT_TYPE", "")
    if not 0 < length <= LONGEST_FORM or not kind.startswith("application/x-www-form-urlencoded"):
        return None
    form: bytes = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(form)
    return form


def headers_of(content: bytes) -> list[tuple[str, str]]:
    """Return the headers of a document of ours."""
    return [("Content-Type", XML), ("Content-Length", str(len(content)))]
