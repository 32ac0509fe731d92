"""Passwords: which will do, and how they are kept.

Hashing takes some 50 ms and 19 MiB, on purpose: never do it inside a transaction.
"""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from slapos.protocol.errors import InvalidFields

SHORTEST = 12
LONGEST = 256
#: Of zxcvbn: 3 of 4 is 100,000,000 guesses, which Argon2 makes too many for somebody with the hash.
STRENGTH = 3
#: What zxcvbn looks at; it takes much longer for more.
CONSIDERED = 64

# More than OWASP's least for Argon2id (19 MiB, 2 passes). Eight threads at once take 150 MiB.
_HASHER = PasswordHasher(time_cost=3, memory_cost=19 * 1024, parallelism=1)
#: Of a password that nobody knows: what is compared with for an account that is not there.
_NOBODYS = (
    "$argon2id$v=19$m=19456,t=3,p=1$c2xhcG9zLW5vYm9keXMtc2FsdA"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def check(password: str, *known: str, field: str = "password") -> None:
    """Raise InvalidFields for a password that is too short, too long or soon guessed.

    `known` is what everybody knows of the person, such as her name and her e-mail address.
    """
    if len(password) < SHORTEST:
        reason = f"it has {len(password)} characters; {SHORTEST} are needed, a few words will do"
    elif len(password) > LONGEST:
        reason = f"it has {len(password)} characters; {LONGEST} are allowed"
    else:
        words = [part for each in known for part in [each, *each.replace("@", " ").split()]]
        found = zxcvbn(password[:CONSIDERED], user_inputs=words)
        if found["score"] >= STRENGTH:
            return
        hint = found["feedback"]["warning"] or "add a word or two that nobody would expect"
        reason = f"it would soon be guessed: {hint[0].lower()}{hint[1:].rstrip('.')}"
    raise InvalidFields(f"the password cannot be used: {reason}", {field: reason})


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    return _HASHER.hash(password.encode(errors="replace"))


def is_right(kept: str | None, password: str) -> bool:
    """Return whether a password is the one that is kept; takes as long when none is."""
    try:
        _HASHER.verify(kept or _NOBODYS, password.encode(errors="replace"))
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


def is_outdated(kept: str) -> bool:
    """Return whether today's passwords are kept more expensively than this one."""
    return _HASHER.check_needs_rehash(kept)
