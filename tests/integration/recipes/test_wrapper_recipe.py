"""`slapos:wrapper`: the scripts are run for real."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.wrapper import Recipe
from tests.recipe_sections import FakeBuildout

SHOW = "import os, sys; print(sys.argv[1:], os.environ.get('NAME'))"


def install(directory: Path, **options: Any) -> list[str]:
    options.setdefault("wrapper_path", str(directory / "run" / "it"))
    options.setdefault("command_line", "true")
    paths: list[str] = FakeBuildout(directory).make(Recipe, **options).install()
    return paths


def output(script: str, *arguments: str) -> str:
    return subprocess.run(
        [script, *arguments], check=True, capture_output=True, text=True, env={"PATH": "/usr/bin"}
    ).stdout


def test_it_becomes_the_program_with_its_arguments(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHOW, "a b", "$HOME", "it's"]
    (script,) = install(tmp_path, command_line=command, environment="NAME = x'y $z\n\n OTHER=1")
    assert output(script, "more") == "['a b', '$HOME', \"it's\", 'more'] x'y $z\n"
    assert stat.S_IMODE(os.stat(script).st_mode) == 0o700


def test_a_command_line_of_text_is_split_as_a_shell_does(tmp_path: Path) -> None:
    (script,) = install(
        tmp_path, command_line=f"{sys.executable} -c '{SHOW.replace(chr(39), chr(34))}' 'a b'"
    )
    assert output(script) == "['a b'] None\n"


def test_environment_may_be_a_dictionary(tmp_path: Path) -> None:
    (script,) = install(
        tmp_path, command_line=[sys.executable, "-c", SHOW], environment={"NAME": 80}
    )
    assert output(script) == "[] 80\n"


def until(what: Any) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_waits_for_files_and_passes_signals(tmp_path: Path) -> None:
    awaited, started = tmp_path / "awaited", tmp_path / "started"
    code = (
        "import signal, sys; signal.signal(15, lambda *a: sys.exit(7)); "
        f"open({str(started)!r}, 'w'); signal.pause()"
    )
    (script,) = install(
        tmp_path, command_line=[sys.executable, "-c", code], wait_for_files=str(awaited)
    )
    with subprocess.Popen([script]) as process:
        assert not started.exists()
        awaited.touch()
        until(started.exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 7


def test_a_second_one_ends_while_the_first_runs(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    (script,) = install(tmp_path, command_line="sleep 60", pidfile=str(pidfile))
    with subprocess.Popen([script]) as process:
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"))
        assert pidfile.read_text() == f"{process.pid}\n"
        second = subprocess.run([script], check=False, capture_output=True, text=True)
        assert second.returncode == 1
        assert f"already running as process {process.pid}" in second.stderr
        process.kill()
    with subprocess.Popen([script]) as process:  # the file that the dead one left does not hinder
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"))
        process.kill()


def test_the_name_ends_with_a_hash_of_files(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("1")
    buildout = FakeBuildout(tmp_path)
    options = {"wrapper_path": str(tmp_path / "it"), "command_line": "true"}
    recipe = buildout.make(Recipe, hash_files=str(config), **options)
    (first,) = recipe.install()
    assert first == recipe.update()[0]
    config.write_text("2")
    (second,) = recipe.update()
    assert first != second
    assert second.startswith(f"{tmp_path}/it-")
    assert not os.path.exists(first)
    assert buildout["part"].removed == {first}
    assert os.path.exists(second)


def test_a_change_of_an_existing_file_installs_again(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("1")
    options = []
    for text in "12":
        config.write_text(text)
        buildout = FakeBuildout(tmp_path)
        buildout.make(
            Recipe,
            wrapper_path=str(tmp_path / "it"),
            command_line="true",
            hash_existing_files=[str(config)],
        )
        options.append(buildout["part"].copy())
    assert options[0] != options[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command_line": "'open"}, "cannot be split"),
        ({"command_line": " "}, "names no program"),
        ({"environment": "NAME"}, "'NAME' is no NAME = value"),
        ({"environment": "a-b = 1"}, "'a-b' cannot be the name of an environment variable"),
        ({"hash_existing_files": "/none"}, "needs the hash of /none"),
        ({"private_tmpfs": "1 /x"}, "private-tmpfs is not known"),
        ({"sig_ign": "; rm"}, "is no signal"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        install(tmp_path, **options)
