"""How often somebody has guessed, for an account or from an address: it is counted in the database,
so that all processes and machines of a master count together.
"""

import math
from datetime import datetime, timedelta
from ipaddress import ip_address

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.identity.credentials import Attempts
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.subject import Subject
from slapos.master.traffic.limits import neighbourhood
from slapos.protocol.errors import TooManyAttempts

#: Failures before the first wait: of one account, and from one address.
FREE_OF_ACCOUNT = 5
FREE_OF_ADDRESS = 30
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=15)
#: Failures are forgotten when there were none for so long.
FORGOTTEN = timedelta(hours=1)

_ATTEMPTS = select(Attempts).where(Attempts.key == bindparam("key"))
_LOCKED = _ATTEMPTS.with_for_update()


class LockedOut(TooManyAttempts):
    """Somebody guesses; `about` is what of, None when there is no such thing."""

    def __init__(self, message: str, seconds: int, about: Subject | None = None) -> None:
        super().__init__(message, seconds)
        self.about = about


def key_of_account(email: str) -> str:
    """Return what attempts for an account are counted by; `email` is in lower case."""
    return hash_of(f"account {email}")


def key_of_address(address: str) -> str:
    """Return what attempts to sign in from an address, or its neighbours, are counted by."""
    return hash_of(f"address {neighbourhood(address)}")


def key_of_guesses(address: str) -> str:
    """Return what guesses of links, invitations and join tokens are counted by."""
    return hash_of(f"guesses {neighbourhood(address)}")


def is_own(address: str) -> bool:
    """Return whether it is this machine: a web server in front, which stands for everybody."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True


def check(session: Session, now: datetime, key: str, about: Subject | None = None) -> None:
    """Raise LockedOut as long as nobody may try."""
    _check(session.scalar(_ATTEMPTS, {"key": key}), now, about)


def count(
    session: Session, now: datetime, key: str, free: int, about: Subject | None = None
) -> None:
    """Count an attempt as failed until it has succeeded; raises LockedOut.

    The `free`th has the next one wait.
    """
    attempts = session.scalar(_LOCKED, {"key": key})
    _check(attempts, now, about)
    _fail(session, now, key, free, attempts)


def fail(session: Session, now: datetime, key: str, free: int) -> None:
    """Count an attempt that has failed; the `free`th has the next one wait."""
    _fail(session, now, key, free, session.scalar(_LOCKED, {"key": key}))


def _fail(session: Session, now: datetime, key: str, free: int, attempts: Attempts | None) -> None:
    if attempts is None:
        # Another one may make the same row: then this transaction is done again.
        attempts = Attempts(key=key, failures=0, last_at=now)
        session.add(attempts)
    elif now - attempts.last_at > FORGOTTEN:
        attempts.failures = 0
    attempts.failures += 1
    attempts.last_at = now
    over = attempts.failures - free
    if over >= 0:
        attempts.blocked_until = now + min(FIRST_WAIT * 2 ** min(over, 10), LONGEST_WAIT)
    session.flush()


def take_back(session: Session, key: str) -> None:
    """Forget one attempt, which has not failed."""
    attempts = session.scalar(_LOCKED, {"key": key})
    if attempts is not None and attempts.failures:
        attempts.failures -= 1
        attempts.blocked_until = None
        session.flush()


def _check(attempts: Attempts | None, now: datetime, about: Subject | None) -> None:
    if attempts is None or attempts.blocked_until is None or attempts.blocked_until <= now:
        return
    wait = attempts.blocked_until - now
    raise LockedOut(
        f"there were too many attempts that failed; try again in {_words(wait)}",
        math.ceil(wait.total_seconds()),
        about,
    )


def _words(wait: timedelta) -> str:
    seconds = math.ceil(wait.total_seconds())
    return f"{seconds} seconds" if seconds < 90 else f"{math.ceil(seconds / 60)} minutes"
