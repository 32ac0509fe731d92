"""Who asks, by what the request shows: a certificate, a token, a session."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from slapos.master.identity.caller import ANONYMOUS, Caller
from slapos.system.clock import Clock

#: Each says who asks, None when the request shows nothing of its kind, and raises Unauthorized
#: when what it shows does not count. The first that knows is believed.
METHODS: tuple[Callable[[Session, Clock], Caller | None], ...] = ()


def authenticate(session: Session, clock: Clock) -> Caller:
    """Return who asks; raise Unauthorized when what the request shows does not count."""
    for method in METHODS:
        caller = method(session, clock)
        if caller is not None:
            return caller
    return ANONYMOUS
