"""Text that comes in from outside, checked before it is stored."""

import unicodedata

from slapos.protocol.errors import InvalidRequest

URL_LENGTH = 2000


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
