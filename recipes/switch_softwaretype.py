"""`slapos:switch-softwaretype`: run the profile of the software type that was asked for.

Options: `TYPE = SECTION:OPTION`, the option that has the path of the type's profile; or the path.
The type `RootSoftwareInstance` is `default`, unless it is listed. The section with the instance's
parameters has to be called `[slap-configuration]`.

The profile runs as a buildout of its own, in the same place and with an `.installed.cfg` of its
own; its `[slap-connection]` and `[slap-configuration]` are those of this one.
"""

from typing import Any

import zc.buildout.buildout
from zc.buildout import UserError

from slapos.protocol.descriptor import DEFAULT_TYPE, OLD_DEFAULT_TYPE
from slapos.protocol.errors import InvalidConfiguration, NotFound
from slapos.recipes.buildout.engine import Buildout
from slapos.recipes.buildout.values import dumps

#: What the inner buildout has in common with the outer one.
COMMON = ("offline", "verbosity", "newest", "directory", "eggs-directory", "develop-eggs-directory")


class Recipe:
    """The profile of the wanted type."""

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self._buildout = buildout
        self._name = name
        self._profile = _profile(buildout, _wanted(buildout, options), options)

    def install(self) -> list[str]:
        """Run the profile's buildout; what it makes is on its own list."""
        inner = Inner(self._buildout, self._profile, f".installed-{self._name}.cfg")
        inner.install([])
        return []

    update = install


class Inner(Buildout):
    """A buildout within another one, which has set up the logging."""

    def __init__(self, outer: Any, profile: str, installed: str) -> None:
        self._logger = outer._logger
        self._log_level = outer._log_level
        section = outer["buildout"]
        options = [("buildout", name, section[name]) for name in COMMON if name in section]
        options.append(("buildout", "installed", installed))
        for name in ("slap-connection", "slap-configuration"):
            # Values, where profiles have recipes: what was asked for is not asked for again.
            values = {**outer.get(name, {}), "recipe": ""}
            options += [(name, key, dumps(value)) for key, value in values.items()]
        super().__init__(profile, options, use_user_defaults=False)

    def _setup_logging(self) -> None:
        """Leave it as the outer buildout has it."""


def _wanted(buildout: Any, options: Any) -> str:
    try:
        wanted: str = buildout["slap-configuration"]["slap-software-type"]
    except (zc.buildout.buildout.MissingSection, zc.buildout.buildout.MissingOption) as error:
        raise UserError(
            "the section with the instance's parameters (recipe = slapos:slapconfiguration) has "
            f"to be called [slap-configuration]: {error}"
        ) from error
    if wanted == OLD_DEFAULT_TYPE and wanted not in options:
        return DEFAULT_TYPE
    return wanted


def _profile(buildout: Any, wanted: str, options: Any) -> str:
    if wanted not in options or wanted == "recipe":
        known = ", ".join(sorted(set(options) - {"recipe"}))
        raise NotFound(f"this release has no software type {wanted!r}; it has: {known}")
    given: str = options[wanted]
    if "/" in given:
        return given
    section, colon, option = given.partition(":")
    if not colon:
        raise InvalidConfiguration(f"{wanted} = {given}: it is neither section:option nor a path")
    return str(buildout[section][option])
