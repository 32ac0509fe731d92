"""`slapos:promise.plugin`: a promise of the partition, checked by the node.

Options:
`output`: the file, `${directory:plugin}/NAME.py` (in `etc/plugin`).
`promise`: a promise of ours, such as `check_socket_listening`; or `module`: the module that has the
    class RunPromise; or `file`: its path. `class`: the class, if it has another name.
`config-NAME`: what the promise is told, any value.
`eggs`: distributions that the module needs, if it is not one of ours.
`mode`: the file's permissions (default 0600: what it tells may be secret).
"""

import os
from pprint import pformat
from typing import Any

import zc.buildout.easy_install

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.section import lines, octal, write

LIBRARY = "slapos.node.promise.plugin"
PLUGIN = """\
# Written by buildout for [{name}].
import sys
sys.path[0:0] = {paths}

extra_config_dict = {configuration}

{code}
"""
FROM_FILE = """\
def _from_file(path):
    with open(path) as stream:
        exec(compile(stream.read(), path, "exec"), globals())


_from_file({path!r})
"""


class Recipe:
    """One promise."""

    def __init__(self, buildout: Any, name: str, options: Any) -> None:
        self._output = options["output"]
        if not self._output.endswith(".py"):
            raise InvalidConfiguration(f"output = {self._output}: a promise's file ends with .py")
        section = buildout["buildout"]
        self._mode = octal(options.get("mode", "0600"))
        self._eggs = lines(options.get("eggs"))
        self._directories = [section["develop-eggs-directory"], section["eggs-directory"]]
        self._name = name
        self._configuration = {
            option.removeprefix("config-"): value
            for option, value in options.items()
            if option.startswith("config-")
        }
        self._code = _code(options)

    def install(self) -> list[str]:
        """Write the file."""
        paths: list[str] = []
        if self._eggs:
            found = zc.buildout.easy_install.working_set(self._eggs, self._directories)
            paths = [distribution.location for distribution in found]
        plugin = PLUGIN.format(
            name=self._name,
            paths=pformat(paths),
            configuration=pformat(self._configuration),
            code=self._code,
        )
        return [write(self._output, plugin, self._mode)]

    update = install


def _code(options: Any) -> str:
    promise, module, path = (options.get(name) for name in ("promise", "module", "file"))
    name = options.get("class") or "RunPromise"
    if promise and not module and not path:
        module = promise if "." in promise else f"{LIBRARY}.{promise}"
    if bool(module) == bool(path):
        raise InvalidConfiguration("give one of the options promise, module and file")
    for word in (*(module or "").split("."), name):
        if (word or module) and not word.isidentifier():
            raise InvalidConfiguration(f"{word!r} is no name that Python knows")
    if module:
        return f"from {module} import {name}" + (" as RunPromise" if name != "RunPromise" else "")
    code = FROM_FILE.format(path=os.path.abspath(path))
    return code + (f"RunPromise = {name}" if name != "RunPromise" else "")
