"""What can be done with certificates. Nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.certificates import authorities
from slapos.master.certificates.authorities import MACHINE_LIFE, Issuing
from slapos.master.certificates.authority import (
    SubjectKind,
    certificate_text,
    fingerprint,
    is_issued_by,
    read_certificate,
    read_request,
)
from slapos.master.certificates.errors import (
    CertificateExpired,
    CertificateRevoked,
    CertificateUnknown,
    RenewalRefused,
)
from slapos.master.certificates.model import (
    AuthorityState,
    IssuedCertificate,
)
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.model import Person
from slapos.master.identity.rights import Action, not_there, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.errors import Forbidden, NotFound, Unauthorized
from slapos.system.clock import Clock

PERSON_LIFE = timedelta(days=90)
SERVER_LIFE = timedelta(days=30)
LIVES = {
    SubjectKind.NODE: MACHINE_LIFE,
    SubjectKind.INSTANCE: MACHINE_LIFE,
    SubjectKind.PERSON: PERSON_LIFE,
}
#: How long after its end a certificate still lets its holder ask for another one.
RENEWABLE = timedelta(days=90)

_BY_SERIAL = select(IssuedCertificate).where(IssuedCertificate.serial == bindparam("serial"))
#: Shared with others who certify it; whoever has it go elsewhere waits for them, or they for him.
_HELD_PARTITION = (
    select(SoftwareInstance.partition_id)
    .where(SoftwareInstance.id == bindparam("id"))
    .with_for_update(read=True)
)


@dataclass(frozen=True)
class Issued:
    """A new certificate (PEM), the authorities to trust (PEM), and its end."""

    certificate: str
    authority: str
    not_after: datetime


def certify_node(session: Session, issuing: Issuing, node: ComputeNode, request: str) -> Issued:
    """Issue a certificate for a node."""
    require(session, Action.CERTIFY, node)
    return issue(session, issuing, SubjectKind.NODE, node.reference, node.id, request)


def certify_partition(
    session: Session, issuing: Issuing, node: str, partition: str, request: str
) -> tuple[str, Issued]:
    """Issue a certificate for the instance that is in a partition; return also its reference."""
    instance = lookup.instance_on_partition(session, node, partition)
    require(session, Action.CERTIFY, instance)
    if hold(session, instance.id) != instance.partition_id:
        raise NotFound(f"{instance.reference} is not in {node} {partition} any more")
    kind, reference = SubjectKind.INSTANCE, instance.reference
    return reference, issue(session, issuing, kind, reference, instance.id, request)


def hold(session: Session, instance_id: int) -> int | None:
    """Have an instance stay where it is until this transaction ends; return its partition's id.

    Who certifies it asks after this whether it may still: when it goes elsewhere, its certificates
    are revoked (`provisioning.reallocation`), and none may be issued by what was true before.
    """
    return session.scalar(_HELD_PARTITION, {"id": instance_id})


def renew(session: Session, issuing: Issuing, request: str) -> Issued:
    """Issue another certificate for the caller, or the first one for a person who signed in."""
    caller = caller_of(session)
    kinds = {
        CallerKind.NODE: SubjectKind.NODE,
        CallerKind.INSTANCE: SubjectKind.INSTANCE,
        CallerKind.PERSON: SubjectKind.PERSON,
    }
    if caller.kind not in kinds or caller.id is None:
        raise RenewalRefused("show the certificate that is to be renewed, or sign in")
    if caller.scopes is not None:
        # A certificate has no scopes: with it, a token could do more than it was made for.
        raise Forbidden("a token with scopes gets no certificate; sign in with a password")
    return issue(session, issuing, kinds[caller.kind], caller.name, caller.id, request)


def renew_ended(
    session: Session, issuing: Issuing, certificate: str, request: str
) -> tuple[str, Issued]:
    """Issue another certificate for the holder of one that has ended, not long ago.

    Return also the holder's reference.
    The request is signed by the same key, which shows that it is the holder who asks; whoever
    repeats it gets a certificate for a key that he has not.
    """
    old = read_certificate(certificate)
    row = find(session, old)
    if row.instance_id is not None:
        hold(session, row.instance_id)
        session.refresh(row)
    now, about = issuing.clock.now(), subject_of(session, row)
    if row.revoked_at is not None or row.authority.state == AuthorityState.RETIRED:
        raise CertificateRevoked(
            "the certificate has been revoked: join anew, with another token", about
        )
    if now > row.not_after + RENEWABLE:
        raise CertificateExpired(
            f"the certificate ended at {row.not_after:%Y-%m-%d}, more than {RENEWABLE.days} days "
            "ago: join anew, with another token",
            about,
        )
    if fingerprint(read_request(request)) != fingerprint(old.public_key()):
        raise RenewalRefused("the request is not signed by the key of the certificate", about)
    reference, thing_id = _holder(session, row)
    kind = SubjectKind(row.kind)
    return reference, issue(session, issuing, kind, reference, thing_id, request)


def find(session: Session, certificate: x509.Certificate) -> IssuedCertificate:
    """Return the row of a certificate that one of our authorities has signed, else Unauthorized."""
    row = session.scalar(_BY_SERIAL, {"serial": serial_text(certificate)})
    if row is None or not is_issued_by(certificate, read_certificate(row.authority.certificate)):
        raise CertificateUnknown(
            "the certificate is none of this master's, or what it is for is gone"
        )
    return row


def named(session: Session, name: str) -> Sequence[IssuedCertificate]:
    """Return a certificate by its serial number, or those of COMP-n, SOFTINST-n or P-n.

    Only for the master itself. Raises NotFound.
    """
    require(session, Action.CERTIFY, Subject(Kind.CERTIFICATE, name))
    statement = select(IssuedCertificate).order_by(IssuedCertificate.issued_at)
    for mapped, column in (
        (ComputeNode, IssuedCertificate.node_id),
        (SoftwareInstance, IssuedCertificate.instance_id),
        (Person, IssuedCertificate.person_id),
    ):
        holder = session.scalar(select(mapped.id).where(mapped.reference == name))
        if holder is not None:
            return session.scalars(statement.where(column == holder)).all()
    found = session.scalars(statement.where(IssuedCertificate.serial == name.lower())).all()
    if not found:
        raise NotFound(
            f"{name!r} is the reference of no node, instance or person, and no serial number"
        )
    return found


def revoke(session: Session, clock: Clock, serial: str) -> IssuedCertificate:
    """Have a certificate count no more, from now on."""
    row = session.scalar(_BY_SERIAL.with_for_update(), {"serial": serial.lower()})
    subject = Subject(Kind.CERTIFICATE, serial) if row is None else subject_of(session, row)
    if row is None:
        require(session, Action.SEE, subject)
        raise not_there(subject)
    require(session, Action.CERTIFY, subject)
    row.revoke(clock.now())
    session.flush()
    return row


def revoke_all_of(session: Session, clock: Clock, kind: SubjectKind, thing_id: int) -> int:
    """Revoke every certificate of a node, an instance or a person; return how many there were.

    Also those that have ended, as long as they could be renewed.
    """
    column = _COLUMNS[kind]
    rows = session.scalars(
        select(IssuedCertificate).where(
            getattr(IssuedCertificate, column) == thing_id,
            IssuedCertificate.revoked_at.is_(None),
            IssuedCertificate.not_after > clock.now() - RENEWABLE,
        )
    ).all()
    for row in rows:
        row.revoke(clock.now())
    session.flush()
    return len(rows)


def revocations(session: Session, issuing: Issuing) -> str:
    """Return the lists of revoked certificates of all authorities that count (CRL, PEM)."""
    found = []
    for authority in authorities.trusted(session):
        rows = session.execute(
            select(IssuedCertificate.serial, IssuedCertificate.revoked_at).where(
                IssuedCertificate.authority_id == authority.id,
                IssuedCertificate.revoked_at.is_not(None),
                IssuedCertificate.not_after > issuing.clock.now(),
            )
        ).all()
        signer = authorities.load(issuing, authority)
        found.append(
            signer.revocations(
                [(int(serial, 16), since) for serial, since in rows if since is not None],
                issuing.clock.now(),
            )
        )
    return "".join(found)


def issue(
    session: Session,
    issuing: Issuing,
    kind: SubjectKind,
    reference: str,
    thing_id: int,
    request: str,
) -> Issued:
    """Issue a certificate; whether that may be has been asked before."""
    key = read_request(request)
    now = issuing.clock.now()
    authority = authorities.active_authority(session, issuing.clock)
    certificate = authorities.load(issuing, authority).issue(kind, reference, key, now, LIVES[kind])
    session.add(
        IssuedCertificate(
            serial=serial_text(certificate),
            authority_id=authority.id,
            kind=kind,
            issued_at=now,
            not_after=certificate.not_valid_after_utc,
            **{_COLUMNS[kind]: thing_id},
        )
    )
    session.flush()
    return Issued(
        certificate_text(certificate),
        authorities.bundle(session, issuing.clock),
        certificate.not_valid_after_utc,
    )


def serial_text(certificate: x509.Certificate) -> str:
    """Return the serial number of a certificate as it is kept: hex."""
    return f"{certificate.serial_number:x}"


def subject_of(session: Session, row: IssuedCertificate) -> Subject:
    """Return what rights on a certificate go by: whose it is."""
    if row.node_id is not None:
        node = session.get_one(ComputeNode, row.node_id)
        return Subject(Kind.CERTIFICATE, row.serial, node.project_id, node_id=node.id)
    if row.instance_id is not None:
        of = session.get_one(SoftwareInstance, row.instance_id).subject()
        return Subject(Kind.CERTIFICATE, row.serial, of.project_id, of.owner_id, of.node_id)
    return Subject(Kind.CERTIFICATE, row.serial, owner_id=row.person_id)


_COLUMNS = {
    SubjectKind.NODE: "node_id",
    SubjectKind.INSTANCE: "instance_id",
    SubjectKind.PERSON: "person_id",
}


def _holder(session: Session, row: IssuedCertificate) -> tuple[str, int]:
    if row.node_id is not None:
        node = session.get_one(ComputeNode, row.node_id)
        node.check_valid()
        return node.reference, row.node_id
    if row.instance_id is not None:
        return session.get_one(SoftwareInstance, row.instance_id).reference, row.instance_id
    raise Unauthorized("a person whose certificate has ended signs in for another one")


def issue_server(
    session: Session, issuing: Issuing, hosts: Sequence[str], key: ec.EllipticCurvePublicKey
) -> Issued:
    """Issue a certificate for a web process of this master, which keeps its key to itself.

    The oldest authority signs it: whoever has not heard of a newer one yet trusts that.
    """
    authority = authorities.trusted(session)[-1]
    now = issuing.clock.now()
    made = authorities.load(issuing, authority).issue_server(hosts, key, now, SERVER_LIFE)
    return Issued(
        certificate_text(made), authorities.bundle(session, issuing.clock), made.not_valid_after_utc
    )
