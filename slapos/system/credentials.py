"""The files by which this machine, or its user, proves who it is to a master; their renewal.

With each renewal comes another key, made here; key and certificate are put in place together
(`key_pair.py`). Where only the key proves who we are, the next certificate is for the same one.
"""

import logging
import os
import ssl
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from slapos.protocol.certificate import Certificate, read_certificate
from slapos.protocol.enrolment_client import EnrolmentClient, Issued
from slapos.protocol.errors import Forbidden, MasterFailed, SlapOSError, Unauthorized
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.tls import NotTrusted
from slapos.system.clock import Clock
from slapos.system.files import sync_folder, write_if_changed
from slapos.system.key_pair import put_pair
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Seconds after which the master is asked for its authorities again.
AUTHORITY_INTERVAL = 86400.0


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Key, certificate and authority (PEM files), and the master that they are for.

    Only an `authority_file` beside the certificate is kept up to date: another one is somebody
    else's.
    """

    master_url: str
    key_file: Path
    certificate_file: Path
    authority_file: Path | None = None
    timeout: float = 60.0

    @classmethod
    def renewable(
        cls,
        master_url: str,
        key_file: Path | None,
        certificate_file: Path | None,
        authority_file: Path | None,
        *,
        timeout: float,
    ) -> "Credentials | None":
        """Return them when they are such as our master makes and renews, else None."""
        if not master_url.startswith("https://") or key_file is None or certificate_file is None:
            return None
        found = read_certificate(certificate_file)
        if found is None or not found.uri:
            return None
        return cls(
            master_url=master_url,
            key_file=key_file,
            certificate_file=certificate_file,
            authority_file=authority_file,
            timeout=timeout,
        )

    def certificate(self) -> Certificate:
        """Return what the certificate says. Raises OSError, MasterFailed when there is none."""
        found = read_certificate(self.certificate_file)
        if found is None:
            raise MasterFailed(f"{self.certificate_file} cannot be read as a certificate")
        return found

    @property
    def lock(self) -> Path:
        """Return the file that is locked while somebody renews."""
        return self.certificate_file.with_name(f".{self.certificate_file.name}.lock")

    @property
    def next_key(self) -> Path | None:
        """Return the file with the key of a renewal that is not finished.

        None where key and certificate are in two folders, and cannot be exchanged together.
        """
        if self.key_file.parent != self.certificate_file.parent:
            return None
        return self.key_file.with_name(f".next.{self.key_file.name}")

    @property
    def kept_authority(self) -> Path | None:
        """Return the file with the authorities, when it is ours to keep up to date."""
        path = self.authority_file
        return path if path is not None and path.parent == self.certificate_file.parent else None

    def http_settings(self, *, shows_certificate: bool = True) -> HttpSettings:
        """Return how to reach the master."""
        settings = HttpSettings(
            base_url=self.master_url,
            timeout=self.timeout,
            key_file=self.key_file,
            certificate_file=self.certificate_file,
            authority_file=self.authority_file,
        )
        if shows_certificate:
            return settings
        return replace(settings, key_file=None, certificate_file=None)


def renew(credentials: Credentials, clock: Clock) -> Certificate:
    """Replace key and certificate (and the authorities) by what the master makes of them now.

    One that has expired, or that the master no longer takes, is renewed by a request which proves
    that we have its key, and for that key. Raises SlapOSError, OSError; then all is as it was.
    """
    before = credentials.certificate()
    name = before.uri.rpartition(":")[2]
    key, issued = _asked(credentials, name, is_valid=before.not_after > clock.now())
    check_issued(issued.certificate, key, before.uri)
    _keep_authority(credentials, issued.authority)
    if credentials.next_key is not None:
        put_pair(credentials.key_file, credentials.certificate_file, key, issued.certificate)
        credentials.next_key.unlink(missing_ok=True)
    else:
        write_if_changed(credentials.certificate_file, issued.certificate)
        sync_folder(credentials.certificate_file.parent)
    return credentials.certificate()


def _asked(credentials: Credentials, name: str, *, is_valid: bool) -> tuple[str, Issued]:
    """Return the key that a certificate was made for, and that certificate."""
    # Imported when it is needed: it takes some megabytes.
    from slapos.protocol.certificate_request import make_request  # noqa: PLC0415

    old = credentials.key_file.read_text()
    if is_valid:
        # A new one waits in a file: where the answer gets lost, it is asked for again.
        waiting = credentials.next_key
        key = old if waiting is None else waiting_key(waiting)
        with closing(HttpClient(credentials.http_settings())) as http:
            try:
                return key, EnrolmentClient(http).renew(make_request(key, name))
            except (NotTrusted, Unauthorized, Forbidden):
                pass  # what stands before the master may not pass it on; the key proves it, too
    settings = credentials.http_settings(shows_certificate=False)
    with closing(HttpClient(settings)) as http:
        shown = credentials.certificate_file.read_text()
        return old, EnrolmentClient(http).renew(make_request(old, name), expired=shown)


def waiting_key(path: Path) -> str:
    """Return the key for a certificate that is being asked for; a new one when none waits there."""
    from slapos.protocol.certificate_request import (  # noqa: PLC0415
        UnusableKey,
        key_digest,
        make_key,
    )

    try:
        key = path.read_text()
        key_digest(key)
        return key
    except FileNotFoundError:
        pass
    except (UnusableKey, UnicodeDecodeError) as error:
        logger.warning("%s is made anew: %s", path, error)
    key = make_key()
    write_if_changed(path, key, mode=0o600)
    sync_folder(path.parent)
    return key


def check_issued(certificate: str, key: str, uri: str) -> None:
    """See that a certificate (PEM) is of our key, and speaks of us. Raises MasterFailed."""
    from slapos.protocol.certificate_request import (  # noqa: PLC0415
        UnusableKey,
        fingerprint,
        key_digest,
        subject_uri,
    )

    try:
        is_of_key = fingerprint(certificate) == key_digest(key)
    except UnusableKey as error:
        raise MasterFailed(f"the master's answer makes no sense: {error}") from error
    if not is_of_key:
        raise MasterFailed("the master sent a certificate of another key: it is not used")
    if (sent := subject_uri(certificate)) != uri:
        raise MasterFailed(
            f"the master sent the certificate of {sent or 'nobody'} instead of that of {uri}: it "
            "is not used"
        )


def keep_current(credentials: Credentials, clock: Clock, spread: float = 0.0) -> list[str]:
    """Renew the certificate when it is due, and ask for the authorities daily; say what failed."""
    troubles = []
    # First whom to trust: all else asks the master.
    for work in (_refresh_in_time, _renew_in_time):
        try:
            work(credentials, clock, spread)
        except AlreadyRunning as error:
            logger.debug("%s", error)
        except (SlapOSError, OSError) as error:
            troubles.append(str(error))
    return troubles


def _refresh_in_time(credentials: Credentials, clock: Clock, _spread: float) -> None:
    path = credentials.kept_authority
    if path is None:
        return
    age = clock.now().timestamp() - path.stat().st_mtime
    if 0 <= age < AUTHORITY_INTERVAL:
        return
    with process_lock(credentials.lock):
        if refresh_authority(credentials):
            logger.info("the master has other authorities: they are trusted now")


def _renew_in_time(credentials: Credentials, clock: Clock, spread: float) -> None:
    if not _is_due(credentials, clock, spread):
        return
    with process_lock(credentials.lock):
        if _is_due(credentials, clock, spread):  # nobody else has done it meanwhile
            made = renew(credentials, clock)
            logger.info("the certificate is renewed, it is valid until %s", made.not_after)


def _is_due(credentials: Credentials, clock: Clock, spread: float) -> bool:
    return clock.now() >= credentials.certificate().due(spread)


def refresh_authority(credentials: Credentials) -> bool:
    """Take over what authorities the master has now; return whether they changed.

    The file's time then says when they were asked for.
    """
    # Without our certificate: it may have expired, and this is for everybody.
    settings = credentials.http_settings(shows_certificate=False)
    with closing(HttpClient(settings)) as http:
        found = EnrolmentClient(http).authority().certificates
    return _keep_authority(credentials, "".join(f"{each.strip()}\n" for each in found))


def _keep_authority(credentials: Credentials, bundle: str) -> bool:
    path = credentials.kept_authority
    if path is None:
        return False
    check_bundle(bundle)
    if write_if_changed(path, bundle):
        return True
    os.utime(path)
    return False


def check_bundle(bundle: str) -> None:
    """See that a text holds certificates of authorities. Raises MasterFailed."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError) as error:
        raise MasterFailed(f"the master sent authorities that cannot be read: {error}") from error
    if not context.cert_store_stats()["x509_ca"]:
        raise MasterFailed("the master sent no certificate of an authority")
