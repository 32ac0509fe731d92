"""What is asked of the masters behind remote nodes."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from slapos.master.database import Base
from slapos.master.provisioning.model import TITLE_LENGTH
from slapos.master.text import URL_LENGTH


class RemoteRequest(Base):
    """An instance as it was asked for at the master behind its remote node.

    It outlives its instance until the tree there is given up: `instance_id` is None then.
    `asked_for` is the `changed_at` of the instance that the other master answered to last, and
    `asked_by` the `revision` of the remote node; None when it has yet to.
    """

    __tablename__ = "remote_requests"
    __table_args__ = (
        Index(None, "node_id", "next_at"),
        Index(None, "instance_id", unique=True),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("remote_nodes.node_id"))
    instance_id: Mapped[int | None] = mapped_column(
        ForeignKey("software_instances.id", ondelete="SET NULL")
    )
    #: What the tree is called there.
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    shared: Mapped[bool]
    software_url: Mapped[str] = mapped_column(String(URL_LENGTH))
    software_type: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    asked_for: Mapped[datetime | None]
    asked_by: Mapped[int | None]
    #: When it is looked at again, though nothing is asked anew.
    next_at: Mapped[datetime]
    #: Since when the other master says the same of it.
    same_since: Mapped[datetime]
