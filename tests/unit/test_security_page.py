"""The page on what the master is protected against names tests that there are."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "explanation" / "security.md"


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    modules: dict[str, str] = {}
    for path in (CHECKOUT / "tests").rglob("test_*.py"):
        modules[path.stem] = modules.get(path.stem, "") + path.read_text(encoding="utf-8")
    gone = [
        f"{module}::{name}"
        for module, name in named
        if f"def {name}(" not in modules.get(module, "")
    ]
    assert len(named) > 60
    assert gone == []


def test_every_requirement_has_a_test_or_says_that_it_has_none() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Requirements")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 50
    assert [row[1] for row in rows if "::" not in row[3] and "not yet" not in row[3]] == []
