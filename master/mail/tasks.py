"""Sending what is in the outbox, until it is taken or too old."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from slapos.master.identity import links, service
from slapos.master.identity.model import PersonState
from slapos.master.mail.model import KnownAddress, Mail
from slapos.master.mail.outbox import SEND, box_of, is_sent
from slapos.master.mail.sending import MailServer, Sent, mail_server
from slapos.master.mail.texts import Occasion, written
from slapos.master.settings import Settings
from slapos.master.tasks.task import Apply, Done, Task, Turn, sense
from slapos.system.clock import Clock

#: The wait after a first failure, twice that after the second, and so on up to the longest.
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=2)
#: What nobody has taken for so long is given up: links in it have ended, or will soon.
GIVEN_UP = timedelta(days=2)
#: Where somebody has not signed in from for so long is new again.
KNOWN_FOR = timedelta(days=90)
PIECE = 500

_DUE = (
    select(Mail.id)
    .where(Mail.next_at <= bindparam("now"), Mail.id > bindparam("behind"))
    .order_by(Mail.id)
    .limit(PIECE)
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Letter:
    """An e-mail as it is sent."""

    number: int
    message: EmailMessage


def send(turn: Turn) -> Done:
    """Send the mails of the turn's keys: what takes the network is elsewhere."""
    session, now = turn.session, turn.clock.now()
    if turn.keys is None:
        found = session.scalars(_DUE, {"now": now, "behind": int(turn.resume or 0)}).all()
        for number in found:
            sense(session, SEND, str(number))
        return Done(resume=str(found[-1]) if len(found) == PIECE else "")
    if not is_sent(turn.settings):
        return Done()  # the settings have changed: what waits is forgotten when it is too old
    letters = []
    for key in turn.keys:
        mail = session.get(Mail, int(key), with_for_update=True)
        if mail is None:
            continue
        if mail.next_at > now:
            sense(session, SEND, key, at=mail.next_at)
        elif mail.occasion != Occasion.FORGOTTEN or _find_whose(turn, mail):
            letters += _letter(turn.settings, mail)
        else:
            session.delete(mail)
    session.flush()
    if not letters:
        return Done()
    server = mail_server(turn.settings)
    return Done(elsewhere=partial(_send, letters, server, turn.settings, turn.clock))


def _find_whose(turn: Turn, mail: Mail) -> bool:
    """Make a link of what somebody typed, if it is the address of an account."""
    session, settings = turn.session, turn.settings
    person = service.person_of_email(session, mail.recipient)
    if person is None or person.state != PersonState.ACTIVE:
        return False
    link = links.make_reset_link(session, turn.clock, turn.identifiers, person, settings.public_url)
    values = {"url": settings.public_url, "link": link}
    mail.occasion, mail.sealed = Occasion.RESET, box_of(settings).seal(json.dumps(values))
    return True


def _letter(settings: Settings, mail: Mail) -> list[_Letter]:
    try:
        return [_Letter(mail.id, _message(settings, mail))]
    except (ValueError, HeaderParseError):
        log.warning("mail %s (%s) is for an address that no mail can have", mail.id, mail.occasion)
        mail.next_at = mail.made_at + 2 * GIVEN_UP  # it is forgotten before
        return []


def _message(settings: Settings, mail: Mail) -> EmailMessage:
    values: Mapping[str, str] = json.loads(box_of(settings).open(mail.sealed))
    subject, text = written(Occasion(mail.occasion), values)
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = settings.mail_from
    message["To"] = Address(addr_spec=mail.recipient)
    message["Date"] = format_datetime(mail.made_at)
    # The same each time: a mail server knows by it what it has got already.
    digest = hashlib.sha256(f"{mail.id} {mail.sealed}".encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}@{message['From'].addresses[0].domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def _send(
    letters: Sequence[_Letter], server: MailServer, settings: Settings, clock: Clock
) -> Apply:
    results = server.send(settings.mail_from, [each.message for each in letters])
    numbers = [each.number for each in letters]
    return partial(_take_in, list(zip(numbers, results, strict=True)), clock.now())


def _take_in(results: Sequence[tuple[int, Sent]], now: datetime, session: Session) -> int:
    taken = 0
    for number, sent in results:
        mail = session.get(Mail, number, with_for_update=True)
        if mail is None:
            continue
        taken += not sent.reason
        if not sent.reason or sent.is_final or mail.made_at <= now - GIVEN_UP:
            if sent.reason:
                log.warning("mail %s (%s) is given up: %s", number, mail.occasion, sent.reason)
            session.delete(mail)
            continue
        log.warning("mail %s (%s) is tried again: %s", number, mail.occasion, sent.reason)
        mail.next_at = now + min(FIRST_WAIT * 2 ** min(mail.attempts, 10), LONGEST_WAIT)
        mail.attempts += 1
        sense(session, SEND, str(number), at=mail.next_at)
    session.flush()
    return taken


def _forget(turn: Turn) -> Done:
    now, count = turn.clock.now(), 0
    for statement in (
        delete(Mail).where(Mail.made_at < now - 2 * GIVEN_UP),
        delete(KnownAddress).where(KnownAddress.seen_at < now - KNOWN_FOR),
    ):
        gone = turn.session.connection().execute(statement)
        count += gone.rowcount
    return Done(count=count)


TASKS = (
    Task(
        name=SEND,
        summary="send e-mail to people",
        run=send,
        every=timedelta(minutes=10),
        in_local=False,
        batch=20,
        patience=timedelta(minutes=10),
    ),
    Task(
        name="forget_mail",
        summary="forget e-mail that nobody takes, and where people signed in from long ago",
        run=_forget,
        every=timedelta(days=1),
        in_local=False,
    ),
)
