"""Files from a path or an URL, checked by their hash."""

import filecmp
import hashlib
import http.client
import shutil
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from slapos.protocol.errors import InvalidConfiguration, SlapOSError

TIMEOUT = 60.0


class FetchFailed(SlapOSError):
    """A file could not be had, or is not the one that was meant."""

    code = "fetch_failed"


@dataclass(frozen=True)
class Digest:
    """What a file must hash to: the name of the algorithm, and the sum in hexadecimal."""

    algorithm: str
    value: str

    def check(self, path: Path, source: str) -> None:
        """Raise FetchFailed unless the file that came from `source` has this hash."""
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, self.algorithm).hexdigest()
        if found != self.value.lower():
            raise FetchFailed(
                f"{source} has {self.algorithm} {found}, and {self.value} is expected: the file "
                "has changed or was altered on its way; if the change is meant, correct the option"
            )


def local_path(source: str) -> Path | None:
    """Return the path that a source names, or None when it is an URL of another machine."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme and parts.netloc else Path(source)


def from_folder(source: str, folder: str | Path) -> str:
    """Return `source` with a relative path taken from `folder`."""
    path = local_path(source)
    return source if path is None else str(Path(folder, path))


def fetch(source: str, digest: Digest | None, cache: Path, *, offline: bool = False) -> Path:
    """Return a local file with what `source` (a path or an URL) names, checked by its hash.

    What comes from another machine must have a digest, and is kept in `cache` by it: it is asked
    for once. Raises FetchFailed, InvalidConfiguration.
    """
    path = local_path(source)
    if path is not None:
        if not path.is_file():
            raise FetchFailed(f"{source} is not there, or is no file")
        if digest is not None:
            digest.check(path, source)
        return path
    if digest is None:
        raise InvalidConfiguration(
            f"{source} comes from another machine: give its sha256 or md5sum, so that it can be "
            "checked"
        )
    kept = cache / f"{digest.algorithm}-{digest.value.lower()}"
    if kept.exists():
        try:
            digest.check(kept, str(kept))
        except FetchFailed:  # a disk that lost what it had promised to keep
            kept.unlink(missing_ok=True)
    if not kept.exists():
        _download(source, kept, digest, offline=offline)
    return kept


def read_text(source: str, cache: Path, *, offline: bool = False) -> str:
    """Return the text that `source` names: a lock file, which says itself what it vouches for.

    The text of an URL is asked for each time, and kept in `cache` for when that fails.
    """
    path = local_path(source)
    if path is None:
        path = cache / hashlib.sha256(source.encode()).hexdigest()
        try:
            _download(source, path, None, offline=offline)
        except FetchFailed:
            if not path.exists():
                raise
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchFailed(f"{source} cannot be read: {error}") from error


def copy_whole(source: Path, target: Path, mode: int | None = None) -> None:
    """Make `target` a copy of `source`; a reader sees the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    same = target.is_file() and filecmp.cmp(source, target, shallow=False)
    if not same:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            whole = Path(folder) / "whole"
            shutil.copyfile(source, whole)
            whole.chmod(0o644)
            whole.replace(target)
    if mode is not None:
        target.chmod(mode)


def _download(url: str, target: Path, digest: Digest | None, *, offline: bool) -> None:
    if offline:
        raise FetchFailed(
            f"offline, and {url} was not downloaded before: run once with the network"
        )
    if urlsplit(url).scheme not in ("http", "https", "ftp"):
        raise InvalidConfiguration(f"{url}: it is neither a path nor an http, https or ftp address")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / "whole"
        try:
            # urllib trusts the certificates that this machine trusts, and uses its proxies.
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response, whole.open("wb") as out:
                shutil.copyfileobj(response, out)
        except (OSError, http.client.HTTPException) as error:
            raise FetchFailed(
                f"{url} cannot be downloaded: {error}; see the address, the network and the proxy"
            ) from error
        if digest is not None:
            digest.check(whole, url)
        whole.replace(target)
