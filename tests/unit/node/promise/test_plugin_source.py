from pathlib import Path
from typing import Any

import pytest

from slapos.node.promise.plugin_source import PluginSource, read_plugin
from slapos.recipes.promise_plugin import Recipe


def read(directory: Path, text: str) -> PluginSource:
    path = directory / "promise.py"
    path.write_text(text)
    return read_plugin(path)


def test_what_our_recipe_writes_for_a_plugin_of_ours_is_recognised(tmp_path: Path) -> None:
    output = tmp_path / "port.py"
    section = {"develop-eggs-directory": str(tmp_path), "eggs-directory": str(tmp_path)}
    options = {
        "output": str(output),
        "promise": "check_socket_listening",
        "config-host": "127.0.0.1",
        "config-note": "from slapos import 'quotes'\n{and} more",
    }
    Recipe({"buildout": section}, "port-promise", options).install()
    assert read_plugin(output) == PluginSource(
        (),
        "slapos.node.promise.plugin.check_socket_listening",
        {"host": "127.0.0.1", "note": "from slapos import 'quotes'\n{and} more"},
    )


HEAD = "import sys\nsys.path[0:0] = []\n"
IMPORT = "from slapos.node.promise.plugin.check_file_state import RunPromise\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "extra_config_dict = {}\nimport os\n" + IMPORT,
        HEAD + "extra_config_dict = {'a': print('hello')}\n" + IMPORT,
        HEAD + "extra_config_dict = {}\nos.fork()\nextra_config_dict = {}\n" + IMPORT,
        HEAD + "extra_config_dict = {}\n" + IMPORT + "class RunPromise: pass\n",
        HEAD + "extra_config_dict = {1}\n" + IMPORT,
        HEAD + "extra_config_dict = {" + "[" * 5000 + "}\n" + IMPORT,
        HEAD + "extra_config_dict = {}\nfrom slapos.node.promise.plugin.a.b import RunPromise\n",
        "\0",
        "",
    ],
)
def test_whatever_does_anything_else_is_not(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).module == ""


@pytest.mark.parametrize(
    ("text", "search_path"),
    [
        ("import os\n", ()),
        ("sys.path[0:0] = []\n", ()),
        ("sys.path[0:0] = ['/a', '/b']\nimport x\n", ("/a", "/b")),
        ("sys.path[0:0] = [\n  '/a',\n  '/b',\n]\n", ("/a", "/b")),
        ("sys.path[0:0] = [a, b]\n", None),
        ("sys.path[0:0] = [\n", ()),
    ],
)
def test_what_a_plugin_puts_in_front_of_the_path(
    tmp_path: Path, text: str, search_path: Any
) -> None:
    assert read(tmp_path, text).search_path == search_path


def test_of_a_plugin_that_cannot_be_read_nothing_is_told(tmp_path: Path) -> None:
    assert read_plugin(tmp_path / "gone.py") == PluginSource(None)
