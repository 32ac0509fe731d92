"""Signing in and out, in two transactions: between them the password is hashed, which takes long.

An attempt is counted before it is looked at, so that many at once do not get more guesses; what
was right is taken back. Whether there is such an account shows neither in words nor in time.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.orm import Session

from slapos.master.database import LARGEST_ID
from slapos.master.identity import attempts, links, rights, second_factor
from slapos.master.identity.authentication import IDLE, caller_of_person
from slapos.master.identity.caller import serve
from slapos.master.identity.credentials import (
    ADDRESS_LENGTH,
    AGENT_LENGTH,
    Attempts,
    OneTimeLink,
    Password,
    PersonalToken,
    SignIn,
)
from slapos.master.identity.model import Person
from slapos.master.identity.one_way import hash_of, new_secret
from slapos.master.identity.rights import Action
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import SignInRefused
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

#: A session is over then, however much it is used.
LIFE = timedelta(days=7)
REFUSED = "the e-mail address and the password do not belong together, or you may not sign in"

_ACCOUNT = (
    select(Person, Password.hash)
    .outerjoin(Password, Password.person_id == Person.id)
    .where(Person.email == bindparam("email"))
)


@dataclass(frozen=True)
class Attempt:
    """Somebody who wants to sign in: whose account it would be, and what the request shows."""

    person_id: int | None
    #: What is kept of the password.
    kept: str | None
    account_key: str
    address_key: str
    address: str
    agent: str
    #: The account, when there is one.
    about: Subject | None


def begin(session: Session, clock: Clock, email: str, address: str, agent: str) -> Attempt:
    """Count an attempt, and return what it needs; raises TooManyAttempts."""
    named, now = email.strip().lower(), clock.now()
    found = session.execute(_ACCOUNT, {"email": named}).one_or_none()
    person, kept = (None, None) if found is None else found
    about = None if person is None else person.subject()
    account_key, address_key = attempts.key_of_account(named), attempts.key_of_address(address)
    attempts.count(session, now, account_key, attempts.FREE_OF_ACCOUNT, about)
    if not attempts.is_own(address):
        attempts.count(session, now, address_key, attempts.FREE_OF_ADDRESS, about)
    return Attempt(
        None if person is None else person.id,
        kept,
        account_key,
        address_key,
        address[:ADDRESS_LENGTH],
        agent[:AGENT_LENGTH],
        about,
    )


@dataclass(frozen=True)
class Entered:
    """What a browser gets: the secret of a session, or of one that begins with a code."""

    person_id: int
    secret: str
    awaits_code: bool = False


def finish(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    box: SecretBox | None,
    attempt: Attempt,
    *,
    better: str | None = None,
    code: str | None = None,
) -> Entered:
    """Begin a session for who has shown her password.

    `better` is it hashed as today's are, when it is to be kept so. Who has a second factor and
    gives no `code` gets what waits for one. Raises SignInRefused.
    """
    person_id = _serve_person(session, attempt)
    password = session.get(Password, person_id)
    if password is None or password.hash != attempt.kept:
        raise SignInRefused(REFUSED)  # it was changed meanwhile
    if better is not None:
        password.hash = better
    if second_factor.is_needed(session, person_id):
        if code is None:
            secret = links.make_code_link(session, clock, identifiers, person_id)
            return Entered(person_id, secret, awaits_code=True)
        _check_code(session, clock, box, person_id, code)
    return _enter(session, clock, identifiers, person_id, attempt)


def finish_with_code(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    box: SecretBox | None,
    attempt: Attempt,
    *,
    secret: str,
    code: str,
) -> Entered:
    """Begin a session for who has shown her password before, and now a code.

    Raises SignInRefused, SecretInvalid.
    """
    person_id = _serve_person(session, attempt)
    link = links.find(session, clock, links.LinkKind.CODE, secret, lock=True)
    if link.person_id != person_id:
        raise SignInRefused(REFUSED)
    _check_code(session, clock, box, person_id, code)
    session.delete(link)
    return _enter(session, clock, identifiers, person_id, attempt)


def _serve_person(session: Session, attempt: Attempt) -> int:
    """Have a session act for whose account it is; raises SignInRefused."""
    person_id = attempt.person_id
    caller = None if person_id is None else caller_of_person(session, person_id)
    if person_id is None or caller is None:
        raise SignInRefused(REFUSED)
    serve(session, caller)
    return person_id


def _check_code(
    session: Session, clock: Clock, box: SecretBox | None, person_id: int, code: str
) -> None:
    if box is None or not second_factor.check(session, clock, box, person_id, code):
        raise SignInRefused("the code is not the present one, or it has been used")


def _enter(
    session: Session, clock: Clock, identifiers: Identifiers, person_id: int, attempt: Attempt
) -> Entered:
    take_back(session, attempt)
    address, agent = attempt.address, attempt.agent
    return Entered(person_id, start(session, clock, identifiers, person_id, address, agent))


def start(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    person_id: int,
    address: str,
    agent: str,
) -> str:
    """Begin a session of a person, and return its secret; asks for no right."""
    secret, now = new_secret(identifiers), clock.now()
    session.add(
        SignIn(
            person_id=person_id,
            hash=hash_of(secret),
            created_at=now,
            used_at=now,
            expires_at=now + LIFE,
            address=address[:ADDRESS_LENGTH],
            agent=agent[:AGENT_LENGTH],
        )
    )
    session.flush()
    return secret


def end(session: Session, secret: str) -> None:
    """End the session of a secret, when there is one."""
    found = session.scalar(select(SignIn).where(SignIn.hash == hash_of(secret)))
    if found is not None:
        session.delete(found)
        session.flush()


def sign_ins(session: Session, clock: Clock, person_id: int) -> Select[Any]:
    """Return a SELECT of a person's sessions that still count."""
    rights.require(session, Action.SEE, Subject(Kind.TOKEN, "sessions", owner_id=person_id))
    now = clock.now()
    return select(SignIn).where(
        SignIn.person_id == person_id, SignIn.expires_at > now, SignIn.used_at >= now - IDLE
    )


def end_one(session: Session, number: int) -> None:
    """End a session; raises NotFound."""
    found = session.get(SignIn, number) if number <= LARGEST_ID else None
    if found is None:
        raise rights.not_there(Subject(Kind.TOKEN, f"sign-in {number}"))
    rights.require(session, Action.DESTROY, found)
    session.delete(found)
    session.flush()


def set_password(
    session: Session, clock: Clock, person_id: int, kept: str, *, spare: str | None = None
) -> None:
    """Give a person another password; her links end, and her sessions but that of `spare`.

    `spare` is the secret of a session. Asks for no right.
    """
    password = session.get(Password, person_id, with_for_update=True)
    if password is None:
        session.add(Password(person_id=person_id, hash=kept, changed_at=clock.now()))
    else:
        password.hash, password.changed_at = kept, clock.now()
    kept_session = None if spare is None else hash_of(spare)
    for each in session.scalars(select(SignIn).where(SignIn.person_id == person_id)):
        if each.hash != kept_session:
            session.delete(each)
    # Who knew the old one, and has a code to type yet, begins again.
    session.execute(delete(OneTimeLink).where(OneTimeLink.person_id == person_id))
    session.flush()


def forget_all(session: Session, person_id: int) -> None:
    """End a person's sessions and tokens: she has lost them, or somebody has found them."""
    for kind in (SignIn, PersonalToken):
        for each in session.scalars(select(kind).where(kind.person_id == person_id)):
            session.delete(each)  # one by one, as the audit log sees it then
    session.flush()


def take_back(session: Session, attempt: Attempt) -> None:
    """Forget the failures of an account, and of the address only this attempt.

    Who has one account cannot go on guessing others by signing in between.
    """
    session.execute(delete(Attempts).where(Attempts.key == attempt.account_key))
    attempts.take_back(session, attempt.address_key)
