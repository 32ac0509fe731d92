"""What is done when somebody is not let in: it is counted, and told in the audit log.

A machine that goes on showing a certificate that does not count is written down once a minute by
each process: its requests cost no transaction. Guesses are counted one by one, in the database.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping

from flask import g, request
from sqlalchemy.orm import Session

from slapos.master import http
from slapos.master.audit import refusals
from slapos.master.audit.refusals import Refused
from slapos.master.certificates.errors import CertificateRefused, TokenInvalid
from slapos.master.identity import attempts
from slapos.master.identity.authentication import TokenRefused
from slapos.master.identity.caller import ANONYMOUS, serve
from slapos.master.identity.subject import Kind, Subject
from slapos.master.traffic.limits import neighbourhood
from slapos.master.traffic.request_id import remember
from slapos.protocol.errors import SecretInvalid, SignInRefused, SlapOSError, TooManyAttempts
from slapos.system.clock import Clock

#: What is written down, and what it is about when nobody knows better.
KINDS: Mapping[type[SlapOSError], Kind] = {
    SignInRefused: Kind.PERSON,
    TooManyAttempts: Kind.PERSON,
    SecretInvalid: Kind.INVITATION,
    TokenInvalid: Kind.JOIN_TOKEN,
    TokenRefused: Kind.TOKEN,
    CertificateRefused: Kind.CERTIFICATE,
}
#: What a caller shows with each request, again and again: nobody guesses it.
SHOWN = (TokenRefused, CertificateRefused)
#: Links, invitations and join tokens.
GUESSED = (SecretInvalid, TokenInvalid)
#: Seconds between two that are written down by a process.
PAUSE = 60.0
#: So many are told apart by a process.
APART = 10_000

log = logging.getLogger(__name__)


class Refusals:
    """Notes what is refused; an application has one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: When it was last written down, and how often it came since.
        self._counted: OrderedDict[Refused, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, parts: http.Assembly, error: SlapOSError) -> None:
        """Note an error that a request is answered with; anything but refusals is not noted."""
        kind = next((KINDS[each] for each in type(error).__mro__ if each in KINDS), None)
        if kind is None or "noted" in g:
            return
        g.noted = True  # a page shows its form again, which may be refused once more
        about = getattr(error, "about", None) or g.get("about") or Subject(kind, "")
        refused = Refused(error.code, about, neighbourhood(request.remote_addr or ""))
        times = self._due(refused) if isinstance(error, SHOWN) else 1
        if not times:
            return
        is_guess = isinstance(error, GUESSED) and not attempts.is_own(request.remote_addr or "")

        def work(session: Session) -> None:
            serve(session, g.get("caller") or ANONYMOUS)
            remember(session, g.request_id)
            refusals.note(session, self._clock, refused, times)
            if is_guess:
                key = attempts.key_of_guesses(refused.address)
                attempts.fail(session, self._clock.now(), key, attempts.FREE_OF_ADDRESS)

        try:
            http.in_transaction(parts, work)
        except SlapOSError:
            log.warning("what was refused could not be written down", exc_info=True)

    def _due(self, refused: Refused) -> int:
        """Return how often it came that is to be written down now."""
        now = self._clock.monotonic()
        with self._lock:
            last, times = self._counted.get(refused, (now - PAUSE, 0))
            is_due = now - last >= PAUSE
            self._counted[refused] = (now, 0) if is_due else (last, times + 1)
            self._counted.move_to_end(refused)
            if len(self._counted) > APART:
                self._counted.popitem(last=False)
        return times + 1 if is_due else 0


def check_guesses() -> None:
    """Raise LockedOut when the address has shown too many links or tokens that are none."""
    address = request.remote_addr or ""
    if not attempts.is_own(address):
        context = http.context()
        attempts.check(context.session, context.clock.now(), attempts.key_of_guesses(address))
