"""Text that comes in from outside, checked before it is stored."""

import unicodedata

from slapos.protocol.errors import InvalidRequest

URL_LENGTH = 2000
#: How much is kept of what a node says went wrong: the end of it.
MESSAGE_LENGTH = 4000


def checked_text(what: str, text: str, length: int, *, empty: bool = False) -> str:
    """Return `text`, or raise InvalidRequest when it is empty, too long or has control characters.

    `length` is in bytes of UTF-8, as the indexes of a database count.
    """
    if not text and not empty:
        raise InvalidRequest(f"{what} is empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{what} is no valid text") from error
    if size > length:
        raise InvalidRequest(f"{what} has {size} bytes, {length} are allowed: {text[:60]}…")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidRequest(f"{what} has control characters: {text[:60]!r}")
    return text


def kept_message(text: str) -> str:
    """Return the end of what a node said went wrong, with nothing that no database can store."""
    storable = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return storable[-MESSAGE_LENGTH:]
