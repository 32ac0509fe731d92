"""`slapos:publish-early`: secrets that the master keeps, published before anything is requested.

Options:
`-init`: lines NAME SECTION:OPTION. SECTION makes the value, such as a password; when the master
    has NAME already, OPTION is set to that before SECTION's recipe comes to be. So a secret
    survives the loss of the partition.
`NAME`: a value to publish in place of what `-init` would make.

Exported: each NAME. None of them is in `.installed.cfg`. A `slapos:publish` with
`-extends` of this section publishes them with the rest.
"""

from typing import Any

from slapos.protocol.errors import InvalidConfiguration
from slapos.protocol.instance_xml import unwrap_json, wrap_json
from slapos.recipes.connection import connect, plain
from slapos.recipes.section import lines


class Recipe:
    """What is published early; it installs nothing."""

    def __init__(self, buildout: Any, _name: str, options: Any) -> None:
        sources = {
            name: source for name, source in _sources(options).items() if name not in options
        }
        options.volatile(*sources)
        if not sources:
            return
        connection = connect(buildout, {})
        published = unwrap_json(connection.published())
        known = published if isinstance(published, dict) else {}
        for section in dict.fromkeys(section for section, _ in sources.values()):
            preset = {
                option: known[name]
                for name, (of, option) in sources.items()
                if of == section and name in known
            }
            buildout.preset(section, preset)
        made = {}
        for name, (section, option) in sources.items():
            options[name] = made[name] = buildout[section][option]
        if any(known.get(name) != value for name, value in made.items()):
            connection.publish(wrap_json(plain(known | made)))

    def install(self) -> list[str]:
        """Install nothing."""
        return []

    update = install


def _sources(options: Any) -> dict[str, tuple[str, str]]:
    result = {}
    for line in lines(options["-init"]):
        name, _, source = line.partition(" ")
        section, colon, option = source.strip().partition(":")
        if not colon:
            raise InvalidConfiguration(f"-init: {line!r} is not NAME SECTION:OPTION")
        result[name] = (section, option)
    return result
