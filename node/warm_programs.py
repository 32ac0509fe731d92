"""Which programs of a node need no Python of their own: a fork of the warm process runs them.

They are those whose code is the node's own, installed with it: the launcher of promises, and the
`bin/buildout` of a release where it is what node/build/folder.py writes for this very Python.
"""

from collections.abc import Sequence
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.build.folder import buildout_script
from slapos.node.promise.check import LAUNCHER
from slapos.system.warm_request import WarmProgram

#: What `bin/buildout` imports. The node itself imports no recipes, so they are only named here.
BUILDOUT = "slapos.recipes.buildout.main"
#: What is imported beforehand: the programs, and the promises and recipes that most instances use.
MODULES = (
    BUILDOUT,
    "slapos.recipes.buildout.prepared",
    LAUNCHER,
    "slapos.node.promise.plugin.check_command_execute",
    "slapos.node.promise.plugin.check_file_state",
    "slapos.node.promise.plugin.check_socket_listening",
    "slapos.node.promise.plugin.check_url_available",
    "slapos.recipes.generate_password",
    "slapos.recipes.mkdirectory",
    "slapos.recipes.promise_plugin",
    "slapos.recipes.publish",
    "slapos.recipes.publish_early",
    "slapos.recipes.request",
    "slapos.recipes.slapconfiguration",
    "slapos.recipes.slapconfiguration_jsonschema",
    "slapos.recipes.switch_softwaretype",
    "slapos.recipes.template",
    "slapos.recipes.template_jinja2",
    "slapos.recipes.wrapper",
)

#: As long as so many cold starts of the launcher takes that of the warm process (bench/warm.py); a
#: single buildout with the check of its promises takes as long, so it starts one at once.
COLD_LAUNCHERS = 3


def recognise(argv: Sequence[str], python: str) -> WarmProgram | None:
    """Return what a command line of `python` means to the warm process, None for all others."""
    match argv:
        case [first, "-P", "-m", module, *arguments] if first == python and module == LAUNCHER:
            return WarmProgram(LAUNCHER, tuple(arguments), cold_first=COLD_LAUNCHERS)
        case [first, script, *arguments] if first == python and _is_ours(Path(script), python):
            return WarmProgram(BUILDOUT, tuple(arguments), script)
    return None


def _is_ours(script: Path, python: str) -> bool:
    wanted = buildout_script(python).encode()
    try:
        found = read_beneath(script.parent, script.name, len(wanted) + 1)
    except (OSError, UnsafePath):
        return False
    return found == wanted
