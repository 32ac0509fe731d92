"""Secrets of our own making: given once, then known by a hash only.

They have far more than 128 bits of chance, so that a plain SHA-256 is enough: nobody can try all.
"""

import hashlib

from slapos.system.identifier import Identifiers

#: Letters and digits: 238 bits.
SECRET_LENGTH = 40


def new_secret(identifiers: Identifiers, prefix: str = "") -> str:
    """Return a new secret."""
    return prefix + identifiers.token(SECRET_LENGTH)


def hash_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
