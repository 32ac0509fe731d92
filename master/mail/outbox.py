"""Putting e-mail into the outbox, in the transaction of what it is about; a task sends it.

Where the settings name no mail server nothing is put there: links are shown or printed only.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from slapos.master.identity.credentials import Invitation
from slapos.master.identity.model import Person
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.subject import Kind
from slapos.master.mail.model import KnownAddress, Mail
from slapos.master.mail.texts import Occasion
from slapos.master.secret_file import read_secret
from slapos.master.settings import Settings
from slapos.master.tasks.task import sense
from slapos.master.traffic.limits import neighbourhood
from slapos.system.clock import Clock

#: The task that sends; its keys are ids of mails.
SEND = "send_mail"
PURPOSE = "mail"
ACCOUNT_PATH = "/account"

_KNOWN = select(KnownAddress.hash).where(KnownAddress.person_id == bindparam("person"))
_EMAIL = select(Person.email).where(Person.id == bindparam("person"))

#: Is told of what has been written into the audit log.
Then = Callable[[Session, Sequence[Mapping[str, Any]]], None]


def is_sent(settings: Settings) -> bool:
    """Return whether this master sends e-mail."""
    return bool(settings.smtp_url) and settings.secret_file is not None


def box_of(settings: Settings) -> SecretBox:
    """Return what sealed e-mail is opened with."""
    assert settings.secret_file is not None, "e-mail is the full profile's"
    return SecretBox(read_secret(settings.secret_file), PURPOSE)


def put(
    session: Session,
    clock: Clock,
    settings: Settings,
    occasion: Occasion,
    recipient: str,
    **values: str,
) -> bool:
    """Have an e-mail sent once this transaction is committed; return whether any is sent here."""
    if not is_sent(settings):
        return False
    now = clock.now()
    made = insert(Mail).values(
        occasion=occasion,
        recipient=recipient,
        sealed=box_of(settings).seal(json.dumps(values)),
        made_at=now,
        attempts=0,
        next_at=now,
    )
    number = session.connection().execute(made.returning(Mail.id)).scalar_one()
    sense(session, SEND, str(number))
    return True


def invite(
    session: Session, clock: Clock, settings: Settings, invitation: Invitation, link: str
) -> bool:
    """Send an invitation to who is invited; return whether e-mail is sent here."""
    project = invitation.project
    return put(
        session,
        clock,
        settings,
        Occasion.INVITATION,
        invitation.email,
        url=settings.public_url,
        role=invitation.role.replace("_", " "),
        place="everywhere" if project is None else f"in {project.title}",
        link=link,
    )


def notices(settings: Settings, clock: Clock) -> Then:
    """Return what tells people what has changed of their account, by what the audit log says."""

    def tell(session: Session, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            occasion = _occasion(session, entry)
            person_id = entry["owner_id"]
            if occasion is None or person_id is None:
                continue
            email = session.connection().execute(_EMAIL, {"person": person_id}).scalar()
            if email is None:
                continue
            values = {
                "url": settings.public_url.rstrip("/") + ACCOUNT_PATH,
                "at": moment(entry["at"]),
            }
            if occasion is Occasion.SIGN_IN:
                values["address"] = str(entry["changes"]["address"][1])
            put(session, clock, settings, occasion, email, **values)

    return tell if is_sent(settings) else _tell_nobody


def moment(at: datetime) -> str:
    """Return a time as e-mail says it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _tell_nobody(_session: Session, _entries: Sequence[Mapping[str, Any]]) -> None:
    """Do nothing: no e-mail is sent."""


def _occasion(session: Session, entry: Mapping[str, Any]) -> Occasion | None:
    kind, act, name, changes = (entry[each] for each in ("object_kind", "act", "object", "changes"))
    if kind == Kind.PERSON and "passwords.hash" in changes:
        # A first password has a person, too.
        return None if "passwords.person_id" in changes else Occasion.PASSWORD
    if kind != Kind.TOKEN:
        return None
    if name == "second factor":
        if act == "delete" and "confirmed_at" in changes:
            return Occasion.FACTOR_REMOVED
        return Occasion.FACTOR_ADDED if act == "change" and "confirmed_at" in changes else None
    if act == "create" and name.startswith("sign-in ") and "address" in changes:
        is_new = _is_new(session, entry["owner_id"], str(changes["address"][1]), entry["at"])
        return Occasion.SIGN_IN if is_new else None
    return None


def _is_new(session: Session, person_id: int, address: str, now: datetime) -> bool:
    """Note whence somebody signs in; return whether it is new, and not the first of all."""
    connection, digest = session.connection(), hash_of(neighbourhood(address))
    known = set(connection.execute(_KNOWN, {"person": person_id}).scalars())
    if digest in known:
        connection.execute(
            update(KnownAddress)
            .where(KnownAddress.person_id == person_id, KnownAddress.hash == digest)
            .values(seen_at=now)
        )
        return False
    # Another one may note the same at the same time: then this transaction is done again.
    connection.execute(insert(KnownAddress).values(person_id=person_id, hash=digest, seen_at=now))
    return bool(known)
