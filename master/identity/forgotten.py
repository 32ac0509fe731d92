"""A new password for who has forgotten hers, by e-mail.

Whether there is such an account shows neither in words nor in time: what was typed goes into the
outbox, and whose it is is found out when it is sent.
"""

from flask import request

from slapos.master.http import context
from slapos.master.identity import attempts, service
from slapos.master.identity.one_way import hash_of
from slapos.master.mail import outbox
from slapos.master.mail.texts import Occasion
from slapos.master.traffic.limits import neighbourhood
from slapos.protocol.errors import Conflict

#: Links for one account before the first wait.
FREE_OF_ACCOUNT = 3


def can_be_sent() -> bool:
    """Return whether this master sends links by e-mail."""
    return outbox.is_sent(context().settings)


def send_link(email: str) -> None:
    """Have a link for a new password sent to an address, if it is one of an account.

    Raises LockedOut, InvalidFields, and Conflict where no e-mail is sent.
    """
    if not can_be_sent():
        raise Conflict(
            "this master sends no e-mail: an administrator can give you a link for a new password"
        )
    session, clock, address = context().session, context().clock, request.remote_addr or ""
    kept, now = service.checked_email(email), clock.now()
    attempts.count(session, now, hash_of(f"forgotten {kept}"), FREE_OF_ACCOUNT)
    if not attempts.is_own(address):
        key = hash_of(f"forgotten from {neighbourhood(address)}")
        attempts.count(session, now, key, attempts.FREE_OF_ADDRESS)
    outbox.put(session, clock, context().settings, Occasion.FORGOTTEN, kept)
