"""What e-mail says."""

from collections.abc import Mapping
from enum import StrEnum


class Occasion(StrEnum):
    """What an e-mail is sent for."""

    INVITATION = "invitation"
    #: Somebody says that she has forgotten the password; whose it is is found out before sending.
    FORGOTTEN = "forgotten"
    RESET = "reset"
    PASSWORD = "password"
    FACTOR_ADDED = "factor_added"
    FACTOR_REMOVED = "factor_removed"
    EMAIL = "email"
    SIGN_IN = "sign_in"


_NOT_YOU = (
    "If that was not you, change your password at\n{url}\nand end the sessions that you do not "
    "know, or ask an administrator."
)
#: Occasion → subject and text.
_TEXTS: Mapping[Occasion, tuple[str, str]] = {
    Occasion.INVITATION: (
        "You are invited as {role} {place}",
        "You are invited to {url} as {role} {place}.\n\nAccept it here, within 7 days:\n{link}\n\n"
        "If you do not know what this is about, do nothing.",
    ),
    Occasion.RESET: (
        "A new password",
        "Somebody, perhaps you, has asked for a new password at {url}.\n\n"
        "Choose it here, within 24 hours:\n{link}\n\n"
        "If that was not you, do nothing: the present password stays.",
    ),
    Occasion.PASSWORD: (
        "Your password was changed",
        "The password of your account was changed at {at}.\n\n" + _NOT_YOU,
    ),
    Occasion.FACTOR_ADDED: (
        "Your account has a second factor",
        "Since {at}, a code of a device is asked for when you sign in.\n\n" + _NOT_YOU,
    ),
    Occasion.FACTOR_REMOVED: (
        "Your account has no second factor any more",
        "Since {at}, no code of a device is asked for when you sign in.\n\n" + _NOT_YOU,
    ),
    Occasion.EMAIL: (
        "Your account has another e-mail address",
        "Since {at}, your account has another e-mail address than this one.\n\n" + _NOT_YOU,
    ),
    Occasion.SIGN_IN: (
        "You have signed in from a new address",
        "Somebody has signed in to your account at {at}, from {address}, which was not seen in "
        "the last 90 days.\n\n" + _NOT_YOU,
    ),
}


def written(occasion: Occasion, values: Mapping[str, str]) -> tuple[str, str]:
    """Return the subject, which is one line, and the text of an e-mail."""
    subject, text = _TEXTS[occasion]
    return " ".join(subject.format_map(values).split()), text.format_map(values) + "\n"
