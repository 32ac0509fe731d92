"""The fast lane of the full profile: who shows a certificate is answered what is kept for it.

One look into the database says both: that the certificate counts, with all that
`certificates/showing.py` asks of it, and that nothing of the answer has changed. Whoever asks by a
token or a session, and whatever is not kept or not true any more, goes to the application.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, bindparam, select

from slapos.master.certificates.model import (
    AuthorityState,
    CertificateAuthority,
    IssuedCertificate,
)
from slapos.master.certificates.showing import CERTIFICATE, is_signed, read_shown
from slapos.master.compression import accepts_gzip
from slapos.master.identity.caller import Caller, CallerKind
from slapos.master.looks import Look, LookFailed, Row
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.slap.fast_lane import (
    INFORMATION,
    KEY,
    REQUEST,
    REQUESTER,
    Environ,
    KeptAnswers,
    StartResponse,
    WsgiApp,
    asked_node,
    headers_of,
    read_form,
)
from slapos.master.slap.node_view import Answer, NodeViews
from slapos.master.traffic.frame import Beside, Limits
from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock

#: What an answer depends on beside its form and the certificate: the URL that it is told.
DEPENDS_ON = (
    "QUERY_STRING",
    "HTTP_AUTHORIZATION",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
    "wsgi.url_scheme",
)
#: Where a request has that a look was in vain, or was enough: there is no second one.
ASKED = "slapos.lane_asked"
#: What the log and the metrics call these requests: by the views that answer them otherwise.
OPERATIONS = {
    INFORMATION: "slap_tool.get_full_computer_information",
    REQUEST: "slap_tool.request_computer_partition",
}


def _counting(*columns: Any) -> Select[Any]:
    """Return a SELECT that has a row when a certificate counts, its authority first."""
    return (
        select(CertificateAuthority.certificate, *columns)
        .select_from(IssuedCertificate)
        .join(CertificateAuthority, CertificateAuthority.id == IssuedCertificate.authority_id)
        .outerjoin(ComputeNode, ComputeNode.id == IssuedCertificate.node_id)
        .where(
            IssuedCertificate.serial == bindparam("serial"),
            IssuedCertificate.revoked_at.is_(None),
            CertificateAuthority.state == AuthorityState.TRUSTED,
            ComputeNode.invalidated_at.is_(None),
        )
    )


#: The version of what a node is told, when it is that node which asks.
NODE_ITSELF = (
    _counting(ComputeNode.id, ComputeNode.project_id, NodeExchange.version)
    .join(NodeExchange, NodeExchange.node_id == ComputeNode.id)
    .where(ComputeNode.reference == bindparam("reference"))
)
#: A row when an instance is as it was, and who asked for it is in the same state and place.
UNCHANGED = (
    _counting()
    .join(SoftwareInstance, SoftwareInstance.id == bindparam("instance"))
    .join(REQUESTER, REQUESTER.c.id == bindparam("requester"))
    .where(
        SoftwareInstance.revision == bindparam("revision"),
        REQUESTER.c.requested_state == bindparam("requester_state"),
        REQUESTER.c.partition_id == bindparam("requester_partition"),
    )
)


@dataclass(frozen=True)
class Hit:
    """An answer that may be given, and who gets it."""

    caller: Caller
    answer: Answer


_Sought = Mapping[str, str | int]
_Found = tuple[Look, _Sought, Callable[[Row], Hit | None]]


@dataclass(frozen=True)
class Question:
    """What has to be looked for, and what then becomes of it: `hit`, of the row found."""

    look: Look
    sought: _Sought
    shown: bytes
    began: float
    hit: Callable[[Row], Hit | None]


class FullLane:
    """Answers what is kept to those who show a certificate; the application answers the rest."""

    def __init__(
        self,
        application: WsgiApp,
        looks: Engine,
        clock: Clock,
        views: NodeViews,
        answers: KeptAnswers,
        limits: Limits | None,
        beside: Beside,
    ) -> None:
        self._application = application
        self._node_itself, self._unchanged = Look(looks, NODE_ITSELF), Look(looks, UNCHANGED)
        self.looks = (self._node_itself, self._unchanged)
        self._clock = clock
        self._views, self._answers = views, answers
        self._limits, self._beside = limits, beside

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (WSGI)."""
        kept = self.answer(environ)
        if kept is None:
            return self._application(environ, start_response)
        status, headers, content = kept
        start_response(status, headers)
        return [content]

    def answer(self, environ: Environ) -> Answer | None:
        """Return what is kept, if it is still true and whoever asks may have it."""
        question = self.question(environ)
        if question is None:
            return None
        try:
            return self.finish(environ, question, question.look.first(question.sought))
        except LookFailed:
            return None  # the application meets it too, and has words for it

    def question(self, environ: Environ) -> Question | None:
        """Return what has to be looked for before an answer may be given; None if none is kept."""
        shown: bytes | None = environ.get(CERTIFICATE)
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if not shown or asked not in OPERATIONS or ASKED in environ:
            return None
        began = self._clock.monotonic()
        try:
            certificate = read_shown(shown)
        except SlapOSError:
            return None
        if not certificate.is_for_clients or not certificate.counts_at(self._clock.now()):
            return None
        found = self._document(environ) if asked == INFORMATION else self._answer(environ, shown)
        if found is None:
            return None
        look, sought, hit = found
        return Question(look, {"serial": certificate.serial, **sought}, shown, began, hit)

    def finish(self, environ: Environ, question: Question, row: Row | None) -> Answer | None:
        """Return the answer, with what has been found."""
        environ[ASKED] = True
        if row is None or not is_signed(question.shown, row[0]):
            return None
        hit = question.hit(row[1:])
        if hit is None:
            return None
        try:
            if self._limits is not None:
                self._limits.take(hit.caller)
        except SlapOSError:
            return None
        status, headers, content = hit.answer
        operation = OPERATIONS[environ["REQUEST_METHOD"], environ["PATH_INFO"]]
        around = self._beside.end(environ, hit.caller, operation, question.began, int(status[:3]))
        return status, [*headers, *around], content

    def _document(self, environ: Environ) -> _Found | None:
        """Return what a node is told, when it is the node itself that asks."""
        reference = asked_node(environ)
        kept = self._views.kept(reference)
        accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
        if kept is None or (accepts_gzip(accepted) and not kept.is_gzipped):
            return None  # to compress takes its time, which is not this lane's to give

        def hit(row: Row) -> Hit | None:
            number, project_id, version = row
            if version != kept.version:
                return None
            caller = Caller(kind=CallerKind.NODE, name=reference, id=number, project_id=project_id)
            return Hit(caller, kept.answer(environ.get("HTTP_IF_NONE_MATCH", ""), accepted))

        return self._node_itself, {"reference": reference}, hit

    def _answer(self, environ: Environ, shown: bytes) -> _Found | None:
        """Return what an instance, or the node that holds it, was answered to the same request."""
        form = read_form(environ)
        if form is None:
            return None
        digest = hashlib.sha256(hashlib.sha256(form).digest() + hashlib.sha256(shown).digest())
        for name in DEPENDS_ON:
            digest.update(f"\0{environ.get(name, '')}".encode())
        environ[KEY] = key = digest.digest()
        kept = self._answers.get(key)
        if kept is None or kept.caller is None or kept.requester_partition is None:
            return None
        hit = Hit(kept.caller, ("200 OK", headers_of(kept.content), kept.content))
        sought: _Sought = {
            "instance": kept.instance,
            "revision": kept.revision,
            "requester": kept.requester,
            "requester_state": kept.requester_state,
            "requester_partition": kept.requester_partition,
        }
        return self._unchanged, sought, lambda _row: hit
