"""Certificates and joining over HTTP: requests come in, keys never leave where they are made."""

from typing import Annotated, Any

from flask import Blueprint, Response, current_app, request
from pydantic import Field

from slapos.master import rest
from slapos.master.certificates import authorities, joining, service
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.model import IssuedCertificate
from slapos.master.certificates.service import Issued
from slapos.master.http import assembly, context, public
from slapos.master.identity import service as people
from slapos.master.identity.caller import CallerKind
from slapos.master.identity.model import Project
from slapos.master.identity.secret_box import SecretBox
from slapos.master.nodes import service as nodes
from slapos.master.traffic.refused import check_guesses
from slapos.protocol.errors import Conflict, Forbidden, NotFound, TooManyAttempts, Unauthorized

blueprint = Blueprint("certificates", __name__, url_prefix="/v1")

#: Where an application has the SecretBox of its authorities.
BOX = "slapos.authority_box"
PEM = "application/x-pem-file"

Pem = Annotated[str, Field(min_length=1, max_length=16_384)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class AuthorityShown(rest.Answer):
    """The authorities to trust, the newest first."""

    certificates: list[str]
    fingerprints: Annotated[
        list[str], Field(description="sha256 of their public keys (SPKI, DER), in hex")
    ]
    signatures: Annotated[
        list[str],
        Field(
            description="each one's over all of them: ECDSA with SHA-256, base64, over "
            "`slapos authorities`, a line feed, and the certificates in DER one after the other"
        ),
    ]


class Requested(rest.Body):
    """A certificate request."""

    certificate_request: Annotated[Pem, Field(description="PKCS#10, PEM")]


class Renewal(Requested):
    """A certificate request, and the certificate that has ended when it cannot be shown."""

    certificate: Annotated[
        Pem | None, Field(description="the request is then signed by this one's key")
    ] = None


class CertificateShown(rest.Answer):
    """A certificate that was issued."""

    reference: str
    project: str | None = None
    certificate: str
    authority: Annotated[str, Field(description="all authorities to trust, PEM")]
    not_after: rest.Time


class NewJoinToken(rest.Body):
    """What a machine is to join as."""

    title: Name
    project: Name


class JoinTokenShown(rest.Answer):
    """A join token, which is shown this once."""

    token: str
    title: str
    expires_at: rest.Time
    command: str


class Join(Requested):
    """A machine that joins."""

    token: Name
    name: Name


class Revoked(rest.Answer):
    """A certificate that counts no more."""

    serial: str
    revoked_at: rest.Time


@blueprint.get("/authority")
@public
@rest.operation(summary="Show the certificate authorities to trust", answer=AuthorityShown)
def show_authority() -> dict[str, Any]:
    """Show the authorities to trust."""
    found = authorities.announced(context().session, context().clock)
    return {
        "certificates": [each.certificate for each in found],
        "fingerprints": [each.fingerprint for each in found],
        "signatures": authorities.vouch(context().session, issuing()),
    }


@blueprint.get("/authority/revocations")
@public
@rest.operation(summary="Give the list of revoked certificates", answer=rest.Described(PEM))
def show_revocations() -> Response:
    """Give the list of revoked certificates, for a web server in front."""
    return Response(service.revocations(context().session, issuing()), content_type=PEM)


@blueprint.post("/nodes/join-tokens")
@rest.operation(
    summary="Make a token by which a machine joins once, within 15 minutes",
    body=NewJoinToken,
    answer=JoinTokenShown,
    status=201,
    errors=(Forbidden, NotFound, Conflict),
)
def make_join_token(body: NewJoinToken) -> dict[str, Any]:
    """Make a join token."""
    session = context().session
    project = people.find_project(session, body.project)
    text, row = joining.make_join_token(
        session, issuing(), context().identifiers, project, body.title
    )
    url = context().settings.public_url or request.url_root
    return {
        "token": text,
        "title": row.title,
        "expires_at": row.expires_at,
        "command": joining.command(url, text, row.title),
    }


@blueprint.post("/nodes/join")
@public
@rest.operation(
    summary="Join as a node, with a token",
    body=Join,
    answer=CertificateShown,
    status=201,
    errors=(Forbidden, Conflict, TooManyAttempts),
)
def join(body: Join) -> dict[str, Any]:
    """Make a node of a machine that shows a token."""
    check_guesses()
    session = context().session
    joined = joining.join(session, issuing(), body.token, body.name, body.certificate_request)
    project = session.get_one(Project, joined.node.project_id)
    return {**_shown(joined.node.reference, joined.issued), "project": project.reference}


@blueprint.post("/certificates/renewals")
@public
@rest.operation(
    summary="Get another certificate, for the one that is shown or has ended",
    body=Renewal,
    answer=CertificateShown,
    status=201,
    errors=(Unauthorized, Forbidden),
)
def renew(body: Renewal) -> dict[str, Any]:
    """Issue another certificate for the one who asks."""
    session = context().session
    if body.certificate is None:
        caller = context().caller
        if caller.kind is CallerKind.INSTANCE and caller.id is not None:
            service.hold(session, caller.id)
            # It may have moved since it was looked at who asks; then its certificate is revoked.
            assembly().authenticate(session, context().clock)
        issued = service.renew(session, issuing(), body.certificate_request)
        return _shown(context().caller.name, issued)
    reference, issued = service.renew_ended(
        session, issuing(), body.certificate, body.certificate_request
    )
    return _shown(reference, issued)


@blueprint.post("/me/certificates")
@rest.operation(
    summary="Get a certificate for oneself",
    body=Requested,
    answer=CertificateShown,
    status=201,
    errors=(Forbidden,),
)
def certify_me(body: Requested) -> dict[str, Any]:
    """Issue a certificate for the one who asks."""
    issued = service.renew(context().session, issuing(), body.certificate_request)
    return _shown(context().caller.name, issued)


@blueprint.post("/nodes/<reference>/certificates")
@rest.operation(
    summary="Get a certificate for a node",
    body=Requested,
    answer=CertificateShown,
    status=201,
    errors=(Forbidden, NotFound),
)
def certify_node(reference: str, body: Requested) -> dict[str, Any]:
    """Issue a certificate for a node, to who may certify it."""
    session = context().session
    node = nodes.find_node(session, reference)
    issued = service.certify_node(session, issuing(), node, body.certificate_request)
    return _shown(reference, issued)


@blueprint.post("/nodes/<reference>/partitions/<partition>/certificates")
@rest.operation(
    summary="Get a certificate for the instance in a partition",
    body=Requested,
    answer=CertificateShown,
    status=201,
    errors=(Forbidden, NotFound),
)
def certify_partition(reference: str, partition: str, body: Requested) -> dict[str, Any]:
    """Issue a certificate for an instance, to the node that holds it."""
    instance, issued = service.certify_partition(
        context().session, issuing(), reference, partition, body.certificate_request
    )
    return _shown(instance, issued)


@blueprint.post("/certificates/<serial>/revocation")
@rest.operation(
    summary="Have a certificate count no more",
    answer=Revoked,
    status=201,
    errors=(Forbidden, NotFound, Conflict),
)
def revoke(serial: str) -> dict[str, Any]:
    """Revoke a certificate."""
    row: IssuedCertificate = service.revoke(context().session, context().clock, serial)
    return {"serial": row.serial, "revoked_at": row.revoked_at}


def issuing() -> Issuing:
    """Return what it takes to issue."""
    box: SecretBox | None = current_app.extensions.get(BOX)
    if box is None:
        raise NotFound("the local master has no certificates: `slapos master start` has")
    return Issuing(context().clock, box)


def _shown(reference: str, issued: Issued) -> dict[str, Any]:
    return {
        "reference": reference,
        "certificate": issued.certificate,
        "authority": issued.authority,
        "not_after": issued.not_after,
    }
