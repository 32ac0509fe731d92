"""What the machine provides by itself, told to apt in the words of a dpkg status file.

apt leaves out what the status file calls installed. Given the machine's whole status, a part would
lean on whatever happens to be installed; given only the packages that every installation has, the
same packages come out on every machine of a distribution's release.
"""

import re
from collections.abc import Iterator
from enum import StrEnum

#: Never unpacked: the loader of the machine cannot work with the libc of another version.
C_LIBRARY = ("libc6", "libc6-i386", "libc-bin")


class Base(StrEnum):
    """Which installed packages a part may lean on."""

    REQUIRED = "required"
    """Those that every installation has (essential or required), and what they depend on."""
    INSTALLED = "installed"
    """All that is installed on this machine."""
    NONE = "none"
    """Nothing: every dependency goes into the part."""


def filter_status(status: str, base: Base) -> str:
    """Return the part of a dpkg status file that belongs to `base`."""
    if base is Base.NONE:
        return ""
    if base is Base.INSTALLED:
        return status
    installed = [_Stanza(text) for text in status.split("\n\n") if text.strip()]
    installed = [stanza for stanza in installed if stanza.is_installed]
    providers: dict[str, list[_Stanza]] = {}
    for stanza in installed:
        for name in stanza.provided():
            providers.setdefault(name, []).append(stanza)
    waiting = [stanza for stanza in installed if stanza.is_required]
    kept: dict[str, str] = {}
    while waiting:
        stanza = waiting.pop()
        if stanza.key not in kept:
            kept[stanza.key] = stanza.text
            for name in stanza.dependencies():
                waiting.extend(providers.get(name, ()))
    return "".join(f"{text.strip()}\n\n" for _, text in sorted(kept.items()))


class _Stanza:
    """One package of a status file."""

    def __init__(self, text: str) -> None:
        self.text = text
        # A field's further lines begin with a space; none of the fields read here has any.
        self._fields = {
            name: value.strip()
            for name, colon, value in (line.partition(":") for line in text.splitlines())
            if colon and not name.startswith((" ", "\t"))
        }

    @property
    def key(self) -> str:
        return f"{self._fields.get('Package', '')}:{self._fields.get('Architecture', '')}"

    @property
    def is_installed(self) -> bool:
        return self._fields.get("Status", "").endswith(" installed")

    @property
    def is_required(self) -> bool:
        fields = self._fields
        return fields.get("Essential") == "yes" or fields.get("Priority") == "required"

    def provided(self) -> Iterator[str]:
        yield self._fields.get("Package", "")
        yield from self._names("Provides")

    def dependencies(self) -> Iterator[str]:
        yield from self._names("Pre-Depends")
        yield from self._names("Depends")

    def _names(self, field: str) -> Iterator[str]:
        """Give every name in a list of relations: `a (>= 1) | b:any, c` gives a, b, c."""
        for relation in re.split(r"[,|]", self._fields.get(field, "")):
            if name := relation.split("(")[0].strip().split(":")[0]:
                yield name
