"""Chance, handed in so that tests know what comes."""

import random
import secrets
import string
from typing import Protocol


class Identifiers(Protocol):
    """What makes values that nobody can guess, or that merely differ."""

    def token(self, length: int) -> str:
        """Return a secret of letters and digits."""
        ...

    def fraction(self) -> float:
        """Return a number in [0, 1), for jitter."""
        ...


class SystemIdentifiers:
    """Takes chance from the operating system."""

    def token(self, length: int) -> str:
        """Return a secret of `length` letters and digits."""
        alphabet = string.ascii_letters + string.digits
        return "".join(secrets.choice(alphabet) for _ in range(length))

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return random.random()
