"""Options whose value is a secret: from the command line, or better from standard input."""

import sys
from getpass import getpass

from slapos.protocol.errors import InvalidConfiguration


def read_secret(value: str | None, what: str, option: str = "--token") -> str:
    """Return the value of an option; `-` is a line of standard input, None is asked for.

    Raises InvalidConfiguration when there is nobody to ask.
    """
    if value == "-":
        value = sys.stdin.readline()
    elif value is None and sys.stdin.isatty():
        value = getpass(f"{what}: ")
    value = (value or "").strip()
    if not value:
        raise InvalidConfiguration(
            f"the {what} is missing: give it on standard input, with {option} -"
        )
    return value
