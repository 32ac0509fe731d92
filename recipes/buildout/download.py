"""Downloading as upstream does it, with errors that name what was asked for, and what came."""

import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zc.buildout.download as upstream
from zc.buildout import UserError


class Download(upstream.Download):  # type: ignore[misc]
    """Upstream's Download; a file without the wanted hash does not stay, not in a cache either."""

    def __call__(
        self, url: str, md5sum: str | None = None, path: str | None = None
    ) -> tuple[str, bool]:
        """Return where the file is, and whether it is the caller's to remove."""
        location, is_temporary = super().__call__(url, None, path)
        if md5sum:
            found = hashlib.md5(Path(location).read_bytes(), usedforsecurity=False).hexdigest()
            if found != md5sum.strip():
                if path or urlsplit(url).scheme not in ("", "file"):
                    with suppress(FileNotFoundError):
                        os.remove(location)
                raise upstream.ChecksumError(
                    f"{url} has not the wanted content: its md5sum should be {md5sum} "
                    f"and is {found}"
                )
        return location, is_temporary

    def download(
        self, url: str, md5sum: str | None = None, path: str | None = None
    ) -> tuple[str, bool]:
        """Download without looking into the cache."""
        try:
            result: tuple[str, bool] = super().download(url, md5sum, path)
        except (HTTPException, ValueError) as error:
            raise UserError(f"cannot download {url}: {error}") from error
        except UserError as error:
            cause: Any = error.__context__
            if isinstance(cause, OSError):
                raise UserError(f"cannot download {url}: {cause}") from cause
            raise
        return result
