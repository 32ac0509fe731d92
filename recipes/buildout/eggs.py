"""Finding eggs where nothing may be installed: upstream's Installer, without the network."""

import glob
import os
from typing import Any

import zc.buildout.easy_install as upstream


class Installer(upstream.Installer):  # type: ignore[misc]
    """Upstream's Installer; without a directory to install into it stays offline indeed."""

    def _make_env(self) -> Any:
        """Return what is there already.

        Upstream sees an `X.egg` that holds an `X.dist-info`, as it makes them itself, only in a
        directory that it may install into.
        """
        environment = super()._make_env()
        if self._dest is None:
            found = (glob.glob(os.path.join(path, "*.egg", "*.dist-info")) for path in self._path)
            environment.scan(sorted({os.path.dirname(path) for paths in found for path in paths}))
        return environment

    def _obtain(self, requirement: Any, source: Any = None) -> Any:
        """Return what can be had from an index; upstream asks it in offline mode, too."""
        return None if self._dest is None else super()._obtain(requirement, source)
