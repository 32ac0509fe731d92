"""Reading a section's options, be they text as people write it or values from another recipe."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes import part
from slapos.recipes.buildout.values import inside_text, to_option
from slapos.system.files import write_if_changed

TRUE = ("true", "yes", "y", "on", "1")
FALSE = ("false", "no", "n", "off", "0", "")


def words(value: Any) -> list[str]:
    """Return the words of a text, or the items of a list or set (in order) as text."""
    return part.words(value) if isinstance(value, str) else _items(value)


def lines(value: Any) -> list[str]:
    """Return the lines of a text that say something, or the items of a list or set as text."""
    return part.lines(value) if isinstance(value, str) else _items(value)


def arguments(value: Any) -> list[str]:
    """Return a command line as arguments: a list, or text quoted as for a shell."""
    try:
        return shlex.split(value) if isinstance(value, str) else _items(value)
    except ValueError as error:
        raise InvalidConfiguration(
            f"the command line {value!r} cannot be split: {error}"
        ) from error


def assignments(value: Any) -> dict[str, str]:
    """Return `NAME = value` lines, or a dictionary, as names and texts."""
    if isinstance(value, Mapping):
        return {str(name): as_text(item) for name, item in value.items()}
    result = {}
    for line in lines(value):
        name, equals, text = line.partition("=")
        if not equals:
            raise InvalidConfiguration(f"{line!r} is no NAME = value")
        result[name.strip()] = text.strip()
    return result


def is_true(value: Any, default: bool = False) -> bool:
    """Return what a yes or no means."""
    if value is None:
        return default
    word = as_text(value).strip().lower()
    if word not in TRUE + FALSE:
        raise InvalidConfiguration(f"{value!r} is neither true nor false")
    return word in TRUE


def octal(value: Any, option: str = "mode") -> int:
    """Return a file mode such as 0640."""
    try:
        return int(str(value), 8)
    except ValueError as error:
        raise InvalidConfiguration(f"{option} = {value}: it is no octal number") from error


def number(value: Any, option: str) -> int:
    """Return a whole number."""
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InvalidConfiguration(f"{option} = {value}: it is no whole number") from error


def as_text(value: Any) -> str:
    """Return a value as it reads in text: 80, true; nothing for None."""
    return inside_text(to_option(value))


def write(path: str | Path, content: str | bytes, mode: int) -> str:
    """Make a file and the folders above it, unless it is right already; return its path."""
    whole = Path(path)
    whole.parent.mkdir(parents=True, exist_ok=True)
    write_if_changed(whole, content, mode=mode)
    return str(whole)


def mode_under_umask(mode: int) -> int:
    """Return the mode that a new file gets when it is made with `mode`."""
    umask = os.umask(0o077)
    os.umask(umask)
    return mode & ~umask


def _items(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple | set):
        raise InvalidConfiguration(f"{value!r} is neither text nor a list")
    items = [as_text(item) for item in value]
    return sorted(items) if isinstance(value, set) else items
