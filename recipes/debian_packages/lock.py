"""The lock file of a release: which packages exactly, for each distribution it was tried on.

JSON: `{"bookworm/amd64": {"jq": {"version": "1.6", "architecture": "amd64", "sha256": "…"}}}`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from slapos.protocol.errors import InvalidConfiguration


@dataclass(frozen=True, order=True)
class Package:
    """One package file: what it is called, and the hash of what it holds."""

    name: str
    version: str
    architecture: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def read_lock(text: str, where: str, platform: str) -> list[Package] | None:
    """Return the packages that a lock names for `platform`, or None when it names none.

    Raises InvalidConfiguration when it is no lock file.
    """
    try:
        entries = json.loads(text or "{}").get(platform)
        if entries is None:
            return None
        return [
            Package(name, entry["version"], entry["architecture"], entry["sha256"])
            for name, entry in sorted(entries.items())
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidConfiguration(
            f"{where} is no lock file of Debian packages ({error!r}): write it anew with "
            "`buildout buildout:refresh-locks=true`"
        ) from error


def write_lock(text: str, platform: str, packages: Iterable[Package]) -> str:
    """Return the lock file `text` with what it says of `platform` replaced."""
    content = json.loads(text or "{}")
    content[platform] = {}
    for package in packages:
        entry = asdict(package)
        content[platform][entry.pop("name")] = entry
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def differences(locked: Iterable[Package], found: Iterable[Package]) -> list[str]:
    """Return in words, one difference a line, how what apt gives differs from the lock."""
    wanted = {package.name: package for package in locked}
    given = {package.name: package for package in found}
    told = [f"{given[name]} is needed and not locked" for name in given.keys() - wanted.keys()]
    told += [f"{wanted[name]} is locked and not given" for name in wanted.keys() - given.keys()]
    for name in wanted.keys() & given.keys():
        locked_one, found_one = wanted[name], given[name]
        if locked_one.version != found_one.version:
            told.append(f"{locked_one} is locked, {found_one.version} is given")
        elif locked_one.sha256 != found_one.sha256:
            told.append(
                f"{locked_one} is locked with sha256 {locked_one.sha256}, "
                f"the archive has {found_one.sha256}"
            )
    return sorted(told)
