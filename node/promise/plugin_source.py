"""What can be told of a plugin from its text, without running it."""

import ast
import importlib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

OWN = "slapos.node.promise.plugin"
#: Our own plugins in a plugin file: these are imported once, before the processes are made.
OWN_PLUGIN = re.compile(rb"\bslapos\.node\.promise\.plugin\.\w+")
#: What a generated plugin begins with, the eggs of its release.
SEARCH_PATH = re.compile(rb"^sys\.path\[0:0\] = (\[.*?\])\s*$", re.MULTILINE | re.DOTALL)
#: The whole of a plugin that is one of ours with options, as the recipe writes it.
WHOLE = re.compile(
    rb"(?:#[^\n]*\n)?import sys\nsys\.path\[0:0\] = \[\]\n\n?"
    rb"extra_config_dict = (\{.*?\})\n\n?"
    rb"from slapos\.node\.promise\.plugin\.(\w+) import RunPromise\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class PluginSource:
    """What a plugin puts in front of `sys.path`, None where nobody can tell.

    `module` is set for one that is nothing but a plugin of ours with these `options`.
    """

    search_path: tuple[str, ...] | None
    module: str = ""
    options: dict[str, Any] | None = None


def read_plugin(path: Path) -> PluginSource:
    """Read a plugin, and import what it needs of ours."""
    try:
        with open(path, "rb") as stream:
            text = stream.read()
    except OSError:  # it is told when the promise is run
        return PluginSource(None)
    for name in set(OWN_PLUGIN.findall(text)):
        with suppress(ImportError):  # likewise
            importlib.import_module(name.decode())
    if whole := WHOLE.fullmatch(text):
        options = _literal(whole[1])
        if isinstance(options, dict):
            return PluginSource((), f"{OWN}.{whole[2].decode()}", options)
    found = SEARCH_PATH.search(text)
    return PluginSource(_entries(found[1]) if found else ())


@cache
def _entries(text: bytes) -> tuple[str, ...] | None:
    entries = _literal(text)
    return tuple(map(str, entries)) if isinstance(entries, list) else None


def _literal(text: bytes) -> Any:
    try:
        return ast.literal_eval(text.decode())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
