"""Private keys for slapos.core's clients, which have the master make them: off unless it is set.

A key that is made here goes out once, in the answer: it is neither kept nor logged.
"""

from collections.abc import Callable
from typing import Any

from cryptography import x509
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master.certificates import joining
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import SubjectKind, read_certificate
from slapos.master.certificates.views import issuing
from slapos.master.http import Elsewhere, assembly, context, in_transaction, public, status_of
from slapos.master.identity.caller import serve
from slapos.master.identity.rights import Action, require
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import lookup
from slapos.master.slap import answer, form
from slapos.master.traffic.refused import check_guesses
from slapos.protocol.certificate_request import make_key, make_request
from slapos.protocol.errors import Forbidden, NotFound, SlapOSError
from slapos.protocol.marshal import dumps

#: The calls that only a full master has; slapproxy does not know them.
blueprint = Blueprint("key_delivery", __name__)

Delivered = dict[str, str]
NOTHING: Delivered = {"key": "", "certificate": ""}


class KeyDeliveryOff(Forbidden):
    """This master gives no private keys away."""

    code = "key_delivery_off"


def is_on() -> bool:
    """Return whether this master makes keys for others."""
    return context().settings.legacy_key_delivery


def check_on() -> None:
    """Raise KeyDeliveryOff unless this master makes keys for others."""
    if not is_on():
        raise KeyDeliveryOff(
            "this master gives no private keys away: join by `slapos node register`, which makes "
            "the key where it is used, or set legacy_key_delivery = true in [slapos-master]"
        )


def for_partition(session: Session, made_with: Issuing, node: str, partition: str) -> Delivered:
    """Return a new key and its certificate for the instance in a partition."""
    key = make_key()
    asked = make_request(key, partition)
    _, issued = certificates.certify_partition(session, made_with, node, partition, asked)
    return {"key": key, "certificate": issued.certificate}


def for_instance(session: Session, made_with: Issuing, reference: str) -> Delivered:
    """Return a new key and its certificate for an instance that has a partition."""
    instance = lookup.find_by_reference(session, reference)
    if instance is None:
        raise NotFound(f"there is no instance {reference!r}")
    require(session, Action.CERTIFY, instance)
    if instance.shared or instance.node is None or instance.partition is None:
        raise NotFound(f"{reference} has no partition, so no certificate")
    return for_partition(session, made_with, instance.node.reference, instance.partition.reference)


def for_node(session: Session, made_with: Issuing, reference: str) -> Delivered:
    """Return a new key and its certificate for a node, with a text for people before it."""
    node = nodes.find_node(session, reference)
    require(session, Action.CERTIFY, node)
    node.check_valid()
    key = make_key()
    issued = certificates.certify_node(session, made_with, node, make_request(key, reference))
    return {"key": key, "certificate": described(issued.certificate, reference)}


def revoke_of_node(session: Session, made_with: Issuing, reference: str) -> None:
    """Revoke all certificates of a node. Raises NotFound if it has none."""
    node = nodes.find_node(session, reference)
    require(session, Action.CERTIFY, node)
    if not certificates.revoke_all_of(session, made_with.clock, SubjectKind.NODE, node.id):
        raise NotFound(f"{reference} has no certificate that counts")


def described(certificate: str, reference: str) -> str:
    """Return a certificate (PEM) after a text from which slapos.core takes the node's reference.

    It is what stands between `COMP-` and `/email` (slap-master.md §1.1).
    """
    read: x509.Certificate = read_certificate(certificate)
    return (
        "Certificate:\n"
        f"    Serial Number: {read.serial_number:x}\n"
        f"    Not After: {read.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC\n"
        f"    Subject: CN={reference}/emailAddress=\n"
        f"{certificate}"
    )


def later(
    make: Callable[[Session, Issuing], Delivered],
    shown: Callable[[Delivered], ResponseReturnValue],
) -> Elsewhere:
    """Return the answer of a call that only reads by its kind, yet has a certificate issued.

    That takes a writing transaction of its own, by the rights of the caller.
    """
    caller, made_with = context().caller, issuing()

    def work(session: Session) -> Delivered:
        serve(session, caller)
        return make(session, made_with)

    return Elsewhere(lambda: shown(in_transaction(assembly(), work)))


@blueprint.errorhandler(SlapOSError)
def _answer_error(error: SlapOSError) -> ResponseReturnValue:
    return answer.text(str(error), status_of(type(error)))


@blueprint.post("/generateComputerCertificate")
def generate_computer_certificate() -> ResponseReturnValue:
    """Give a node a key and a certificate."""
    check_on()
    made: Any = for_node(context().session, issuing(), form.field("computer_id"))
    return answer.xml(dumps(made))


@blueprint.post("/revokeComputerCertificate")
def revoke_computer_certificate() -> ResponseReturnValue:
    """Have no certificate of a node count any more."""
    check_on()
    revoke_of_node(context().session, issuing(), form.field("computer_id"))
    return answer.xml(dumps(None))


@blueprint.post("/Person_requestComputer")
@public
def request_computer() -> ResponseReturnValue:
    """Make a node of a machine whose slapos.core shows a join token, with a key made here.

    The title has to be the name that the token is for. The key is in the answer only, so a token
    counts once here, whatever becomes of the answer.
    """
    check_on()
    check_guesses()
    title, key = form.field("title"), make_key()
    token = request.headers.get("X-Access-Token", "")
    asked = make_request(key, title)
    joined = joining.join(context().session, issuing(), token, title, asked)
    reference = joined.node.reference
    return {
        "certificate": described(joined.issued.certificate, reference),
        "key": key,
        "reference": reference,
        "relative_url": f"compute_node_module/{reference}",
    }
