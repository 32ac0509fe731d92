"""`slapos:generate.password`: a random password that stays the same.

Options:
`storage-path`: the file that keeps it, readable by its owner only (default: in `parts`); empty for
    none, when `slapos:publish-early` has the master keep it.
`bytes`: its length in characters (default 16).
`passwd`: a password to use in place of a random one; what the master knows comes in here.

Exported: `passwd`. It is not in `.installed.cfg`, and the file survives an uninstallation.
"""

import json
import os
from pathlib import Path
from typing import Any

from slapos.recipes.section import number, write
from slapos.system.identifier import Identifiers, SystemIdentifiers


class Recipe:
    """One password."""

    def __init__(
        self, buildout: Any, name: str, options: Any, identifiers: Identifiers | None = None
    ) -> None:
        default = os.path.join(buildout["buildout"]["parts-directory"], name)
        self._path = options.setdefault("storage-path", default)
        length = number(options.get("bytes", 16), "bytes")
        random = identifiers or SystemIdentifiers()
        self._password = options.get("passwd") or self._stored() or random.token(length)
        options["passwd"] = self._password
        options.volatile("passwd")

    def install(self) -> list[str]:
        """Keep the password; its file belongs to the data, not to the part."""
        if self._path:
            write(self._path, self._password, 0o600)
        return []

    update = install

    def _stored(self) -> str:
        try:
            text = Path(self._path).read_text().strip("\n") if self._path else ""
        except FileNotFoundError:
            return ""
        try:
            # slapos.cookbook keeps it in JSON, under no name, beside its hashes.
            return str(json.loads(text)[""])
        except (ValueError, KeyError, TypeError):
            return text
