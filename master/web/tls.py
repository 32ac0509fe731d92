"""TLS of the web server: its certificate, and which client certificates it takes.

A certificate is either given in files, or made by our own authority for a key that this process
keeps to itself. Both may change while it runs: what is new counts for new connections.

Client certificates are asked for, not demanded. Whether one has ended is looked at with each
request and not here, so that its holder is told so in words (`certificates/showing.py`).
"""

import asyncio
import logging
import socket
import ssl
import tempfile
from asyncio.sslproto import SSLProtocol
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import key_text
from slapos.master.database import Database
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.settings import Settings
from slapos.master.web.workers import Workers
from slapos.protocol.errors import InvalidConfiguration, SlapOSError

#: Seconds between two looks for other authorities and files; well below KNOWN_AFTER.
GLANCE = 30.0
#: The part of its life after which the certificate of this process is made anew.
RENEWED_AFTER = 2 / 3
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name.
NO_CHECK_TIME = 0x200000
#: Bytes that are read at once of a connection. asyncio has a buffer as large for each one, of
#: 256 KiB unless told otherwise: five sixths of what a node that waits would cost.
READ_AT_ONCE = 8 * 1024
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Made:
    """A certificate that was made, after its key, and the authority that has signed it."""

    pem: str
    not_after: datetime
    signed_by: str


@dataclass(frozen=True)
class _Found:
    """Authorities (PEM) that are new, and a certificate that was made because one was due."""

    authorities: set[str]
    made: _Made | None


class ServerTls:
    """The TLS context of a web process, kept up to date."""

    def __init__(self, settings: Settings, database: Database, issuing: Issuing) -> None:
        self._settings, self._database, self._issuing = settings, database, issuing
        self._authorities: set[str] = set()
        self._renew_at: datetime | None = None
        self._signed_by: str | None = None
        self._files: tuple[float, float] | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.verify_flags |= NO_CHECK_TIME
        self.refresh()

    def refresh(self) -> None:
        """Take over authorities and a certificate that are new. Raises SlapOSError, OSError."""
        self._take_over(self._look())

    def _look(self) -> _Found:
        """Return what is new in the database, where a certificate is made that is due."""
        made = None
        with self._database.writing() as session:
            serve(session, SYSTEM)
            authorities.ensure_authority(session, self._issuing)
            trusted = authorities.trusted(session)
            signer = trusted[-1].certificate
            if self._settings.certificate_file is None and self._is_due(signer):
                key = ec.generate_private_key(ec.SECP256R1())
                hosts = server_names(self._settings)
                issued = certificates.issue_server(session, self._issuing, hosts, key.public_key())
                made = _Made(key_text(key) + issued.certificate, issued.not_after, signer)
            session.commit()
        return _Found({each.certificate for each in trusted} - self._authorities, made)

    def _take_over(self, found: _Found) -> None:
        if self._settings.certificate_file is not None:
            self._load_files()
        elif found.made is not None:
            self._load(found.made.pem)
            now = self._issuing.clock.now()
            self._renew_at = now + (found.made.not_after - now) * RENEWED_AFTER
            self._signed_by = found.made.signed_by
        if found.authorities:
            self.context.load_verify_locations(cadata="".join(sorted(found.authorities)))
            self._authorities |= found.authorities

    async def run(self, workers: Workers, glance: float = GLANCE) -> None:
        """Refresh each `glance` seconds, until it is cancelled."""
        while True:
            await asyncio.sleep(glance)
            try:
                # A handshake must not meet the new certificate without its key: so there is none
                # meanwhile, as the event loop takes it over.
                self._take_over(await workers.run(self._look))
            except (SlapOSError, SQLAlchemyError, OSError) as error:
                log.warning("the TLS certificate stays as it is: %s", error)

    def _is_due(self, authority: str) -> bool:
        """Return whether this process needs another certificate, signed by that authority."""
        if self._renew_at is None or self._signed_by != authority:
            return True
        return self._issuing.clock.now() >= self._renew_at

    def _load(self, pem: str) -> None:
        """Take over a key and its certificate: Python reads them from files only."""
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600
            file.write(pem)
            file.flush()
            self.context.load_cert_chain(file.name)

    def _load_files(self) -> None:
        certificate, key = self._settings.certificate_file, self._settings.key_file
        assert certificate is not None
        assert key is not None
        try:
            found = (certificate.stat().st_mtime, key.stat().st_mtime)
            if found == self._files:
                return
            self.context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidConfiguration(
                f"the certificate {certificate} and its key {key} cannot be used: {error}"
            ) from error
        self._files = found


def server_names(settings: Settings) -> Sequence[str]:
    """Return under which names and addresses a web process is reached, the public one first."""
    public = urlsplit(settings.public_url).hostname
    names = [public or "", settings.host, socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    wild = {"", "0.0.0.0", "::"}
    return list(dict.fromkeys(name for name in names if name not in wild))


def bound_buffers() -> None:
    """Have each TLS connection of this process take little memory while it is silent."""
    SSLProtocol.max_size = READ_AT_ONCE


def peer_certificate(transport: asyncio.Transport) -> bytes | None:
    """Return the verified certificate of the client of a connection (DER)."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(binary_form=True)
