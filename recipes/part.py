"""Where a recipe builds: in a part of its own, or in one shared between releases.

A part is built in place (virtual environments cannot be moved) and a marker file is written last:
what has no marker, or another one, was not finished or is out of date, and is built again.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zc.buildout

from slapos.protocol.errors import SlapOSError
from slapos.system.files import folders_of, remove_tree, write_if_changed
from slapos.system.process_lock import process_lock

MARKER = ".buildout-shared.json"
WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

Sections = Mapping[str, Mapping[str, str]]


class PartFailed(SlapOSError, zc.buildout.UserError):  # type: ignore[misc]
    """A part cannot be made; buildout shows the message without a traceback."""

    code = "part_failed"


@dataclass(frozen=True)
class Part:
    """A folder that a recipe fills. `signature` says all that its content depends on."""

    location: Path
    signature: Mapping[str, Any]
    shared: bool = False

    @property
    def complete(self) -> bool:
        """Whether it was built to its end, from the same signature."""
        try:
            marker = json.loads((self.location / MARKER).read_text())
        except (OSError, ValueError):
            return False
        return bool(marker == json.loads(self._text()))

    def build(self, fill: Callable[[Path], None]) -> list[str]:
        """Have `fill` make the content, unless it is there; return what buildout may remove."""
        if not self.complete:
            with self._lock():
                if not self.complete:
                    self._rebuild(fill)
        return [] if self.shared else [str(self.location)]

    def _lock(self) -> AbstractContextManager[None]:
        if not self.shared:
            return nullcontext()
        return process_lock(
            self.location.with_name(f".{self.location.name}.lock"), patience=math.inf
        )

    def _rebuild(self, fill: Callable[[Path], None]) -> None:
        remove_tree(self.location)
        self.location.mkdir(parents=True)
        fill(self.location)
        if self.shared:
            _protect(self.location)
        write_if_changed(self.location / MARKER, self._text(), mode=0o444)
        if self.shared:
            self.location.chmod(self.location.stat().st_mode & ~WRITE_BITS)

    def _text(self) -> str:
        return json.dumps(self.signature, indent=1, sort_keys=True)


def choose_part(
    buildout: Sections, name: str, options: Mapping[str, str], signature: Mapping[str, Any]
) -> Part:
    """Return where the part `name` goes.

    With `shared = true` and a `shared-part-list`, that is `<list>/<name>/<hash of the signature>`:
    in the first folder of the list that has it already, else in the last one.
    """
    folders = words(buildout["buildout"].get("shared-part-list", ""))
    if not is_true(options.get("shared", "false")) or not folders:
        own = options.get("location") or os.path.join(buildout["buildout"]["parts-directory"], name)
        return Part(Path(own), signature)
    digest = hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:32]
    parts = [Part(Path(folder) / name / digest, signature, shared=True) for folder in folders]
    return next((part for part in parts if part.complete), parts[-1])


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn our errors into one that names the part."""
    try:
        yield
    except PartFailed:
        raise
    except SlapOSError as error:
        raise PartFailed(f"{name}: {error}") from error
    except OSError as error:
        raise PartFailed(f"{name}: {error.filename or ''}: {error.strerror or error}") from error


def cache_directory(buildout: Sections, options: Mapping[str, str], name: str) -> Path:
    """Return the folder `name` where downloads are kept, so that a second build needs no network.

    It lies in the option `cache-directory`; or in buildout's `download-cache`; or beside the shared
    parts; or in the release's own folder.
    """
    section = buildout["buildout"]
    shared = words(section.get("shared-part-list", ""))
    if chosen := options.get("cache-directory") or section.get("download-cache"):
        return Path(section["directory"], chosen) / name
    if shared and os.access(shared[-1], os.W_OK):
        return Path(shared[-1]) / ".cache" / name
    return Path(section["directory"]) / ".cache" / name


def is_offline(buildout: Sections, options: Mapping[str, str]) -> bool:
    """Return whether the network must not be used."""
    return is_true(options.get("offline") or buildout["buildout"].get("offline", "false"))


def is_true(value: str) -> bool:
    """Return whether an option says yes."""
    return value.strip().lower() in ("true", "yes", "on", "1")


def lines(value: str) -> list[str]:
    """Return the lines of an option that say something."""
    stripped = (line.strip() for line in value.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def words(value: str) -> list[str]:
    """Return the words of an option, over all its lines, without comment lines."""
    return [word for line in lines(value) for word in line.split()]


def _protect(path: Path) -> None:
    """Make all below `path` read-only, but not `path` itself: the marker is still to come."""
    for folder in folders_of(path):
        for entry in os.scandir(folder):
            if not entry.is_symlink():
                os.chmod(entry.path, entry.stat().st_mode & 0o7777 & ~WRITE_BITS)
