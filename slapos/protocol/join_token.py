"""The text of the token with which a node joins: a secret, and how to know the right authority.

`sj1.<random>.<first 32 hex digits of the sha256 of the authority's public key (SPKI, DER)>`.
"""

import re
from dataclasses import dataclass

from slapos.protocol.errors import InvalidRequest

VERSION = "sj1"
#: Hex digits of an authority's fingerprint: 128 bits.
FINGERPRINT_LENGTH = 32
_TOKEN = re.compile(rf"{VERSION}\.[A-Za-z0-9_-]{{16,200}}\.([0-9a-f]{{{FINGERPRINT_LENGTH}}})")


class MalformedToken(InvalidRequest):
    """A text is no join token."""

    code = "token_malformed"


@dataclass(frozen=True)
class JoinToken:
    """A join token: all of its text is the secret; never to be shown, nor kept but as a hash."""

    text: str
    fingerprint: str

    def __repr__(self) -> str:
        """Show no secret."""
        return f"JoinToken(…{self.fingerprint})"

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Read a token. Raises MalformedToken."""
        text = text.strip()
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise MalformedToken(
                f"this is no join token: it has the form {VERSION}.<letters and digits>."
                f"<{FINGERPRINT_LENGTH} hex digits>; copy the whole of it"
            )
        return cls(text, match.group(1))

    @classmethod
    def compose(cls, secret: str, fingerprint: str) -> "JoinToken":
        """Return the token of a secret, for the authority with a (whole) fingerprint."""
        return cls.parse(f"{VERSION}.{secret}.{fingerprint[:FINGERPRINT_LENGTH]}")

    def is_of(self, fingerprint: str) -> bool:
        """Whether the authority with this (whole) fingerprint is the one that is meant."""
        return fingerprint[:FINGERPRINT_LENGTH] == self.fingerprint
