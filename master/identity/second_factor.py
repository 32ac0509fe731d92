"""A second factor: codes of six digits that a device makes of a secret and the time (RFC 6238).

Each counts once, and from 30 seconds before its time to 30 after, as clocks differ. Recovery codes
stand in for them, once each.
"""

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from slapos.master.identity import rights
from slapos.master.identity.credentials import RecoveryCode, SecondFactor
from slapos.master.identity.model import Person
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.rights import Action
from slapos.master.identity.secret_box import SecretBox
from slapos.protocol.errors import Conflict, InvalidFields
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

PURPOSE = "second factor"
STEP = 30
DIGITS = 6
#: How many steps a device may be ahead or behind.
DRIFT = 1
#: Letters of base32: 160 bits, as RFC 4226 wants.
SEED_LENGTH = 32
CODES = 10
CODE_LENGTH = 24
ISSUER = "SlapOS"

_CONFIRMED = select(SecondFactor.person_id).where(
    SecondFactor.person_id == bindparam("person"), SecondFactor.confirmed_at.is_not(None)
)
_RECOVERY = select(RecoveryCode).where(RecoveryCode.hash == bindparam("hash"))


@dataclass(frozen=True)
class Enrolment:
    """What a device needs: the secret in base32, and the same as a URI for it."""

    secret: str
    uri: str


def code_at(secret: str, step: int) -> str:
    """Return the code of a step of time; `secret` is in base32."""
    key = base64.b32decode(secret)
    digest = hmac.digest(key, struct.pack(">Q", step), hashlib.sha1)
    start = digest[-1] & 15
    number = struct.unpack(">I", digest[start : start + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def step_of(clock: Clock) -> int:
    """Return the step of time that it is."""
    return int(clock.now().timestamp()) // STEP


def is_needed(session: Session, person_id: int) -> bool:
    """Return whether a person has to type a code when she signs in; asks for no right."""
    return session.scalar(_CONFIRMED, {"person": person_id}) is not None


def begin(session: Session, identifiers: Identifiers, box: SecretBox, person: Person) -> Enrolment:
    """Give a person a secret, which counts once she has typed a code of it."""
    rights.require(session, Action.CHANGE, person)
    factor = session.get(SecondFactor, person.id, with_for_update=True)
    if factor is not None and factor.confirmed_at is not None:
        raise Conflict("you have a second factor already; remove it first")
    seed = hashlib.sha256(identifiers.token(2 * SEED_LENGTH).encode()).digest()
    secret = base64.b32encode(seed).decode()[:SEED_LENGTH]
    if factor is None:
        factor = SecondFactor(person_id=person.id, last_step=0)
        session.add(factor)
    factor.sealed = box.seal(secret)
    session.flush()
    return Enrolment(secret, uri_of(person, secret))


def uri_of(person: Person, secret: str) -> str:
    """Return what devices read as a picture."""
    label = quote(f"{ISSUER}:{person.email or person.reference}")
    return f"otpauth://totp/{label}?secret={secret}&issuer={ISSUER}&digits={DIGITS}&period={STEP}"


def begun(session: Session, box: SecretBox, person: Person) -> Enrolment | None:
    """Return what a person has been given and not confirmed, None when there is nothing such."""
    rights.require(session, Action.CHANGE, person)
    factor = session.get(SecondFactor, person.id)
    if factor is None or factor.confirmed_at is not None:
        return None
    secret = box.open(factor.sealed)
    return Enrolment(secret, uri_of(person, secret))


def confirm(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    box: SecretBox,
    person: Person,
    code: str,
) -> list[str]:
    """Have codes asked for from now on; return the recovery codes, which are told only now."""
    rights.require(session, Action.CHANGE, person)
    factor = session.get(SecondFactor, person.id, with_for_update=True)
    if factor is None or factor.confirmed_at is not None:
        raise Conflict("there is no second factor to be confirmed; begin with one")
    if not _counts(clock, box, factor, code):
        reason = "it is not the present one: is the clock of the device right?"
        raise InvalidFields(f"the code cannot be used: {reason}", {"code": reason})
    factor.confirmed_at = clock.now()
    session.execute(delete(RecoveryCode).where(RecoveryCode.person_id == person.id))
    codes = [_grouped(identifiers.token(CODE_LENGTH)) for _ in range(CODES)]
    session.add_all(
        RecoveryCode(person_id=person.id, hash=_hash_of_code(person.id, each)) for each in codes
    )
    session.flush()
    return codes


def check(session: Session, clock: Clock, box: SecretBox, person_id: int, code: str) -> bool:
    """Return whether a code counts for a person, and have it count no more; asks for no right."""
    factor = session.get(SecondFactor, person_id, with_for_update=True)
    if factor is None or factor.confirmed_at is None:
        return False
    if _counts(clock, box, factor, code):
        return True
    # The row of the second factor is locked: nobody else uses the same one now.
    used = session.scalar(_RECOVERY, {"hash": _hash_of_code(person_id, code)})
    if used is None:
        return False
    session.delete(used)
    session.flush()
    return True


def remove(session: Session, person: Person) -> None:
    """Have no code asked for any more."""
    rights.require(session, Action.ADMINISTER, person)
    take_away(session, person.id)


def take_away(session: Session, person_id: int) -> None:
    """Do what `remove` does; asks for no right."""
    session.execute(delete(RecoveryCode).where(RecoveryCode.person_id == person_id))
    factor = session.get(SecondFactor, person_id)
    if factor is not None:
        session.delete(factor)
    session.flush()


def _counts(clock: Clock, box: SecretBox, factor: SecondFactor, code: str) -> bool:
    typed = code.replace(" ", "")
    secret, now = box.open(factor.sealed), step_of(clock)
    for step in range(max(now - DRIFT, factor.last_step + 1), now + DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), typed.encode(errors="replace")):
            factor.last_step = step
            return True
    return False


def _grouped(code: str) -> str:
    return "-".join(code[start : start + 6] for start in range(0, CODE_LENGTH, 6))


def _hash_of_code(person_id: int, code: str) -> str:
    return hash_of(f"{person_id} {code.replace('-', '').replace(' ', '')}")
