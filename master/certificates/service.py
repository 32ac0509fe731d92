"""What can be done with certificates and their authorities. Nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from slapos.master.certificates.authority import (
    Authority,
    SubjectKind,
    certificate_text,
    fingerprint,
    is_issued_by,
    read_certificate,
    read_request,
)
from slapos.master.certificates.model import (
    AuthorityState,
    CertificateAuthority,
    IssuedCertificate,
)
from slapos.master.database import UTCDateTime
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.model import Person
from slapos.master.identity.rights import Action, not_there, require
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol import certificate_request
from slapos.protocol.errors import Conflict, Forbidden, NotFound, SlapOSError, Unauthorized
from slapos.system.clock import Clock

MACHINE_LIFE = timedelta(days=14)
PERSON_LIFE = timedelta(days=90)
SERVER_LIFE = timedelta(days=30)
#: After so long every web process trusts a new authority, and it may begin to sign.
KNOWN_AFTER = timedelta(minutes=2)
LIVES = {
    SubjectKind.NODE: MACHINE_LIFE,
    SubjectKind.INSTANCE: MACHINE_LIFE,
    SubjectKind.PERSON: PERSON_LIFE,
}
#: How long after its end a certificate still lets its holder ask for another one.
RENEWABLE = timedelta(days=90)
#: An arbitrary number that all masters of one PostgreSQL agree on.
FIRST_AUTHORITY = 7_357_202
#: What the secrets of authorities are sealed for.
PURPOSE = "certificate authorities"

_AUTHORITIES = (
    select(CertificateAuthority)
    .where(CertificateAuthority.state != AuthorityState.RETIRED)
    .order_by(CertificateAuthority.id.desc())
)
_ANNOUNCED = (
    select(CertificateAuthority)
    .where(
        or_(
            CertificateAuthority.state == AuthorityState.TRUSTED,
            CertificateAuthority.retired_at > bindparam("since", type_=UTCDateTime()),
        )
    )
    .order_by(CertificateAuthority.id.desc())
)
_ACTIVE = (
    select(CertificateAuthority)
    .where(
        CertificateAuthority.state == AuthorityState.TRUSTED,
        CertificateAuthority.signs_from <= bindparam("now", type_=UTCDateTime()),
    )
    .order_by(CertificateAuthority.signs_from.desc(), CertificateAuthority.id.desc())
    .limit(1)
)
_BY_SERIAL = select(IssuedCertificate).where(IssuedCertificate.serial == bindparam("serial"))


class NoAuthority(SlapOSError):
    """The master has no certificate authority."""

    code = "no_authority"


@dataclass(frozen=True)
class Issued:
    """A new certificate (PEM), the authorities to trust (PEM), and its end."""

    certificate: str
    authority: str
    not_after: datetime


@dataclass(frozen=True)
class Issuing:
    """What it takes to issue: the time, and the secret that keys are sealed with."""

    clock: Clock
    box: SecretBox


def ensure_authority(session: Session, issuing: Issuing) -> CertificateAuthority:
    """Return the authority that signs, made if there is none: once, whoever else is at it."""
    now = issuing.clock.now()
    found = session.scalar(_ACTIVE, {"now": now})
    if found is None:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(select(func.pg_advisory_xact_lock(FIRST_AUTHORITY)))
        found = session.scalar(_ACTIVE, {"now": now}) or _make_authority(session, issuing, now)
    return found


def trusted(session: Session) -> Sequence[CertificateAuthority]:
    """Return the authorities whose certificates count, the newest first: everybody may know."""
    return session.scalars(_AUTHORITIES).all()


def rotate(
    session: Session, issuing: Issuing, known_after: timedelta = KNOWN_AFTER
) -> CertificateAuthority:
    """Make another authority, which signs as soon as all web processes know it.

    What the present one has signed still counts, until `retire`.
    """
    require(session, Action.CHANGE, Subject(Kind.AUTHORITY, "of this master"))
    return _make_authority(session, issuing, issuing.clock.now() + known_after)


def retire(
    session: Session, clock: Clock, identifier: str, *, anyway: bool = False
) -> CertificateAuthority:
    """Have nothing count any more that an authority has signed; `identifier` begins its name.

    Raises Conflict while it signs, and while others hold certificates of it unless `anyway`.
    """
    require(session, Action.CHANGE, Subject(Kind.AUTHORITY, identifier))
    found = [each for each in trusted(session) if each.fingerprint.startswith(identifier)]
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} authorities have a fingerprint that begins with {identifier!r}; "
            "`slapos master ca show` lists them"
        )
    if found[0].id == active_authority(session, clock).id:
        raise Conflict(
            "it is the one that signs: run `slapos master ca rotate` first, and wait until the "
            f"new one signs ({KNOWN_AFTER.seconds // 60} minutes)"
        )
    held = holders(session, clock, found[0])
    if held and not anyway:
        raise Conflict(
            f"{held} certificates that it has signed are in use; nodes renew theirs within "
            f"{MACHINE_LIFE.days} days: wait, or give --force, and they have to join anew"
        )
    found[0].state, found[0].retired_at = AuthorityState.RETIRED, clock.now()
    session.flush()
    return found[0]


def holders(session: Session, clock: Clock, authority: CertificateAuthority) -> int:
    """Return how many nodes, instances and persons have no certificate of a newer authority."""
    theirs, newer = aliased(IssuedCertificate), aliased(IssuedCertificate)
    count = (
        select(func.count())
        .select_from(theirs)
        .where(
            theirs.authority_id == authority.id,
            theirs.revoked_at.is_(None),
            theirs.not_after > clock.now(),
            ~exists().where(
                newer.authority_id != authority.id,
                newer.issued_at >= theirs.issued_at,
                or_(
                    newer.node_id == theirs.node_id,
                    newer.instance_id == theirs.instance_id,
                    newer.person_id == theirs.person_id,
                ),
            ),
        )
    )
    return session.scalar(count) or 0


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
    kind, reference = SubjectKind.INSTANCE, instance.reference
    return reference, issue(session, issuing, kind, reference, instance.id, request)


def renew(session: Session, issuing: Issuing, request: str) -> Issued:
    """Issue another certificate for the caller, or the first one for a person who signed in."""
    caller = caller_of(session)
    kinds = {
        CallerKind.NODE: SubjectKind.NODE,
        CallerKind.INSTANCE: SubjectKind.INSTANCE,
        CallerKind.PERSON: SubjectKind.PERSON,
    }
    if caller.kind not in kinds or caller.id is None:
        raise Unauthorized("show the certificate that is to be renewed, or sign in")
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
    now = issuing.clock.now()
    if row.revoked_at is not None or row.authority.state == AuthorityState.RETIRED:
        raise Unauthorized("the certificate has been revoked: join anew, with another token")
    if now > row.not_after + RENEWABLE:
        raise Unauthorized(
            f"the certificate ended at {row.not_after:%Y-%m-%d}, more than {RENEWABLE.days} days "
            "ago: join anew, with another token"
        )
    if fingerprint(read_request(request)) != fingerprint(old.public_key()):
        raise Unauthorized("the request is not signed by the key of the certificate")
    reference, thing_id = _holder(session, row)
    kind = SubjectKind(row.kind)
    return reference, issue(session, issuing, kind, reference, thing_id, request)


def find(session: Session, certificate: x509.Certificate) -> IssuedCertificate:
    """Return the row of a certificate that one of our authorities has signed, else Unauthorized."""
    row = session.scalar(_BY_SERIAL, {"serial": serial_text(certificate)})
    if row is None or not is_issued_by(certificate, read_certificate(row.authority.certificate)):
        raise Unauthorized("the certificate is none of this master's, or what it is for is gone")
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
    """Revoke every certificate of a node, an instance or a person; return how many there were."""
    column = _COLUMNS[kind]
    rows = session.scalars(
        select(IssuedCertificate).where(
            getattr(IssuedCertificate, column) == thing_id,
            IssuedCertificate.revoked_at.is_(None),
            IssuedCertificate.not_after > clock.now(),
        )
    ).all()
    for row in rows:
        row.revoke(clock.now())
    session.flush()
    return len(rows)


def revocations(session: Session, issuing: Issuing) -> str:
    """Return the lists of revoked certificates of all authorities that count (CRL, PEM)."""
    found = []
    for authority in trusted(session):
        rows = session.execute(
            select(IssuedCertificate.serial, IssuedCertificate.revoked_at).where(
                IssuedCertificate.authority_id == authority.id,
                IssuedCertificate.revoked_at.is_not(None),
                IssuedCertificate.not_after > issuing.clock.now(),
            )
        ).all()
        signer = _load(issuing, authority)
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
    authority = active_authority(session, issuing.clock)
    certificate = _load(issuing, authority).issue(kind, reference, key, now, LIVES[kind])
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
        bundle(session, issuing.clock),
        certificate.not_valid_after_utc,
    )


def active_authority(session: Session, clock: Clock) -> CertificateAuthority:
    """Return the authority that signs, or raise NoAuthority."""
    authority = session.scalar(_ACTIVE, {"now": clock.now()})
    if authority is None:
        raise NoAuthority("there is no certificate authority: run `slapos master init`")
    return authority


def announced(session: Session, clock: Clock) -> Sequence[CertificateAuthority]:
    """Return the authorities that others are told to trust, the newest first.

    Among them is one that has just been retired: web processes show its certificates until they
    have heard of that.
    """
    since = clock.now() - KNOWN_AFTER
    return session.scalars(_ANNOUNCED, {"since": since}).all()


def bundle(session: Session, clock: Clock) -> str:
    """Return the certificates of the authorities that others are told to trust (PEM)."""
    return "".join(each.certificate for each in announced(session, clock))


def vouch(session: Session, issuing: Issuing) -> list[str]:
    """Return the signatures of the trusted authorities over all of them, the newest's first.

    While one takes over from another, a join token names the one, and the web server's certificate
    is of the other: a machine that knows one of them can so know both.
    """
    found = announced(session, issuing.clock)
    certificates = [each.certificate for each in found]
    keys = [_load(issuing, each).key_text for each in found]
    return [certificate_request.vouch(key, certificates) for key in keys]


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
    authority = trusted(session)[-1]
    now = issuing.clock.now()
    made = _load(issuing, authority).issue_server(hosts, key, now, SERVER_LIFE)
    return Issued(certificate_text(made), bundle(session, issuing.clock), made.not_valid_after_utc)


def _make_authority(
    session: Session, issuing: Issuing, signs_from: datetime
) -> CertificateAuthority:
    now = issuing.clock.now()
    made = Authority.make(now, f"SlapOS master {now:%Y-%m-%d}")
    row = CertificateAuthority(
        state=AuthorityState.TRUSTED,
        signs_from=signs_from,
        fingerprint=fingerprint(made.certificate.public_key()),
        certificate=certificate_text(made.certificate),
        sealed_key=issuing.box.seal(made.key_text),
        created_at=now,
        not_after=made.certificate.not_valid_after_utc,
    )
    session.add(row)
    session.flush()
    return row


def _load(issuing: Issuing, authority: CertificateAuthority) -> Authority:
    return Authority.load(authority.certificate, issuing.box.open(authority.sealed_key))
