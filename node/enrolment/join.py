"""Joining a master: a key is made here, the master makes a certificate, the settings name both.

May be killed at any point and run again: until all is done, the key waits in `ssl/joining.key`, and
the master answers the same join of the same key with the same node.
"""

import re
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from slapos.protocol.certificate import node_uri, read_certificate
from slapos.protocol.certificate_request import key_digest, make_request
from slapos.protocol.enrolment_client import EnrolmentClient, Issued
from slapos.protocol.errors import (
    Conflict,
    Forbidden,
    InvalidConfiguration,
    MasterFailed,
)
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.join_token import JoinToken
from slapos.protocol.tls import NotTrusted
from slapos.system.clock import Clock
from slapos.system.credentials import check_bundle, check_issued, waiting_key
from slapos.system.files import sync_folder, write_if_changed
from slapos.system.process_lock import process_lock
from slapos.system.settings import read_configuration
from slapos.system.settings_file import write_options
from slapos.system.trust import answers, known_authority

FOLDER = "ssl"
JOINING_KEY, JOINING_AUTHORITY = "joining.key", "joining-authority.pem"
KEY, CERTIFICATE, AUTHORITY, PARTITIONS = (
    "key.pem",
    "certificate.pem",
    "authority.pem",
    "partitions",
)
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class JoinRefused(Forbidden):
    """The master does not take the token."""

    code = "token_invalid"


@dataclass(frozen=True, kw_only=True)
class JoinOrder:
    """What to join, as whom, and which settings file gets to say so.

    `fresh` is what a settings file begins with that is not there yet. With `force`, another
    registration is given up.
    """

    master_url: str
    token: JoinToken
    name: str
    configuration: Path
    fresh: str = "[slapos]\n"
    force: bool = False
    timeout: float = 60.0

    @property
    def folder(self) -> Path:
        """Return where keys and certificates are kept."""
        return self.configuration.parent / FOLDER


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What this machine now is; `project` is empty when that was known before."""

    reference: str
    project: str
    master_url: str
    configuration: Path
    folder: Path
    not_after: datetime
    has_own_authority: bool


def join(order: JoinOrder, clock: Clock) -> Joined:
    """Register this machine at a master. Raises SlapOSError, OSError."""
    _check_url(order.master_url)
    order.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with process_lock(order.folder / ".joining.lock"):
        done = _finished(order)
        if done is not None:
            _clear(order)
            return done
        return _join(order, clock)


def _join(order: JoinOrder, clock: Clock) -> Joined:
    _check_registration(order)
    key = waiting_key(order.folder / JOINING_KEY)
    settings = _trusting(order, clock)
    with closing(HttpClient(settings)) as http:
        request = make_request(key, order.name)
        try:
            issued = EnrolmentClient(http).join(order.token.text, order.name, request)
        except Forbidden as error:
            raise JoinRefused(
                f"the master does not take the token: {error}; a token counts for 15 minutes, "
                f"once, and for the name it was made for (here it is {order.name!r}, see --name): "
                "make a new one"
            ) from error
    if not _REFERENCE.fullmatch(issued.reference):
        raise MasterFailed(
            f"the master calls this node {issued.reference!r}, which is no reference"
        )
    check_issued(issued.certificate, key, node_uri(issued.reference))
    folder = _put(order, key, issued, has_authority=settings.authority_file is not None)
    _write_settings(order, issued.reference, folder)
    _clear(order)
    return replace(_joined(order, issued.reference, folder), project=issued.project)


def _check_url(url: str) -> None:
    if not url.startswith("https://"):
        raise InvalidConfiguration(
            f"a node joins a master over https only, and {url} is not: certificates prove nothing "
            "without it"
        )


# Registrations that are there already.


def _check_registration(order: JoinOrder) -> None:
    """Raise Conflict when the settings are of a node already."""
    node, url = _registered(order.configuration)
    is_same = url.rstrip("/") == order.master_url.rstrip("/")
    if order.force or (not node and (not url or is_same)):
        return
    already = " already" if is_same else ""
    raise Conflict(
        f"{order.configuration} registers this machine{already} as {node or 'a node'} of "
        f"{url or 'a master'}: to give that up, use --force; its instances here are then no "
        "longer looked after"
    )


def _registered(configuration: Path) -> tuple[str, str]:
    if not configuration.exists():
        return "", ""
    slapos = _slapos_of(configuration)
    return slapos.get("computer_id", ""), slapos.get("master_url", "")


def _slapos_of(configuration: Path) -> dict[str, str]:
    section = read_configuration(configuration).get("slapos", {})
    return {name.replace("-", "_"): value.strip() for name, value in section.items()}


def _finished(order: JoinOrder) -> Joined | None:
    """Return what a join came to that was cut short at its very end: the settings name its key."""
    if not order.configuration.exists():
        return None
    slapos = _slapos_of(order.configuration)
    key_file = Path(slapos.get("key_file") or "/nonexistent")
    joining = order.folder / JOINING_KEY
    try:
        is_its_key = key_file.read_bytes() == joining.read_bytes()
    except OSError:
        return None
    if not is_its_key or slapos.get("master_url") != order.master_url:
        return None
    return _joined(order, slapos.get("computer_id", ""), key_file.parent)


# Whom to trust.


def _trusting(order: JoinOrder, clock: Clock) -> HttpSettings:
    """Return how to reach the master for certain.

    Its authority is asked of whoever answers, and taken only when the token has its fingerprint.
    A master whose own certificate is of another authority must have one that the system trusts.
    """
    settings = HttpSettings(base_url=order.master_url, timeout=order.timeout)
    certificate = known_authority(settings, order.token.is_of, clock)
    path = order.folder / JOINING_AUTHORITY
    write_if_changed(path, certificate)
    own = replace(settings, authority_file=path)
    try:
        answers(own)
        return own
    except NotTrusted as error:
        try:
            answers(settings)
            return settings
        except NotTrusted:
            raise error from None


# What is written.


def _put(order: JoinOrder, key: str, issued: Issued, *, has_authority: bool) -> Path:
    """Write the files of a registration into a folder of its own, and return that."""
    if not _REFERENCE.fullmatch(issued.reference):
        raise MasterFailed(
            f"the master calls this node {issued.reference!r}, which is no reference"
        )
    # Other files for another key: what is there goes on to fit together.
    folder = order.folder / f"{issued.reference}-{key_digest(key)[:8]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)  # authority and certificate are for instances, too, whatever the umask
    write_if_changed(folder / KEY, key, mode=0o600)
    write_if_changed(folder / CERTIFICATE, issued.certificate)
    if has_authority:
        check_bundle(issued.authority)
        write_if_changed(folder / AUTHORITY, issued.authority)
    partitions = folder / PARTITIONS
    partitions.mkdir(mode=0o711, exist_ok=True)
    partitions.chmod(0o711)
    for each in (folder, order.folder):
        sync_folder(each)
    return folder


def _write_settings(order: JoinOrder, reference: str, folder: Path) -> None:
    authority = folder / AUTHORITY
    options = {
        "computer_id": reference,
        "master_url": order.master_url,
        "key_file": str(folder / KEY),
        "cert_file": str(folder / CERTIFICATE),
        "certificate_repository_path": str(folder / PARTITIONS),
        # Empty means what the system trusts, also where another master had its own authority.
        "master_ca_file": str(authority) if authority.exists() else "",
    }
    write_options(order.configuration, "slapos", options, fresh=order.fresh)
    sync_folder(order.configuration.parent)


def _clear(order: JoinOrder) -> None:
    (order.folder / JOINING_AUTHORITY).unlink(missing_ok=True)
    (order.folder / JOINING_KEY).unlink(missing_ok=True)


def _joined(order: JoinOrder, reference: str, folder: Path) -> Joined:
    certificate = read_certificate(folder / CERTIFICATE)
    if certificate is None:
        raise MasterFailed(f"{folder / CERTIFICATE} cannot be read as a certificate")
    return Joined(
        reference=reference,
        project="",
        master_url=order.master_url,
        configuration=order.configuration,
        folder=folder,
        not_after=certificate.not_after,
        has_own_authority=(folder / AUTHORITY).exists(),
    )
