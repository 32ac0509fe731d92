"""The id of a request: in its answer, in logs and in the audit log, so that they can be matched."""

import itertools
import re
from collections.abc import Callable

from sqlalchemy.orm import Session

from slapos.system.identifier import Identifiers

HEADER = "X-Request-Id"
PREFIX_LENGTH = 10

_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_INFO = "slapos_request_id"


def request_ids(identifiers: Identifiers) -> Callable[[str | None], str]:
    """Return what gives a request its id: the one that its client has sent, if that is sane.

    A new one begins as all of this process do: by chance, so that no other process has it.
    """
    prefix = identifiers.token(PREFIX_LENGTH)
    numbers = itertools.count(1)

    def give(sent: str | None) -> str:
        if sent is not None and _SANE.fullmatch(sent):
            return sent
        return f"{prefix}-{next(numbers):x}"

    return give


def remember(session: Session, request_id: str) -> None:
    """Have a session know for which request it works."""
    session.info[_INFO] = request_id


def request_of(session: Session) -> str | None:
    """Return the id of the request that a session works for, None outside of requests."""
    found: str | None = session.info.get(_INFO)
    return found
