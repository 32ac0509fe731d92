"""Sending e-mail by SMTP: TLS always, and verified, but to this very machine."""

import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from slapos.master.settings import Settings
from slapos.protocol.errors import InvalidConfiguration

#: Seconds for one step.
PATIENCE = 20.0
PORTS = {"smtp": 587, "smtps": 465}
#: Hosts that are reached without a network.
OWN = frozenset({"localhost", "127.0.0.1", "::1"})
#: Of answers by which a server says that it will never take it (RFC 5321).
NEVER = range(500, 600)


@dataclass(frozen=True)
class Sent:
    """What came of an e-mail: `reason` says why it was not taken, "" when it was."""

    reason: str = ""
    #: Whether it is no use to try again.
    is_final: bool = True


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """A mail server that takes our e-mail."""

    host: str
    port: int
    #: TLS from the beginning, and not after STARTTLS.
    begins_with_tls: bool = False
    user: str = ""
    password: str = ""
    authorities: Path | None = None

    def send(self, sender: str, messages: Sequence[EmailMessage]) -> list[Sent]:
        """Send e-mail, each with one recipient; return what came of each."""
        found: list[Sent] = []
        try:
            with self._connected() as smtp:
                for message in messages:
                    found.append(_send(smtp, sender, message))
        except (OSError, smtplib.SMTPException) as error:
            # What was taken was taken; of the others nobody knows.
            rest = Sent(_reason(error), is_final=False)
            found += [rest] * (len(messages) - len(found))
        return found

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context(
            cafile=None if self.authorities is None else str(self.authorities)
        )
        name = socket.getfqdn()
        if self.begins_with_tls:
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, name, timeout=PATIENCE, context=context
            )
        else:
            smtp = smtplib.SMTP(self.host, self.port, name, timeout=PATIENCE)
        try:
            smtp.ehlo()
            # A mail server of this machine often has a certificate that shows nothing.
            is_own = self.host in OWN and self.authorities is None
            if not self.begins_with_tls and not is_own:
                smtp.starttls(context=context)
                smtp.ehlo()
            if self.user:
                smtp.login(self.user, self.password)
        except (OSError, smtplib.SMTPException):
            smtp.close()
            raise
        return smtp


def mail_server(settings: Settings) -> MailServer:
    """Return the server of the settings; raises InvalidConfiguration for a password unread."""
    parts = urlsplit(settings.smtp_url)
    path = settings.smtp_password_file
    try:
        password = "" if path is None else path.read_text().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"smtp_password_file {path} cannot be read: {error.strerror}"
        ) from error
    return MailServer(
        host=parts.hostname or "",
        port=parts.port or PORTS[parts.scheme],
        begins_with_tls=parts.scheme == "smtps",
        user=unquote(parts.username or ""),
        password=password,
        authorities=settings.smtp_ca_file,
    )


def _send(smtp: smtplib.SMTP, sender: str, message: EmailMessage) -> Sent:
    try:
        smtp.send_message(message, sender, [str(message["To"])])
    except smtplib.SMTPRecipientsRefused as error:
        ((code, _text),) = error.recipients.values()
        return Sent(f"the recipient is refused ({code})", is_final=code in NEVER)
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        return Sent(f"it is refused ({error.smtp_code})", is_final=error.smtp_code in NEVER)
    except smtplib.SMTPNotSupportedError:
        return Sent("the server takes no such address")
    return Sent()


def _reason(error: Exception) -> str:
    """Return why a server could not be spoken to, without what it was told."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server answers {error.smtp_code}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the mail server offers no TLS (STARTTLS), or no way to sign in"
    return f"the mail server cannot be reached: {error}"
