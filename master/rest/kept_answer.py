"""The answers that are kept for who asks the same again."""

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from slapos.master.database import Base

DIGEST_LENGTH = 64


class KeptAnswer(Base):
    """What was answered to a request with an idempotency key.

    The answer may hold a secret that is nowhere else, such as a token: it is encrypted by the key
    that the client has chosen, of which only a digest is here.
    """

    __tablename__ = "kept_answers"

    #: Of who asked and its key.
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    request_digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    made_at: Mapped[datetime] = mapped_column(index=True)
