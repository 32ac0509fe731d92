"""Who asks, by the certificate that the request comes with.

Our own TLS server puts it into the environ; a web server in front hands it on in a header, which
counts only when it comes from an address that is trusted to do so (`front.py`).
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from flask import request
from sqlalchemy import Row, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.certificates.authority import (
    is_for_clients,
    is_issued_by,
    read_certificate,
)
from slapos.master.certificates.errors import (
    CertificateExpired,
    CertificateRevoked,
    CertificateUnknown,
    CertificateWrongPurpose,
)
from slapos.master.certificates.model import (
    AuthorityState,
    CertificateAuthority,
    IssuedCertificate,
)
from slapos.master.certificates.service import serial_text
from slapos.master.identity.authentication import authenticate as by_other_means
from slapos.master.identity.authentication import caller_of_person
from slapos.master.identity.caller import Caller, CallerKind
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.system.clock import Clock

#: The key of the environ with the client's certificate (DER): no header can set it.
CERTIFICATE = "slapos.client_certificate"
#: How many certificates a process keeps in mind as read and checked.
KEPT = 20_000

_HOLDER = (
    select(
        IssuedCertificate.not_after,
        IssuedCertificate.revoked_at,
        IssuedCertificate.person_id,
        CertificateAuthority.state,
        CertificateAuthority.certificate,
        ComputeNode.id.label("node_id"),
        ComputeNode.reference.label("node"),
        ComputeNode.project_id.label("node_project"),
        SoftwareInstance.id.label("instance_id"),
        SoftwareInstance.reference.label("instance"),
        SoftwareInstance.tree_id,
        InstanceTree.project_id.label("instance_project"),
    )
    .join(CertificateAuthority, CertificateAuthority.id == IssuedCertificate.authority_id)
    .outerjoin(ComputeNode, ComputeNode.id == IssuedCertificate.node_id)
    .outerjoin(SoftwareInstance, SoftwareInstance.id == IssuedCertificate.instance_id)
    .outerjoin(InstanceTree, InstanceTree.id == SoftwareInstance.tree_id)
    .where(IssuedCertificate.serial == bindparam("serial"))
)


@dataclass(frozen=True)
class ShownCertificate:
    """What a certificate says of itself; who signed it is another question."""

    serial: str
    not_before: datetime
    not_after: datetime
    is_for_clients: bool

    def counts_at(self, now: datetime) -> bool:
        """Return whether it has begun, and has not ended."""
        return self.not_before <= now <= self.not_after


def authenticate(session: Session, clock: Clock) -> Caller:
    """Return who asks: by a certificate, else by a token or a session."""
    return by_certificate(session, clock) or by_other_means(session, clock)


def by_certificate(session: Session, clock: Clock) -> Caller | None:
    """Say who asks by a certificate; None without one. Raises Unauthorized when it is no good."""
    shown = request.environ.get(CERTIFICATE)
    if not shown:
        return None
    certificate = read_shown(shown)
    if not certificate.is_for_clients:
        raise CertificateWrongPurpose("the certificate is not for clients; show that of a node")
    row = session.execute(_HOLDER, {"serial": certificate.serial}).first()
    if row is None or not is_signed(shown, row.certificate):
        raise CertificateUnknown(
            "the certificate is none of this master's, or what it is for is gone: join anew"
        )
    now = clock.now()
    if row.revoked_at is not None or row.state == AuthorityState.RETIRED:
        raise CertificateRevoked("the certificate has been revoked: join anew", _subject(row))
    if not certificate.counts_at(now):
        raise CertificateExpired(
            f"the certificate counts from {certificate.not_before:%Y-%m-%d %H:%M} to "
            f"{certificate.not_after:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}: "
            "renew it, or set the clock",
            _subject(row),
        )
    return _holder(session, row)


def _holder(session: Session, row: Row[*tuple[object, ...]]) -> Caller:
    if row.node_id is not None:
        return Caller(
            kind=CallerKind.NODE, name=row.node, id=row.node_id, project_id=row.node_project
        )
    if row.instance_id is not None:
        return Caller(
            kind=CallerKind.INSTANCE,
            name=row.instance,
            id=row.instance_id,
            project_id=row.instance_project,
            tree_id=row.tree_id,
        )
    person = caller_of_person(session, row.person_id) if row.person_id is not None else None
    if person is None:
        raise CertificateRevoked("whose certificate it is has been suspended", _subject(row))
    return person


def _subject(row: Row[*tuple[object, ...]]) -> Subject:
    """Return whose certificate is refused."""
    name = row.node or row.instance or f"certificate of person {row.person_id}"
    project_id = row.node_project or row.instance_project
    return Subject(Kind.CERTIFICATE, name, project_id, row.person_id)


@lru_cache(KEPT)
def read_shown(shown: bytes) -> ShownCertificate:
    """Return what a certificate (DER) says of itself; raises CertificateUnknown."""
    try:
        certificate = x509.load_der_x509_certificate(shown)
    except ValueError as error:
        raise CertificateUnknown(f"the certificate cannot be read: {error}") from error
    return ShownCertificate(
        serial=serial_text(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_for_clients=is_for_clients(certificate),
    )


@lru_cache(KEPT)
def is_signed(shown: bytes, authority: str) -> bool:
    """Return whether an authority has signed it: of the very bytes, so it need be asked once."""
    return is_issued_by(x509.load_der_x509_certificate(shown), read_certificate(authority))
