"""The files of a release that is on this machine: when one changes, it is to be built again."""

import hashlib
import re
from pathlib import Path

_EXTENDS = re.compile(r"^extends\s*[+]?=[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_BESIDE = re.compile(r"\$\{:_profile_base_location_\}/([\w./+-]+)")
_COMMENT = re.compile(r"[ \t]*[#;].*$", re.MULTILINE)


def local_path(url: str) -> Path | None:
    """Return the file that a release URL names, None when it is not on this machine."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return Path(url) if url.startswith("/") else None


def profile_digest(url: str) -> str:
    """Return a digest of a local release: its profile, those it extends, files they name beside
    them. It is empty for a release from elsewhere.
    """
    path = local_path(url)
    if path is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted(_files(path, set())):
        digest.update(f"{file}\0".encode())
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def _files(profile: Path, found: set[Path]) -> set[Path]:
    if profile in found:
        return found
    found.add(profile)
    try:
        text = profile.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for name in _BESIDE.findall(text):
        beside = Path(f"{profile.parent}/{name}").resolve()
        if beside.is_file():
            found.add(beside)
    for match in _EXTENDS.finditer(text):
        for word in _COMMENT.sub("", match.group(1)).split():
            if "://" not in word and "$" not in word:
                _files((profile.parent / word).resolve(), found)
    return found
