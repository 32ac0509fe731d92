"""Rows that are no things of their own: what is done with one is told of what it belongs to."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from slapos.master.catalog.model import (
    AllocationSupply,
    SoftwareProduct,
    SoftwareRelease,
    SoftwareType,
    SupplyCell,
    SupplyNode,
)
from slapos.master.certificates.model import IssuedCertificate
from slapos.master.database import Base
from slapos.master.identity.credentials import OneTimeLink, Password, RecoveryCode
from slapos.master.identity.links import LinkKind
from slapos.master.identity.model import Person
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode, NodeCategory, RemoteNode
from slapos.master.provisioning.model import SoftwareInstance

#: Says of which thing a part is; None when that is gone, or when it is not told.
WholeOf = Callable[[Session, Any], Subject | None]


def _by(whole: type[Base], key: str) -> WholeOf:
    def ask(session: Session, part: Any) -> Subject | None:
        found: Any = session.get(whole, getattr(part, key))
        if found is None:
            return None
        subject: Subject = found.subject()
        return subject

    return ask


def _of_certificate(session: Session, part: IssuedCertificate) -> Subject | None:
    """Return whose certificate it is; one of an instance is made anew every few days."""
    owners: tuple[tuple[type[Base], int | None], ...] = (
        (ComputeNode, part.node_id),
        (SoftwareInstance, part.instance_id if part.revoked_at is not None else None),
        (Person, part.person_id),
    )
    for kind, number in owners:
        found: Any = None if number is None else session.get(kind, number)
        if found is not None:
            of: Subject = found.subject()
            return Subject(Kind.CERTIFICATE, part.serial, of.project_id, of.owner_id)
    return None


def _of_used_code(session: Session, part: RecoveryCode) -> Subject | None:
    """Return whose recovery code it is, when one is used: how many are made says nothing."""
    if part not in session.deleted:
        return None
    return session.get_one(Person, part.person_id).subject()


def _of_reset_link(session: Session, part: OneTimeLink) -> Subject | None:
    """Return who can have a new password by a link; others are made with each sign-in."""
    if part.kind != LinkKind.RESET or part.person_id is None:
        return None
    return session.get_one(Person, part.person_id).subject()


#: Parts that the log names themselves.
THEMSELVES = frozenset({IssuedCertificate.__tablename__})
PARTS: Mapping[str, WholeOf] = {
    SoftwareRelease.__tablename__: _by(SoftwareProduct, "product_id"),
    SoftwareType.__tablename__: _by(SoftwareProduct, "product_id"),
    SupplyNode.__tablename__: _by(AllocationSupply, "supply_id"),
    SupplyCell.__tablename__: _by(AllocationSupply, "supply_id"),
    NodeCategory.__tablename__: _by(ComputeNode, "node_id"),
    RemoteNode.__tablename__: _by(ComputeNode, "node_id"),
    Password.__tablename__: _by(Person, "person_id"),
    RecoveryCode.__tablename__: _of_used_code,
    OneTimeLink.__tablename__: _of_reset_link,
    IssuedCertificate.__tablename__: _of_certificate,
}
