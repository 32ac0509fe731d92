"""Personal tokens: what programs show to act for a person, within scopes and until they expire."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from slapos.master.database import LARGEST_ID
from slapos.master.identity import rights
from slapos.master.identity.authentication import TOKEN_PREFIX
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.credentials import PersonalToken
from slapos.master.identity.model import NAME_LENGTH
from slapos.master.identity.one_way import hash_of, new_secret
from slapos.master.identity.rights import SCOPES, Action
from slapos.master.identity.subject import Kind, Subject
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict, Forbidden, InvalidFields
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

LONGEST_LIFE = timedelta(days=366)
#: A person with more has lost count of them.
MOST = 100


def tokens(session: Session) -> Select[Any]:
    """Return a SELECT of the caller's tokens, also of those that have expired."""
    return select(PersonalToken).where(PersonalToken.person_id == _person_id(session))


def create_token(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    *,
    title: str,
    scopes: Collection[str],
    expires_at: datetime,
) -> tuple[PersonalToken, str]:
    """Make a token for the caller, and return it with its secret, which nobody can tell again."""
    person_id = _person_id(session)
    rights.require(session, Action.CREATE, Subject(Kind.TOKEN, title, owner_id=person_id))
    now = clock.now()
    _check_scopes(scopes)
    if not now < expires_at <= now + LONGEST_LIFE:
        reason = "it must be in the future, and within a year"
        raise InvalidFields(f"the token cannot expire then: {reason}", {"expires_at": reason})
    if len(session.scalars(tokens(session).limit(MOST)).all()) == MOST:
        raise Conflict(f"you have {MOST} tokens; revoke those that nobody uses")
    secret = new_secret(identifiers, TOKEN_PREFIX)
    token = PersonalToken(
        person_id=person_id,
        title=checked_text("the title", title.strip(), NAME_LENGTH),
        hash=hash_of(secret),
        scopes=" ".join(sorted(set(scopes))),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(token)
    session.flush()
    return token, secret


def revoke_token(session: Session, number: int) -> None:
    """Have a token count no more; raises NotFound."""
    token = session.get(PersonalToken, number) if number <= LARGEST_ID else None
    if token is None:
        raise rights.not_there(Subject(Kind.TOKEN, str(number)))
    rights.require(session, Action.DESTROY, token)
    session.delete(token)
    session.flush()


def _check_scopes(scopes: Collection[str]) -> None:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        reason = f"it must name one or more of {', '.join(SCOPES)}"
        raise InvalidFields(f"the scopes cannot be used: {reason}", {"scopes": reason})


def _person_id(session: Session) -> int:
    caller = caller_of(session)
    if caller.kind is not CallerKind.PERSON or caller.id is None:
        raise Forbidden("only persons have tokens; nodes and instances show their certificates")
    return caller.id
