"""`slapos:publish`: what this instance lets its requester know.

Options: each one but `recipe` whose name does not begin with `-` is published, any value.
`-extends`: names of other sections whose options are published as well.
`-publish`: names of the options of this section to publish, in place of all.
`-slave-reference`: the shared instance to publish for.

`slapos:publish.serialised` publishes one JSON document.
"""

from typing import Any

from slapos.protocol.instance_xml import wrap_json
from slapos.recipes.connection import as_parameter, connect, plain
from slapos.recipes.section import words


class Recipe:
    """What is published; nothing is sent where the master has it."""

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self._connection = connect(buildout, {})
        self._shared = options.get("-slave-reference") or None
        self._values: dict[str, Any] = {}
        for section in reversed(_sections(buildout, name)):
            self._values |= _published(section)
        options.volatile(*_published(options))
        options.barrier()

    def install(self) -> list[str]:
        """Publish."""
        connection = self._connection
        values = self.connection_values(self._values)
        if self._shared is None:
            connection.publish(values)
        else:  # what the master has of shared instances, it does not say
            connection.client.publish(
                *connection.requester, values, self._shared, identity=connection.identity
            )
        return []

    def update(self) -> list[str]:
        """Do the same: an extended section may have changed."""
        return self.install()

    def connection_values(self, values: dict[str, Any]) -> dict[str, str]:
        """Return values as they travel."""
        return {name: as_parameter(value) for name, value in values.items()}


class Serialised(Recipe):
    """The same as JSON."""

    def connection_values(self, values: dict[str, Any]) -> dict[str, str]:
        """Return values as one JSON document."""
        return wrap_json(plain(values))


def _sections(buildout: Any, name: str) -> list[Any]:
    """Return a section and those it extends, each once; what comes first decides."""
    names = [name]
    for known in names:
        names += [word for word in words(buildout[known].get("-extends")) if word not in names]
    return [buildout[known] for known in names]


def _published(section: Any) -> dict[str, Any]:
    names = words(section.get("-publish")) or [
        option for option in section if option != "recipe" and not option.startswith("-")
    ]
    return {name: section[name] for name in names}
