"""Requests that other masters answered. Nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.provisioning.model import ForwardedRequest
from slapos.system.clock import Clock


def forwarded(session: Session) -> Sequence[ForwardedRequest]:
    """Return the requests that other masters answered, the oldest first."""
    return session.scalars(select(ForwardedRequest).order_by(ForwardedRequest.id)).all()


def remember_forwarded(session: Session, clock: Clock, title: str, master_url: str) -> None:
    """Remember that another master has an instance that was asked for here."""
    if _find_forwarded(session, title, master_url) is None:
        session.add(ForwardedRequest(title=title, master_url=master_url, created_at=clock.now()))


def forget_forwarded(session: Session, title: str, master_url: str) -> None:
    """Forget it, because that master is to destroy it."""
    found = _find_forwarded(session, title, master_url)
    if found is not None:
        session.delete(found)


def _find_forwarded(session: Session, title: str, master_url: str) -> ForwardedRequest | None:
    return session.scalar(
        select(ForwardedRequest).where(
            ForwardedRequest.title == title, ForwardedRequest.master_url == master_url
        )
    )
