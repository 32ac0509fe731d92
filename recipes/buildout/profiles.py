"""Profiles and what they extend, each read and merged once: in place of upstream's `_open`.

Upstream reads a profile again each time that another one extends it, which in a graph of diamonds
doubles at each level. What it ends up with is decided by the last time that it merges a profile; so
each is merged at that place only, and the result is the same but for a repeated `+=`, which then
adds once.
"""

import copy
import io
import logging
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import zc.buildout.buildout as upstream
import zc.buildout.configparser as upstream_parser
from zc.buildout import UserError

from slapos.recipes.buildout.download import Download

#: Section → option → upstream's SectionKey: its value and where that came from.
Sections = dict[str, dict[str, Any]]
#: Returns the text of a profile, given its name and for errors who extends it.
Content = Callable[[str, Download, str], str]

logger = logging.getLogger("zc.buildout")


@dataclass
class Profile:
    """One profile: where it is, what it says, and the profiles that it extends, by their names."""

    name: str
    sections: Sections
    extends: list[str] = field(default_factory=list)


class ProfileReader:
    """Reads a profile with all that it extends.

    `places` tells for each section the profile in which it stands: the last one merged, if several.
    """

    def __init__(self, content: Content | None = None) -> None:
        self.places: dict[str, str] = {}
        self._content = content or _content

    def __call__(
        self,
        base: str,
        filename: str,
        _seen: list[str],
        download_options: dict[str, Any],
        override: dict[str, Any],
        _downloaded: set[str],
        user_defaults: Sections,
    ) -> tuple[Sections, Sections]:
        """Return the sections of a profile and all that it extends, on top of the user's defaults.

        The second value is what is left of those defaults: nothing.
        """
        given = upstream._update_section(download_options, override)
        root_name = resolved(base, filename)
        root = self._read(root_name, _downloader(given), None)
        if "buildout" in root.sections:
            given = upstream._update_section(given, root.sections["buildout"])
            given = upstream._update_section(given, override)
        merged: Sections = copy.deepcopy(user_defaults)
        for profile in reversed(list(self._from_the_end(root, _downloader(given)))):
            merge(merged, profile.sections)
            self.places.update(dict.fromkeys(profile.sections, profile.name))
        return merged, {}

    def _from_the_end(self, root: Profile, download: Download) -> Iterator[Profile]:
        """Yield the profiles in reverse order of the last time that upstream would merge each."""
        yield root
        reached = {root.name}
        # The way from the root to where we are: profile → what is left of what it extends.
        path = {root.name: reversed(root.extends)}
        while path:
            here, left = next(reversed(path.items()))
            name = next(left, None)
            if name is None:
                del path[here]
            elif name in path:
                circle = [*path][[*path].index(name) :]
                chain = " extends\n  ".join([*circle, name])
                raise UserError(f"these profiles extend each other in a circle:\n  {chain}")
            elif name not in reached:
                reached.add(name)
                profile = self._read(name, download, here)
                yield profile
                path[name] = reversed(profile.extends)

    def _read(self, name: str, download: Download, extended_by: str | None) -> Profile:
        by = f", which {extended_by} extends" if extended_by else ""
        return _profile(name, self._content(name, download, by), by)


def resolved(base: str, name: str) -> str:
    """Return the one name (URL or absolute path) of what a profile in `base` calls `name`."""
    if upstream._isurl(name):
        return _normal_url(name)
    if os.path.isabs(name) or not upstream._isurl(base):
        return os.path.normpath(os.path.join(os.path.abspath(base), name))
    return _normal_url(f"{base}/{name}")


def base_of(name: str) -> str:
    """Return the directory, or the URL without its last part, of a profile."""
    if upstream._isurl(name):
        return name.split("?", 1)[0].rpartition("/")[0]
    return os.path.dirname(name)


def _normal_url(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=posixpath.normpath(parts.path) if parts.path else ""))


def _downloader(options: dict[str, Any]) -> Download:
    raw = upstream._unannotate_section(options)
    cache = raw.get("extends-cache")
    if cache and "${" in cache:
        raise UserError(f"extends-cache = {cache}: it is needed before any ${{…}} can be replaced")
    newest = upstream.bool_option(raw, "newest", "false")
    download = Download(raw, cache=cache, fallback=newest, hash_name=True)
    if download.cache:
        os.makedirs(download.download_cache, exist_ok=True)
    return download


def _content(name: str, download: Download, by: str) -> str:
    path, is_temporary = Path(name), False
    if upstream._isurl(name):
        try:
            location, is_temporary = download(name)
        except UserError as error:
            raise UserError(f"the profile {name}{by}: {error}") from error
        path = Path(location)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the profile {name}{by}, is no UTF-8 text: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read the profile {name}{by}: {error.strerror}") from error
    finally:
        if is_temporary:
            path.unlink()


def _profile(name: str, content: str, by: str) -> Profile:
    sections = parsed(content, name, by)
    options = sections.get("buildout", {})
    if "extended-by" in options:
        raise UserError(f"{name}: buildout no longer knows the option extended-by")
    base = base_of(name)
    extends = [
        resolved(base, word)
        for option in ("extends", "extends +")
        for word in options.pop(option, "").split()
    ]
    for word in options.pop("optional-extends", "").split():
        optional = resolved(base, word)
        if os.path.exists(optional):
            extends.append(optional)
        else:
            logger.info("optional-extends file not found: %s", optional)
    return Profile(name, upstream._annotate(sections, name), extends)


def parsed(content: str, name: str, by: str = "") -> dict[str, dict[str, str]]:
    """Return the sections in the text of a profile; UserError names the lines that are wrong."""
    try:
        sections: dict[str, dict[str, str]] = upstream_parser.parse(
            io.StringIO(content), name, upstream._default_globals
        )
    except upstream_parser.MissingSectionHeaderError as error:
        raise UserError(
            f"{name}{by}, line {error.lineno}: {error.line.strip()!r} stands before any [section]"
        ) from error
    except upstream_parser.ParsingError as error:
        lines = "".join(f"\n  line {number}: {line}" for number, line in error.errors)
        raise UserError(f"{name}{by}: neither [section] nor option = value:{lines}") from error
    except Exception as error:  # what stands in [section:condition] is foreign code
        raise UserError(f"{name}{by}: the condition of a section fails: {error!r}") from error
    return sections


def merge(merged: Sections, sections: Sections) -> None:
    """Put a profile's sections over what is merged so far; both are used up.

    The result is that of upstream's `_update`, without its copies of all that came before.
    """
    for name, section in sections.items():
        if name in merged:
            _merge_section(merged[name], section)
        elif "<" in section:
            # A macro's options are known only when the section is initialised: `+=` waits.
            merged[name] = section
        else:
            merged[name] = _merge_section({}, _first_of_its_name(section))


def _first_of_its_name(section: dict[str, Any]) -> dict[str, Any]:
    """Let `+=` without anything to add to be `=`, and `-=` be nothing at all."""
    for option in sorted(section):
        name = option.rstrip(" +-")
        if option.endswith(("+", "-")) and name not in section:
            key = section[name] = section.pop(option)
            if option.endswith("-"):
                key.removeFromValue(key.value, "IMPLICIT_VALUE")
    return section


def _merge_section(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    changes = sorted(option for option in above if option.endswith(("+", "-")))
    # In upstream's order: first all that is added, then all that is removed.
    for option in sorted(changes, key=lambda option: option[-1]):
        name = option.rstrip(" +-")
        change = above.pop(option)
        if name not in above:
            above[name] = below.pop(name, None) or upstream.SectionKey("", "IMPLICIT_VALUE")
        if option.endswith("+"):
            above[name].addToValue(change.value, change.source)
        else:
            above[name].removeFromValue(change.value, change.source)
    for name, key in above.items():
        if name in below:
            below[name].overrideValue(key)
        else:
            below[name] = key
    return below
