"""What the documents tell people to type exists, and what exists is in the reference."""

import argparse
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from slapos.command.main import COMMANDS, find_command, parser_of

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("software/*/README.md"),
    )
)
#: A command line in a block or between backticks: `slapos` and what follows, to the end of either,
#: or to where the shell goes on with something else.
_LINE = re.compile(r"(?:^|[`$( ])slapos ([a-z][^`\n;)]*)", re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])-{1,2}[A-Za-z][\w-]*")


@cache
def options_of(name: str) -> frozenset[str]:
    parser = parser_of(name, importlib.import_module(COMMANDS[name][0]))
    return frozenset(
        option
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
    )


def command_lines(page: str) -> Iterator[str]:
    text = (ROOT / page).read_text().replace("\\\n", " ")
    for code in _CODE.findall(text):
        for found in _LINE.findall(code.replace("\\|", "|")):
            yield re.split(r" \| |\s#| > ", found)[0].strip()


def documented_options(page: str) -> set[str]:
    codes = _CODE.findall((ROOT / page).read_text())
    return {option for code in codes for option in _OPTION.findall(code)}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/roadmap.md"])
def test_what_a_page_tells_to_type_exists(page: str) -> None:
    wrong = []
    for line in command_lines(page):
        # `start|stop` stands for each of them, and … for anything.
        words = [word.partition("|")[0] for word in line.split() if word not in ("…", "...")]
        if words[:1] == ["help"] or words == ["COMMAND"]:
            continue
        group = any(name.startswith(f"{words[0]} ") for name in COMMANDS)
        name = find_command(words)
        if name is None and not (group and words[1:] in ([], ["--help"])):
            wrong.append(line)
        elif name is not None:
            wrong += [
                f"{line}: {option}"
                for option in _OPTION.findall(" ".join(words[len(name.split()) :]))
                if option not in options_of(name)
            ]
    assert wrong == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_option_is_in_the_reference(name: str) -> None:
    commands = "docs/reference/commands.md"
    assert name.rpartition(" ")[2] in (ROOT / commands).read_text()
    master = "docs/reference/master.md"
    own = {"node": "docs/reference/node.md", "proxy": master, "master": master}
    told = documented_options(own.get(name.partition(" ")[0], commands))
    told |= documented_options(commands)
    # Of several spellings one is enough.
    parser = parser_of(name, importlib.import_module(COMMANDS[name][0]))
    missing = [
        action.option_strings
        for action in parser._actions
        if action.option_strings
        and action.help != argparse.SUPPRESS
        and not told.intersection(action.option_strings)
    ]
    assert missing == []


def test_each_page_is_reached_from_the_index() -> None:
    indexes = [ROOT / "docs/README.md", ROOT / "docs/decisions/README.md"]
    linked = {
        (index.parent / target).resolve()
        for index in indexes
        for target in re.findall(r"\]\(([^)#]+)", index.read_text())
    }
    pages = set(ROOT.glob("docs/**/*.md")) - set(indexes)
    assert {page.relative_to(ROOT).as_posix() for page in pages - linked} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text())
    local = [target for target in targets if "://" not in target]
    assert [t for t in local if not (ROOT / page).parent.joinpath(t).exists()] == []
