"""The authorities that sign certificates: made, rotated, retired, told. Nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from slapos.master.certificates.authority import (
    Authority,
    certificate_text,
    fingerprint,
)
from slapos.master.certificates.model import (
    AuthorityState,
    CertificateAuthority,
    IssuedCertificate,
)
from slapos.master.database import UTCDateTime
from slapos.master.identity.rights import Action, require
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol import certificate_request
from slapos.protocol.errors import Conflict, NotFound, SlapOSError
from slapos.system.clock import Clock

#: How long a certificate of a node or an instance counts.
MACHINE_LIFE = timedelta(days=14)
#: After so long every web process trusts a new authority, and it may begin to sign.
KNOWN_AFTER = timedelta(minutes=2)
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


class NoAuthority(SlapOSError):
    """The master has no certificate authority."""

    code = "no_authority"


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
    keys = [load(issuing, each).key_text for each in found]
    return [certificate_request.vouch(key, certificates) for key in keys]


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


def load(issuing: Issuing, authority: CertificateAuthority) -> Authority:
    """Return an authority with its key, which signs."""
    return Authority.load(authority.certificate, issuing.box.open(authority.sealed_key))
