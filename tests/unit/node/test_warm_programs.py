import importlib
import inspect
from pathlib import Path

import pytest

from slapos.node.build.folder import buildout_script
from slapos.node.promise.check import LAUNCHER, PromiseContext, _command
from slapos.node.warm_programs import BUILDOUT, MODULES, recognise

PYTHON = "/opt/slapos/bin/python"


def script(folder: Path, text: str) -> str:
    path = folder / "bin" / "buildout"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_buildout_of_our_own_python_is_known(tmp_path: Path) -> None:
    path = script(tmp_path, buildout_script(PYTHON))
    program = recognise([PYTHON, path, "-D", "-U"], PYTHON)
    assert program is not None
    assert (program.module, program.arguments, program.script) == (BUILDOUT, ("-D", "-U"), path)


@pytest.mark.parametrize(
    "text",
    [
        buildout_script("/opt/older/bin/python"),
        buildout_script(PYTHON) + "\n",
        buildout_script(PYTHON)[:-1],
        "#!/bin/sh\n",
        "",
    ],
)
def test_any_other_buildout_is_not(tmp_path: Path, text: str) -> None:
    assert recognise([PYTHON, script(tmp_path, text)], PYTHON) is None


def test_a_buildout_of_another_python_is_not(tmp_path: Path) -> None:
    older = "/opt/older/bin/python"
    assert recognise([older, script(tmp_path, buildout_script(older))], PYTHON) is None


def test_no_link_is_followed_to_a_script(tmp_path: Path) -> None:
    path = Path(script(tmp_path, buildout_script(PYTHON)))
    link = path.with_name("link")
    link.symlink_to(path)
    assert recognise([PYTHON, str(link)], PYTHON) is None


def test_the_launcher_of_promises_is_known(tmp_path: Path) -> None:
    context = PromiseContext(
        partition_directory=tmp_path,
        partition="slappart0",
        node="node",
        master_url="http://127.0.0.1:1",
        python=PYTHON,
        user=None,
    )
    command = _command(context, "test", force=False)
    program = recognise(command, PYTHON)
    assert program is not None
    assert (program.module, program.script) == (LAUNCHER, None)
    assert program.arguments == tuple(command[4:])
    assert recognise(command, "/opt/newer/bin/python") is None


@pytest.mark.parametrize(
    "argv", [[], [PYTHON], [PYTHON, "-m", LAUNCHER], [PYTHON, "-P", "-m", "x"]]
)
def test_other_commands_are_not(argv: list[str]) -> None:
    assert recognise(argv, PYTHON) is None


@pytest.mark.parametrize("name", [BUILDOUT, LAUNCHER])
def test_a_program_can_be_run_by_its_main(name: str) -> None:
    main = importlib.import_module(name).main
    assert all(
        parameter.default is None for parameter in inspect.signature(main).parameters.values()
    )


@pytest.mark.parametrize("name", MODULES)
def test_what_is_imported_beforehand_is_there(name: str) -> None:
    importlib.import_module(name)
