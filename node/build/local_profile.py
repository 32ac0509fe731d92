"""The files of a release that is on this machine: when one changes, it is to be built again."""

import hashlib
import os
import re
import stat
from pathlib import Path

_EXTENDS = re.compile(r"^extends\s*[+]?=[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_HERE = "_profile_base_location_"
#: A file beside the profile, whose whole name stands there.
_BESIDE = re.compile(r"\$\{:_profile_base_location_\}/([\w./+-]+)(?![\w./+$-])")
_COMMENT = re.compile(r"[ \t]*[#;].*$", re.MULTILINE)
#: Whoever requests a release names its file, and root may read it: no more than a release has.
_LARGEST = 10_000_000
_MOST_FILES = 1000


def local_path(url: str) -> Path | None:
    """Return the file that a release URL names, None when it is not on this machine."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return Path(url) if url.startswith("/") else None


def profile_digest(url: str) -> str:
    """Return a digest of a local release; it is empty for a release from elsewhere.

    It covers the profile, those it extends, and what they take from beside them: the files that
    they name there, or where a name is made up of options, all in that folder.
    """
    path = local_path(url)
    if path is None:
        return ""
    digest = hashlib.sha256()
    for file, content in sorted(_files(path).items()):
        digest.update(f"{file}\0".encode(errors="backslashreplace"))
        digest.update(b"unreadable" if content is None else hashlib.sha256(content).digest())
    return digest.hexdigest()


def _files(path: Path) -> dict[Path, bytes | None]:
    found: dict[Path, bytes | None] = {}
    profiles = [path]
    while profiles and len(found) < _MOST_FILES:
        profile = profiles.pop()
        if profile in found:
            continue
        found[profile] = _read(profile)
        text = (found[profile] or b"").decode("utf-8", "replace")
        for file in _beside(profile.parent, text):
            found.setdefault(file, _read(file))
        for match in _EXTENDS.finditer(text):
            for word in _COMMENT.sub("", match.group(1)).split():
                if "://" not in word and "$" not in word:
                    profiles.append(_resolved(profile.parent, word))
    return found


def _beside(folder: Path, text: str) -> list[Path]:
    names = _BESIDE.findall(text)
    files = [_resolved(folder, name) for name in names]
    if text.count(_HERE) > len(names):
        try:
            files += sorted(p for p in folder.iterdir() if not p.name.startswith("."))[:_MOST_FILES]
        except OSError:
            return files
    return [file for file in files if file.is_file()]


def _resolved(folder: Path, name: str) -> Path:
    return Path(os.path.realpath(f"{folder}/{name}"))


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(_LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
