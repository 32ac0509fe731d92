"""Key and certificate that are replaced together, in two files that somebody else has named.

Both are links through `current` into a folder with one pair; to have another pair, that one link is
exchanged. So whoever reads them, and whoever comes after a crash, has a pair that fits together.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from slapos.system.files import remove_tree, sync_folder, write_if_changed

CURRENT, PAIR = "current", "pair-"


def put_pair(key_file: Path, certificate_file: Path, key: str, certificate: str) -> None:
    """Have both files be of this pair, from one moment to the next; the pair before is removed.

    May be cut short at any point: then they are of the one before, or of this one. Raises OSError.
    """
    folder = key_file.parent
    files = {key_file: f"{CURRENT}/{key_file.name}"}
    files[certificate_file] = f"{CURRENT}/{certificate_file.name}"
    if any(_aim(file) != aim for file, aim in files.items()):
        # First the pair that is there: each name leads to what it has held, whatever comes between.
        _aim_at(folder, _write(key_file, certificate_file, *_contents(key_file, certificate_file)))
        for file, aim in files.items():
            _link(file, aim)
    made = _write(key_file, certificate_file, key, certificate)
    _aim_at(folder, made)
    for other in folder.glob(f"{PAIR}*"):
        if other != made:
            remove_tree(other)


def _contents(key_file: Path, certificate_file: Path) -> tuple[str, str]:
    return key_file.read_text(), certificate_file.read_text()


def _write(key_file: Path, certificate_file: Path, key: str, certificate: str) -> Path:
    digest = hashlib.sha256(certificate.encode()).hexdigest()[:12]
    pair = key_file.parent / f"{PAIR}{digest}"
    pair.mkdir(mode=0o755, exist_ok=True)
    pair.chmod(0o755)  # the certificate is for all, whatever the umask
    write_if_changed(pair / key_file.name, key, mode=0o600)
    write_if_changed(pair / certificate_file.name, certificate)
    sync_folder(pair)
    return pair


def _aim_at(folder: Path, pair: Path) -> None:
    _link(folder / CURRENT, pair.name)


def _aim(path: Path) -> str:
    """Return where a link leads, "" for what is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _link(path: Path, aim: str) -> None:
    if _aim(path) == aim:
        return
    waiting = path.with_name(f".{path.name}.link")
    with suppress(FileNotFoundError):
        waiting.unlink()
    waiting.symlink_to(aim)
    os.replace(waiting, path)
    sync_folder(path.parent)
