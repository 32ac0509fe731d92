"""Python values as the text of an option: `!py!` and a literal."""

import ast
import math
from typing import Any

from slapos.protocol.errors import InvalidConfiguration

MAGIC = "!py!"


def dumps(value: Any) -> str:
    """Return one line of ASCII that means `value` wherever a profile has it as an option.

    Values are None, bool, int, float, str, bytes, and tuples, lists, sets and dictionaries of them;
    TypeError for others. Equal sets give equal text. No `${…}` in a value is ever substituted.
    """
    return MAGIC + _literal(value).replace("$", r"\x24")


def loads(text: str) -> Any:
    """Return the value that `dumps` wrote; any other text stands for itself.

    Nothing is executed. Raises InvalidConfiguration when there is no literal after `!py!`.
    """
    if not text.startswith(MAGIC):
        return text
    try:
        return ast.literal_eval(text[len(MAGIC) :].strip())
    except (ValueError, TypeError, SyntaxError) as error:
        raise InvalidConfiguration(
            f"after {MAGIC} comes a Python literal, which {text[len(MAGIC) :]!r} is not"
        ) from error


def to_option(value: Any) -> str:
    """Return the text under which an option keeps `value`: plain text as it is, all else dumped."""
    if isinstance(value, str) and not value.startswith(MAGIC):
        return str(value)
    return dumps(value)


def inside_text(text: str) -> str:
    """Return how an option reads in the midst of other text: 80, true, but !py![80]."""
    value = loads(text)
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return text


def _literal(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case tuple():
            return f"({''.join(f'{_literal(item)}, ' for item in value)})"
        case set():
            items = ", ".join(sorted(map(_literal, value)))
            return f"{{{items}}}" if items else "set()"
        case dict():
            return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    # Subclasses (enumerations, the strings of template engines) are written as what they extend.
    match value:
        case None | bool():
            return repr(value)
        case int():
            return int.__repr__(value)
        case float() if math.isfinite(value):
            return float.__repr__(value)
        case str():
            return ascii(str.__str__(value))
        case bytes():
            return repr(bytes(value))
        case _:
            raise TypeError(f"{value!r} cannot be the value of an option")
