"""Finding a command, its help, and the exit statuses."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from slapos.command.main import COMMANDS, find_command, main, split_leading_options, suggestions

PRESENT = [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]
PRESENT = [name for name in PRESENT if name != "node"]  # shows its group


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("request a b", "request"),
        ("service list", "service list"),
        ("service list --json", "service list"),
        ("node", "node"),
        ("node --cfg x", "node"),
        ("node software", "node software"),
        ("node statsu", None),
        ("node --help", None),
        ("service", None),
        ("nonsense", None),
    ],
)
def test_the_longest_known_command_is_taken(line: str, name: str | None) -> None:
    assert find_command(line.split()) == name


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("reqest a b", "request"),
        ("service lst", "service list"),
        ("node statsu", "node status"),
        ("info", "service info"),
        ("standalon", "standalone"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(line: str, meant: str) -> None:
    assert meant in suggestions(line.split())


def test_an_unknown_command_ends_with_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reqest", "a", "b"]) == 5
    assert "there is no command 'reqest'; did you mean 'request'?" in capsys.readouterr().err


def test_no_command_at_all_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: slapos COMMAND" in capsys.readouterr().out


def test_a_group_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "service"]) == 0
    shown = capsys.readouterr().out
    assert "service destroy" in shown
    assert "node format" not in shown


def test_options_may_stand_before_the_command() -> None:
    line = "-v --log-file node.log node software --only x"
    assert split_leading_options(line.split()) == (
        ["-v", "--log-file", "node.log"],
        ["node", "software", "--only", "x"],
    )


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "proxy start", ("absent_package.module", ""))
    assert main(["proxy", "start"]) == 1
    assert (
        "absent_package is not installed: pip install 'slapos[master]'" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", PRESENT)
def test_every_command_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["help", *name.split()])
    assert ended.value.code == 0
    assert f"usage: slapos {name}" in capsys.readouterr().out


def test_the_reference_names_every_command() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/commands.md").read_text()
    words = {word for name in COMMANDS for word in name.split()}
    assert [word for word in sorted(words) if word not in page] == []


def test_closed_output_is_no_failure() -> None:
    command = [sys.executable, "-m", "slapos.command", "--help"]
    shell = ["sh", "-c", '"$@" >&-', "sh", *command]
    done = subprocess.run(shell, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "slapos.command", "--help"]
    shell = ["sh", "-c", '"$@" >/dev/full', "sh", *command]
    done = subprocess.run(shell, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
