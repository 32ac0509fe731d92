"""`slapos:download`: a file from a path or an URL, checked by its hash.

Options:
`url`: a path, or an http, https or ftp address.
`sha256` or `md5sum`: what the file must hash to; one is needed unless `url` is a path.
`destination`: where to put the file; or `filename`: its name in the part (default: the part's).
`mode`: its permissions, octal. `offline`: `true` to take it from the cache only.
`cache-directory`: where downloads are kept.

Exported: `location`, the folder; `target`, the file.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.fetch import Digest, copy_whole, fetch, from_folder
from slapos.recipes.part import Sections, cache_directory, explained, is_offline

DIGESTS = {"sha256": ("sha256", 64), "md5sum": ("md5", 32)}


class Recipe:
    """One file."""

    def __init__(self, buildout: Sections, name: str, options: MutableMapping[str, str]) -> None:
        self.name = name
        with explained(name):
            if not options.get("url", "").strip():
                raise InvalidConfiguration("the option `url` is missing")
            self._digest = _digest(options)
            self._mode = _mode(options.get("mode", ""))
        self._url = from_folder(options["url"].strip(), buildout["buildout"]["directory"])
        self._offline = is_offline(buildout, options)
        self._cache = cache_directory(buildout, options, "download")
        section = buildout["buildout"]
        if destination := options.get("destination", "").strip():
            self._target = Path(section["directory"], destination)
            options.setdefault("location", str(self._target.parent))
            self._owned = self._target
        else:
            options.setdefault("location", os.path.join(section["parts-directory"], name))
            self._target = Path(options["location"], options.get("filename", name).strip())
            self._owned = Path(options["location"])
        options["target"] = str(self._target)

    def install(self) -> list[str]:
        """Put the file in place; return what belongs to the part."""
        with explained(self.name):
            source = fetch(self._url, self._digest, self._cache, offline=self._offline)
            copy_whole(source, self._target, self._mode)
        return [str(self._owned)]

    update = install


def _digest(options: MutableMapping[str, str]) -> Digest | None:
    for option, (algorithm, length) in DIGESTS.items():
        if value := options.get(option, "").strip():
            if len(value) != length or not set(value.lower()) <= set("0123456789abcdef"):
                raise InvalidConfiguration(
                    f"{option} = {value}: it has {length} hexadecimal digits"
                )
            return Digest(algorithm, value)
    return None


def _mode(text: str) -> int | None:
    try:
        return int(text, 8) if text.strip() else None
    except ValueError:
        raise InvalidConfiguration(f"mode = {text}: write it in octal, such as 0755") from None
