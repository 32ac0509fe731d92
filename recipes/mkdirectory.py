"""`slapos:mkdirectory`: directories, made when they are missing and never removed.

Options: each one but `recipe` and `mode` is a directory to make.
`mode`: their permissions (default 0777, less the umask).
"""

import os
from typing import Any

from slapos.protocol.errors import Conflict
from slapos.recipes.section import octal


class Recipe:
    """Some directories; they hold data, so that no uninstallation may touch them."""

    def __init__(self, _buildout: Any, _name: str, options: Any) -> None:
        self._mode = octal(options.get("mode", "0777"))
        self._directories = sorted(
            path for option, path in options.items() if option not in ("recipe", "mode") and path
        )

    def install(self) -> list[str]:
        """Make what is missing."""
        for path in self._directories:
            try:
                os.makedirs(path, self._mode, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise Conflict(
                    f"{path} cannot be a directory: {error.filename} is a file"
                ) from error
        return []

    update = install
