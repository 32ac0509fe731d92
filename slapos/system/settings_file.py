"""Changing some options of a settings file, and leaving all else in it as somebody wrote it."""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import write_if_changed
from slapos.system.settings import read_configuration

_SECTION = re.compile(r"\[(?P<name>[^]]+)\]")
_OPTION = re.compile(r"(?P<name>[^\s=:#;\[][^=:]*?)\s*[=:]")


def write_options(
    path: Path,
    section: str,
    options: Mapping[str, str],
    *,
    fresh: str = "",
    fresh_mode: int = 0o644,
) -> None:
    """Give a section of a file these values; one that is not there begins as `fresh`.

    Comments, order and all other options stay. The file is replaced as a whole, or not at all.
    Raises InvalidConfiguration, also when a value cannot be written so that it is read again.
    """
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777
    except FileNotFoundError:
        text, mode = fresh, fresh_mode
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not a settings file: {error}") from error
    if path.exists():
        read_configuration(path)  # it has to make sense before
    changed = with_options(text, section, options)
    _check(changed, section, options, path)
    write_if_changed(path.resolve(), changed, mode=mode)


def with_options(text: str, section: str, options: Mapping[str, str]) -> str:
    """Return the text of a settings file with these values in a section.

    An option that is there, with `-` or `_` in its name, is changed in its place. Others are
    added at the end of the section.
    """
    lines = text.splitlines()
    left = {_normal(name): (name, value) for name, value in options.items()}
    result: list[str] = []
    current, dropping, end = "", False, None
    for line in lines:
        if (found := _SECTION.match(line)) is not None:
            current, dropping = found["name"], False
        elif line[:1].isspace() and line.strip():
            if dropping:
                continue  # the value that is replaced went on here
        elif (option := _OPTION.match(line)) is not None:
            dropping = False
            name = _normal(option["name"])
            if current == section and name in {_normal(each) for each in options}:
                dropping = True
                if name not in left:
                    continue  # the same option, spelt the other way
                line = f"{option['name']} = {left.pop(name)[1]}"  # noqa: PLW2901
        result.append(line)
        if current == section and line.strip() and not line.startswith(("#", ";")):
            end = len(result)
    added = [f"{name} = {value}" for name, value in left.values()]
    if end is None:
        gap = [""] if result and result[-1].strip() else []
        result += [*gap, f"[{section}]", *added]
    else:
        result[end:end] = added
    return "\n".join(result) + "\n"


def _normal(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _check(text: str, section: str, options: Mapping[str, str], path: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        written = {_normal(name): value for name, value in parser[section].items()}
    except (configparser.Error, KeyError) as error:
        raise InvalidConfiguration(f"{path} cannot be changed: {error}") from error
    for name, value in options.items():
        if written.get(_normal(name)) != value:
            raise InvalidConfiguration(f"{name} = {value!r} cannot be written into {path}")
